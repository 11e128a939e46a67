"""The commands. Thin: each reads its arguments, calls what does the work, and says what came of it.

Exit codes: 0 done; 1 done in part (some documents were refused, some searches failed); 2 wrong use or set-up;
3 no service answers.
"""

import asyncio
import functools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from service import __version__, beir, logs
from service.client import Client, Refused, Unreachable
from service.errors import AzimuthError, Misconfigured
from service.settings import Settings

PARTLY, WRONG, UNREACHABLE = 1, 2, 3

app = typer.Typer(
    name="azimuth",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Vector search that cannot go wrong silently: pgvector, BM25 and reranking behind one HTTP API.\n\n"
    "Start with `azimuth up --demo`. Settings are environment variables `AZIMUTH_*` (docs/settings.md).",
)
out = Console()
err = Console(stderr=True)

Collection = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
Url = Annotated[
    str | None,
    typer.Option("--url", envvar="AZIMUTH_URL", help="Address of the service; default: AZIMUTH_HOST and AZIMUTH_PORT."),
]
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]


# ---------------------------------------------------------------- processes


@app.command()
def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Also load the documentation of the Python standard library.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Embedder processes.")] = 1,
) -> None:
    """Run everything on this machine until stopped: PostgreSQL (embedded unless AZIMUTH_DATABASE_URL is set), API, worker."""
    from service import machine

    settings = _settings(default_log_level="warning" if demo else None)
    show = (lambda: load_demo(settings)) if demo else (lambda: None)
    asyncio.run(machine.up(settings, workers=workers, ready=show))


@app.command()
def serve(supervised: Supervised = False) -> None:
    """Serve the API and the console. Migrates the database first where that is needed."""
    from service import machine

    machine.serve(_settings(), supervised=supervised)


@app.command()
def worker(supervised: Supervised = False) -> None:
    """Encode what waits in the queue, until stopped. Run one for each GPU."""
    from service import machine

    machine.worker(_settings(), supervised=supervised)


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 where migrations are pending.")
    ] = False,
) -> None:
    """Bring the database to the schema that this version needs. Safe to run at any time, by several at once."""
    from service import machine

    names = asyncio.run(machine.migrate(_settings(), apply=not check))
    out.print("\n".join(("pending " if check else "applied ") + name for name in names) or "The schema is up to date.")
    raise typer.Exit(PARTLY if check and names else 0)


# ---------------------------------------------------------------- clients of a running service


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="A JSONL file, a folder in BEIR layout, or - for standard input.")],
    collection: Collection,
    wait: Annotated[bool, typer.Option(help="Wait until everything is encoded.")] = True,
    url: Url = None,
) -> None:
    """Load documents, one JSON object a line: `{"id", "title", "text", "metadata"}`. The collection is made if missing.

    Lines that are refused are told on standard error, and the exit code is 1; the others are committed.
    """
    lines, total = _documents(source)
    with _client(url) as client:
        client.ensure_collection(collection)
        counts, errors = load(client, collection, lines, total, wait=wait)
    for error in errors[:20]:
        err.print(f"line {error['line']}: {error['error']}", style="red", highlight=False, markup=False)
    out.print(", ".join(f"{count} {what}" for what, count in counts.items()))
    raise typer.Exit(PARTLY if counts["refused"] else 0)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="What to look for.")],
    collection: Collection,
    mode: Annotated[str, typer.Option(help="hybrid, dense or lexical.")] = "hybrid",
    k: Annotated[int, typer.Option("-k", help="Number of hits.")] = 10,
    where: Annotated[str | None, typer.Option("--filter", help='JSON, such as \'{"year": {"$gte": 2019}}\'.')] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Let the cross-encoder read the best hits.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
    url: Url = None,
) -> None:
    """Search a collection of the running service."""
    request: dict[str, Any] = {"query": text, "mode": mode, "k": k, "rerank": rerank, "explain": True}
    if where is not None:
        request["filter"] = _json(where, "--filter")
    with _client(url) as client:
        answer = client.search(collection, request)
    if as_json:
        out.print_json(data=answer)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "score", "dense", "lexical", "id", "title"):
        table.add_column(column, justify="right" if column in {"", "score", "dense", "lexical"} else "left")
    for rank, hit in enumerate(answer["hits"], start=1):
        legs = [hit["explain"].get(leg) for leg in ("dense", "lexical")]
        shown = ["" if leg is None else f"{leg['score']:.3f}" for leg in legs]
        table.add_row(str(rank), f"{hit['score']:.3f}", *shown, hit["id"], hit["title"])
    out.print(table)
    for note in answer["degraded"]:
        err.print(f"without {note['stage']}: {note['reason']}", style="yellow", markup=False)
    plan = answer["plan"]
    out.print(f"version {answer['embedder_version']}, {plan['dense']}, {answer['took_ms']:.1f} ms", style="dim")


@app.command("eval")
def evaluate(
    folder: Annotated[Path, typer.Argument(help="BEIR layout: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv.")],
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Where to load it; default: the folder's name.")
    ] = None,
    modes: Annotated[
        str, typer.Option(help="Comma-separated: dense, lexical, hybrid, rerank.")
    ] = "dense,lexical,hybrid",
    split: Annotated[str, typer.Option(help="Which judgments.")] = "test",
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Searches at once.")] = 1,
    url: Url = None,
) -> None:
    """Load a judged collection and measure retrieval through the service: nDCG@10, MRR@10, Recall@100, p50 and p95.

    Where no service runs, one is started on the data folder for as long as it takes.
    """
    from service import machine
    from service.evaluate import MODES, measure

    chosen = [mode.strip() for mode in modes.split(",") if mode.strip()]
    if unknown := [mode for mode in chosen if mode not in MODES]:
        _stop(f"unknown mode {unknown[0]}; there are {', '.join(MODES)}")
    judgments = beir.judgments(folder, split)
    name = collection or folder.resolve().name.lower().replace(".", "-")
    settings = _settings(default_log_level="warning")
    with machine.running(settings, url) as address, _client(address) as client:
        client.ensure_collection(name)
        lines, total = _documents(str(folder))
        counts, _ = load(client, name, lines, total, wait=True)
        results = []
        with _progress() as progress:
            for mode in chosen:
                task = progress.add_task(f"{mode} queries", total=len(judgments.queries))
                advance = functools.partial(progress.advance, task)
                scores = measure(client, name, judgments, mode, concurrency=concurrency, progress=advance)
                results.append(scores.as_json())
        state = client.call("GET", f"/v1/collections/{name}")
    table = Table("mode", "queries", "nDCG@10", "MRR@10", "Recall@100", "p50 ms", "p95 ms")
    for result in results:
        table.add_row(
            *(str(result[key]) for key in ("mode", "queries", "nDCG@10", "MRR@10", "Recall@100", "p50_ms", "p95_ms"))
        )
    out.print(table)
    for result in results:
        for reason, times in result["degraded"].items():
            err.print(f"{result['mode']}: {times} answers without {reason}", style="yellow", markup=False)
    if as_json is not None:
        report = {"collection": name, "folder": folder.name, "split": split, "azimuth": __version__, "results": results}
        report |= {"refused": counts["refused"], "state": state}
        as_json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- parts of the commands


def load(
    client: Client, collection: str, lines: Iterable[bytes], total: int | None, *, wait: bool
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Send documents with a progress bar, then watch them being encoded. Answers counts and what was refused."""
    counts = {"created": 0, "updated": 0, "unchanged": 0, "refused": 0}
    errors: list[dict[str, Any]] = []
    sent = 0
    with _progress() as progress:
        task = progress.add_task("committed", total=total)
        for outcome in client.ingest(collection, lines):
            for what in ("created", "updated", "unchanged"):
                counts[what] += outcome[what]
            counts["refused"] += outcome.get("errors_total", len(outcome["errors"]))
            errors += [{**error, "line": error["line"] + sent} for error in outcome["errors"]]
            sent += outcome["lines"]
            progress.update(task, completed=sent)
        progress.update(task, total=sent)
        if wait:
            _watch(client, collection, progress)
    return counts, errors


def _watch(client: Client, collection: str, progress: Progress) -> None:
    """Until nothing waits for the embedder and lexical search has caught up."""
    import time

    first = client.counts(collection)
    if not first["pending"]:
        total = 0
    else:
        total = first["pending"]
    task = progress.add_task("encoded", total=total or None, visible=bool(total))
    while True:
        state = client.call("GET", f"/v1/collections/{collection}")
        pending = state["counts"]["pending"]
        total = max(total, pending)
        progress.update(task, total=total or None, completed=total - pending, visible=bool(total))
        if not pending and not state.get("lexical_lag_seconds"):
            return
        time.sleep(0.25)


def load_demo(settings: Settings) -> None:
    """Wait for the service, load the demo corpus with progress bars, and say where to look."""
    import shlex
    import time

    from service import demo

    address = f"http://{settings.host}:{settings.port}"
    with _client(address) as client:
        with err.status("starting"):
            while not client.ready():
                time.sleep(0.25)
        client.ensure_collection(demo.COLLECTION)
        documents = [
            json.dumps({"id": one.id, "title": one.title, "text": one.text, "metadata": dict(one.metadata)}).encode()
            for one in demo.documents()
        ]
        load(client, demo.COLLECTION, documents, len(documents), wait=True)
    body = json.dumps({"query": "cancel a task after a timeout", "k": 3})
    out.print(f"\nConsole:  [bold]{address}/[/bold]    API: {address}/docs\n\nTry:")
    out.print(
        f"  curl -s {address}/v1/collections/{demo.COLLECTION}/search -H 'Content-Type: application/json' \\\n"
        f"       -d {shlex.quote(body)}\n",
        highlight=False,
        soft_wrap=True,
    )
    out.print("Serving until stopped (Ctrl-C).", style="dim")


def _documents(source: str) -> tuple[Iterator[bytes], int | None]:
    """NDJSON lines of a file, a BEIR folder or standard input, and how many there are where that is known."""
    if source == "-":
        return _as_lines(sys.stdin.buffer), None
    path = Path(source)
    if path.is_dir():
        if not beir.is_folder(path):
            _stop(f"{source} has no corpus.jsonl")
        path = path / "corpus.jsonl"
    if not path.is_file():
        _stop(f"there is no file {source}")
    with path.open("rb") as lines:
        total = sum(1 for line in lines if line.strip())
    return _as_lines(path.open("rb")), total


def _as_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines as the API takes them; BEIR's `_id` becomes `id`. What is not JSON goes as it is, for the service to refuse."""
    for line in lines:
        if not line.strip():
            continue
        if b'"_id"' in line:
            try:
                row = json.loads(line)
                kept: dict[str, Any] = {
                    "id": row.pop("_id"),
                    "title": row.get("title") or "",
                    "text": row.get("text") or "",
                }
                kept |= {"metadata": row["metadata"]} if row.get("metadata") else {}
                line = json.dumps(kept, ensure_ascii=False).encode()
            except (ValueError, AttributeError, KeyError):
                pass
        yield line


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    )


def _client(url: str | None) -> Client:
    settings = Settings()
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 an address to call, not to bind
    key = settings.api_keys[0].get_secret_value() if settings.api_keys else None
    return Client(url or f"http://{host}:{settings.port}", key)


def _settings(default_log_level: str | None = None) -> Settings:
    settings = Settings()
    if default_log_level and "log_level" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_level": default_log_level})
    logs.configure(settings.log_level)
    return settings


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        _stop(f"{where} is not JSON: {error}")


def _stop(message: str, code: int = WRONG) -> NoReturn:
    err.print(message, style="red", highlight=False, markup=False)
    raise typer.Exit(code)


def main() -> None:
    """The console script: errors that a user can act on are one line, not a traceback."""
    from pydantic import ValidationError

    try:
        app()
    except Unreachable as error:
        err.print(f"{error}\nStart one with `azimuth up`.", style="red", highlight=False)
        sys.exit(UNREACHABLE)
    except ValidationError as error:
        for reason in error.errors():
            name = "AZIMUTH_" + "_".join(map(str, reason["loc"])).upper()
            err.print(f"{name}: {reason['msg']}", style="red", highlight=False, markup=False)
        sys.exit(WRONG)
    except (Refused, Misconfigured) as error:
        err.print(str(error), style="red", highlight=False, markup=False)
        sys.exit(WRONG)
    except AzimuthError as error:
        err.print(str(error), style="red", highlight=False, markup=False)
        sys.exit(PARTLY)
