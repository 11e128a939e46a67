"""Load documents into a running service, with one progress bar for sending and one for encoding."""

import gzip
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from azimuth_client.operations import ndjson
from service.cli import demo_corpus as demo
from service.client.http_client import Client
from service.core.errors import Misconfigured
from service.evaluation import beir

HEADER = "azimuth_export"
"""Name of the only member of the line that `azimuth export` writes before the documents."""

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Counts by outcome, and the refused lines, numbered over the whole input."""

    counts: dict[str, int] = field(default_factory=lambda: {"created": 0, "updated": 0, "unchanged": 0, "refused": 0})
    errors: list[dict[str, Any]] = field(default_factory=list)


def load(
    client: Client,
    collection: str,
    lines: Iterable[bytes],
    total: int | None,
    screen: Console,
    *,
    wait: bool,
    files: Sized = (),
) -> LoadResult:
    """Send NDJSON lines. With `wait`, return when all documents are encoded and both legs find them.

    `files`: those that were read so far, to be told beside the progress.
    """
    loaded = LoadResult()
    sent = 0
    with progress_bar(screen) as progress:
        task = progress.add_task("committed", total=total)
        for outcome in client.import_batches(collection, lines):
            written = {"created": outcome["created"], "updated": outcome["updated"], "unchanged": outcome["unchanged"]}
            for what, count in {**written, "refused": outcome["lines"] - sum(written.values())}.items():
                loaded.counts[what] += count
            loaded.errors.extend(outcome["errors"])
            sent += outcome["lines"]
            of_files = f", {len(files)} files read" if files else ""
            progress.update(task, completed=sent, description=f"committed{of_files}")
        progress.update(task, total=sent)
        if wait:
            _wait_until_searchable(client, collection, progress)
    return loaded


def _wait_until_searchable(client: Client, collection: str, progress: Progress) -> None:
    """Return when no document waits for the embedder, unless for clients, and the lexical index has caught up."""
    total = 0
    task = progress.add_task("encoded", total=None)
    while True:
        state = client.call("GET", f"/v1/collections/{collection}")
        pending = 0 if state["settings"]["embedder"]["model"] == "external" else state["counts"]["pending"]
        total = max(total, pending)
        if not pending and state["lexical_lag_seconds"] == 0:
            progress.update(task, total=total, completed=total)
            return
        progress.update(task, total=total or None, completed=total - pending)
        time.sleep(POLL_SECONDS)


def progress_bar(screen: Console) -> Progress:
    description = TextColumn("{task.description}")
    columns = (SpinnerColumn(), description, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=screen)


def is_header(line: bytes) -> bool:
    return line.startswith(b'{"%s":' % HEADER.encode())


def lines_of(source: str, *, headers: bool = False) -> tuple[Iterator[bytes], int | None]:
    """NDJSON lines of a file, a BEIR folder or standard input (`-`), and their number if it is known.

    `headers`: with the line that `azimuth export` writes before the documents.
    """
    if source == "-":
        return _with_api_ids(sys.stdin.buffer, headers), None
    path = Path(source)
    if path.is_dir():
        path = path / "corpus.jsonl"
    if not path.is_file():
        raise Misconfigured(f"there is no file {path}")
    total = sum(1 for line in _file_lines(path) if line.strip())
    return _with_api_ids(_file_lines(path), headers), total


def _file_lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        yield from lines


def _with_api_ids(lines: Iterable[bytes], headers: bool) -> Iterator[bytes]:
    """Rename BEIR's `_id` to `id`. A line that is not JSON is sent as it is: the service reports its number."""
    for line in lines:
        if line.strip() and (headers or not is_header(line)):
            with suppress(ValueError, TypeError, AttributeError, KeyError):
                line = ndjson(beir.document(json.loads(line))) if b'"_id"' in line else line
            yield line


def wait_until_ready(client: Client, screen: Console, stopped: Callable[[], bool]) -> bool:
    """False if `stopped()` became true before the service was ready."""
    with screen.status("starting PostgreSQL, the API and a worker"):
        while not client.ready():
            if stopped():
                return False
            time.sleep(POLL_SECONDS)
    return True


def demo_corpus(client: Client, screen: Console) -> None:
    """Load the demo corpus into the service, which is ready."""
    client.ensure_collection(demo.COLLECTION)
    lines = [
        ndjson({"id": one.id, "title": one.title, "text": one.text, "metadata": dict(one.metadata)})
        for one in demo.documents()
    ]
    load(client, demo.COLLECTION, lines, len(lines), screen, wait=True)


def welcome(address: str, *, demo_loaded: bool) -> str:
    """Where to click, and what to try in another shell."""
    if not demo_loaded:
        return f"""
Azimuth is ready. Open {address}/ in a browser: create a collection there, and drop files on it.
Or load a folder from another shell:  azimuth ingest FOLDER --collection NAME

Serving until stopped (Ctrl-C).
"""
    body = json.dumps({"query": "cancel a task after a timeout", "k": 3, "rerank": True})
    return f"""
Console: {address}/    API reference: {address}/docs

Try:
  curl -s {address}/v1/collections/{demo.COLLECTION}/search \\
       -H 'Content-Type: application/json' -d {shlex.quote(body)}

Serving until stopped (Ctrl-C).
"""
