"""The `azimuth` command. Each function reads its arguments, calls the code that does the work, and returns the outcome.

Exit codes: 0 done; 1 done in part (documents were refused, or checks of a version failed); 2 wrong usage, request or
configuration; 3 the service or the database does not answer; 130 interrupted.
"""

import asyncio
import functools
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from azimuth_client import ApiError, Unreachable
from service import __version__
from service.cli import (
    backup,
    collections,
    doctor,
    documents,
    ingest,
    judgments,
    keys,
    load_documents,
    mcp,
    plan,
    reindex,
    shell,
    train,
    transfer,
    tune,
    versions,
)
from service.cli.shell import EXIT_PARTIAL, EXIT_UNREACHABLE, Answer, Collection, Url, err, fail, out, print_err
from service.core.errors import AzimuthError, Misconfigured, Unavailable
from service.evaluation import beir
from service.runtime import logging
from service.runtime.settings import CONFIG, Settings, config_file

app = typer.Typer(
    name="azimuth",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Vector search that cannot go wrong silently: pgvector, BM25 and reranking behind one HTTP API.\n\n"
    "Start with `azimuth up --demo`. Settings are environment variables `AZIMUTH_*`, or in a file (docs/settings.md).",
)
app.command()(ingest.ingest)
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    config: Annotated[Path | None, typer.Option(help="File with settings, in TOML.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if config is not None:
        os.environ[CONFIG] = str(config)


@app.command()
def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Also load the documentation of the Python standard library.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Embedder processes.")] = 1,
    embedder: Annotated[
        str | None, typer.Option(help="Model of new collections that name none, such as `multilingual`.")
    ] = None,
    supervised: Supervised = False,
) -> None:
    """Run everything until stopped: PostgreSQL (embedded unless AZIMUTH_DATABASE_URL is set), API and worker."""
    from service.runtime import processes

    settings = _settings(default_log_level="warning" if demo else None)
    if embedder is not None:
        settings = settings.model_copy(update={"embedder": embedder})
    address = settings.address()

    def show(stopped: Callable[[], bool]) -> None:
        with shell.connect(address) as client:
            if not load_documents.wait_until_ready(client, err, stopped):
                return
            if demo:
                load_documents.demo_corpus(client, err)
        shell.print_out(load_documents.welcome(address, demo_loaded=demo))

    asyncio.run(processes.up(settings, workers=workers, on_started=show, supervised=supervised))


@app.command()
def serve(supervised: Supervised = False) -> None:
    """Serve the API and the console. Migrates the database first where that is needed."""
    from service.runtime import processes

    processes.serve(_settings(), supervised=supervised)


@app.command()
def backfill(
    ray: Annotated[str, typer.Option(help="Address of a Ray cluster, such as `ray://head:10001`; `local` starts one.")],
    workers: Annotated[int, typer.Option(min=1, max=4096, help="Workers on the cluster.")] = 2,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs for each, such as 1 or .5; 0: processors.")] = 0.0,
) -> None:
    """Encode all that waits, and all versions that are filled, by workers on a Ray cluster."""
    from service.runtime import ray_workers

    settings, pool = _settings("warning"), ray_workers.RayPool(address=ray, workers=workers, gpus=gpus)
    with err.status("starting workers") as status:
        report = lambda waiting: status.update(f"{waiting:,} documents wait")  # noqa: E731
        asyncio.run(ray_workers.backfill(settings, pool, report))


@app.command()
def worker(
    gpus: Annotated[Literal["all"] | None, typer.Option(help="`all`: a process for each GPU of this machine.")] = None,
    supervised: Supervised = False,
) -> None:
    """Encode the documents in the queue until stopped."""
    from service.embedder.models.gpus import gpus as all_gpus
    from service.runtime import processes

    settings = _settings()
    if gpus is None:
        processes.worker(settings, supervised=supervised)
        return

    async def run() -> None:
        await processes.workers_on(settings, await all_gpus())

    asyncio.run(run())


@app.command()
@shell.answering
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 where migrations are pending.")
    ] = False,
) -> Answer:
    """Apply pending migrations. Safe at any time, also when several processes run it at once."""
    from service.runtime import processes

    names = asyncio.run(processes.migrate(_settings(), apply=not check))
    did = "pending" if check else "applied"
    told = "\n".join(f"{did} {name}" for name in names) or "The schema is up to date."
    return Answer({did: names}, told, code=EXIT_PARTIAL if check and names else 0)


@app.command()
@shell.answering
def search(
    text: Annotated[str, typer.Argument(help="What to look for.")],
    collection: Collection,
    mode: Annotated[str, typer.Option(help="hybrid, dense or lexical.")] = "hybrid",
    k: Annotated[int, typer.Option("-k", help="Number of hits.")] = 10,
    where: Annotated[str | None, typer.Option("--filter", help='JSON, such as \'{"year": {"$gte": 2019}}\'.')] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Let the cross-encoder read the best hits.")] = False,
    url: Url = None,
) -> Answer:
    """Search a collection of the running service."""
    request: dict[str, Any] = {"query": text, "mode": mode, "k": k, "rerank": rerank, "explain": True}
    if where is not None:
        request["filter"] = shell.parse_json(where, "--filter")
    with shell.connect(url) as client:
        answer = client.search(collection, request)
    table = shell.plain_table("", "score", "dense", "lexical", "id", "title", right=(0, 1, 2, 3))
    for rank, hit in enumerate(answer["hits"], start=1):
        legs = [hit["explain"].get(leg) for leg in ("dense", "lexical")]
        shown = ["" if leg is None else f"{leg['score']:.3f}" for leg in legs]
        # Text, because a string in brackets would be read as markup.
        table.add_row(str(rank), f"{hit['score']:.3f}", *shown, Text(hit["id"]), Text(hit["title"]))
    for note in answer["degraded"]:
        err.print(f"without {note['stage']}: {note['reason']}", style="yellow", markup=False)
    plan = answer["plan"]
    told = f"version {answer['embedder_version']}, {plan['dense']}, {answer['took_ms']:.1f} ms"
    return Answer(answer, table, Text(told, "dim"))


@app.command("eval")
def evaluate(
    folder: Annotated[Path, typer.Argument(help="BEIR layout: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv.")],
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Collection to load it into; default: the folder's name.")
    ] = None,
    modes: Annotated[
        str, typer.Option(help="Comma-separated: dense, lexical, hybrid, rerank.")
    ] = "dense,lexical,hybrid",
    split: Annotated[str, typer.Option(help="Name of the qrels file.")] = "test",
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Searches at once.")] = 1,
    upload_judgments: Annotated[
        bool, typer.Option(help="Also store the judgments as the collection's test set.")
    ] = False,
    as_json: Annotated[
        Path | None, typer.Option("--json", allow_dash=True, help="Also write the figures here; `-`: nothing else.")
    ] = None,
    url: Url = None,
) -> None:
    """Load a judged collection and measure retrieval through the service: nDCG@10, MRR@10, Recall@100, p50 and p95.

    If no service runs, one is started on the data folder for the duration of the command.
    """
    from service.cli.measure_retrieval import MODES, measure
    from service.runtime import processes

    chosen = [mode.strip() for mode in modes.split(",") if mode.strip()]
    if unknown := [mode for mode in chosen if mode not in MODES]:
        fail(f"unknown mode {unknown[0]}; there are {', '.join(MODES)}")
    judged = beir.judgments(folder, split)
    name = collection or folder.resolve().name.lower().replace(".", "-")
    settings = _settings(default_log_level="warning")
    with processes.running_service(settings, url or settings.url) as address, shell.connect(address) as client:
        client.ensure_collection(name)
        lines, total = load_documents.lines_of(str(folder))
        loaded = load_documents.load(client, name, lines, total, err, wait=True)
        _print_refused(loaded)
        if upload_judgments:
            judgments.upload(client, name, judged)
        results = []
        with load_documents.progress_bar(err) as progress:
            for mode in chosen:
                task = progress.add_task(f"{mode} queries", total=len(judged.queries))
                advance = functools.partial(progress.advance, task)
                results.append(measure(client, name, judged, mode, concurrency=concurrency, progress=advance))
        state = client.call("GET", f"/v1/collections/{name}")
    columns = ("mode", "queries", "nDCG@10", "MRR@10", "Recall@100", "p50_ms", "p95_ms")
    table = Table(*(column.replace("_", " ") for column in columns))
    for result in results:
        table.add_row(*(str(result[column]) for column in columns))
    for result in results:
        for reason, times in result["degraded"].items():
            err.print(f"{result['mode']}: {times} answers without {reason}", style="yellow", markup=False)
    report: dict[str, Any] = {"collection": name, "folder": folder.name, "split": split, "azimuth": __version__}
    report |= {"results": results, "refused": loaded.counts["refused"], "state": state}
    if as_json is not None and str(as_json) != "-":
        as_json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        as_json = None
    shell.show(Answer(report, table), as_json=as_json is not None)


@app.command()
@shell.answering
def config() -> Answer:
    """Show the settings in effect, and whether the environment, the file or the default decides. Secrets are hidden."""
    settings, origins = Settings(), Settings.origins()
    table = shell.plain_table("setting", "value", "source")
    found = {}
    shown = re.sub(r"(?<=:)[^:@/\s\"]*(?=@)|(?<=password=)[^\s\"]+", "**********", settings.model_dump_json())
    for name, value in json.loads(shown).items():
        found[name] = {"value": value, "source": origins.get(name, "default")}
        style = "" if name in origins else "dim"
        table.add_row(name, Text(str(found[name]["value"])), Text(found[name]["source"]), style=style)
    file = config_file()
    return Answer({"file": None if file is None else str(file), "settings": found}, table)


app.command()(reindex.reindex)
app.add_typer(versions.app, name="versions")
app.add_typer(train.app, name="train")
app.add_typer(keys.app, name="keys")
app.command()(judgments.judgments)
app.command("tune")(tune.tune_collection)
app.command()(doctor.doctor)
app.command()(collections.duplicates)
app.command()(collections.clusters)
app.command()(collections.classify)
app.command()(collections.collections)
app.command()(collections.jobs)
app.add_typer(documents.app, name="documents")
app.command()(transfer.export)
app.command("import")(transfer.import_collection)
app.command()(mcp.mcp)
app.command()(plan.plan)
app.command()(backup.backup)
app.command()(backup.restore)


def _settings(default_log_level: str | None = None) -> Settings:
    settings = Settings()
    if default_log_level and "log_level" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_level": default_log_level})
    secrets = (*settings.api_keys, settings.encoder_key, settings.key)
    keys = [key.get_secret_value() for key in secrets if key is not None]
    logging.configure(settings.log_level, hidden=keys)
    return settings


def _print_refused(loaded: load_documents.LoadResult) -> None:
    """Print the first refused lines with their reasons."""
    for error in loaded.errors[:20]:
        print_err(f"line {error['line']}: {error['error']}")


def main() -> None:
    """Entry point. Errors that a user can act on are one line, or with `--json` a problem, instead of a traceback."""
    from pydantic import ValidationError

    wants_json = "--json" in sys.argv  # known before the arguments are read, because that can fail
    shell.wants_json.set(wants_json)
    try:
        try:
            sys.exit(app(standalone_mode=not wants_json))
        except Unreachable as error:
            shell.fail(f"{error}\nStart one with `azimuth up`.", EXIT_UNREACHABLE)
        except ValidationError as error:
            shell.fail("\n".join(map(_wrong_setting, error.errors())))
        except ApiError as error:
            shell.fail(str(error), problem=error.problem)
        except (Misconfigured, typer.TyperException) as error:
            shell.fail(str(error))
        except AzimuthError as error:
            shell.fail(str(error), EXIT_UNREACHABLE if isinstance(error, Unavailable) else EXIT_PARTIAL)
    except (typer.Exit, typer.Abort) as error:
        sys.exit(getattr(error, "exit_code", EXIT_PARTIAL))


def _wrong_setting(reason: Any) -> str:
    name = ".".join(map(str, reason["loc"]))
    file = Settings.origins().get(name.partition(".")[0], "")
    where = f"{name} in {file}" if file != "environment" else f"AZIMUTH_{name.upper()}"
    return f"{where}: {reason['msg']}"
