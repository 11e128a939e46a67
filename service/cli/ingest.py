"""`azimuth ingest`: documents from JSON lines, and from files of any kind."""

import json
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator
from glob import has_magic
from io import BufferedReader
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, cast

import typer

from azimuth_client.shapes import StoredDocument
from service.cli import load_documents, shell
from service.cli.load_documents import LoadResult
from service.cli.shell import EXIT_PARTIAL, Answer, Collection, Url, err, print_err
from service.client.http_client import Client
from service.ingest.files.found import FoundFile, checked
from service.ingest.files.read import SOURCE, FileReader

_BEGINNINGS = ((b"%PDF-", ".pdf"), (b"PK\x03\x04", ".zip"), (b"\x1f\x8b", ".gz"), (b"[", ".json"), (b"<", ".html"))


@shell.answering
def ingest(
    sources: Annotated[
        list[str],
        typer.Argument(help="Files, folders, globs, archives, http(s) and s3 addresses; - for standard input."),
    ],
    collection: Collection,
    wait: Annotated[bool, typer.Option(help="Wait until everything is encoded.")] = True,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also delete documents of the same sources whose files are gone.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--source", help="How documents tell their source; default: its absolute path.")
    ] = None,
    metadata: Annotated[str | None, typer.Option(help="JSON object that is added to each document's metadata.")] = None,
    url: Url = None,
) -> Answer:
    """Load documents: one JSON object a line (`{"id", "title", "text", "metadata"}`), or files of any kind.

    Creates the collection if it is missing and anything was read. A second run leaves what did not change unchanged.
    What is refused or cannot be read is told on standard error, the exit code is 1, and all else is committed.
    """
    added = {} if metadata is None else shell.parse_json(metadata, "--metadata")
    if not isinstance(added, dict):
        shell.fail("--metadata is no JSON object")
    with shell.connect(url) as client, TemporaryDirectory() as folder, FileReader(added) as reader:
        documents = _documents(sources[0]) if len(sources) == 1 and not (added or prune or name) else None
        roots = [
            name or (one if "://" in one else "stdin" if one == "-" else str(Path(one).absolute())) for one in sources
        ]
        ids = set[str]()
        if documents is None:
            found = (
                reader.documents_of(_from_stdin(Path(folder)), root) if one == "-" else reader.documents(one, root)
                for one, root in zip(sources, roots, strict=True)
            )
            documents = _noted(chain.from_iterable(found), ids), None
        lines, total = documents
        loaded, deleted = LoadResult(), 0
        if (first := next(lines, None)) is not None:
            client.ensure_collection(collection)
            lines = chain((first,), lines)
            loaded = load_documents.load(client, collection, lines, total, err, wait=wait, files=reader.read)
            refused = loaded.counts["refused"]
            deleted = _delete_gone(client, collection, roots, reader, ids, refused, prune=prune)
        elif prune:
            reader.problems["--prune"] = "nothing was read, so nothing is deleted"
    return _told(loaded, reader, first is not None, deleted)


def _documents(source: str) -> tuple[Iterator[bytes], int | None] | None:
    """Lines that are documents as the service takes them, or a BEIR corpus, and how many; None for all else."""
    if source == "-":
        start = cast(BufferedReader, sys.stdin.buffer).peek(8)
        return load_documents.lines_of("-") if start.lstrip().startswith(b"{") or not start else None
    json_lines = source.removesuffix(".gz").endswith((".jsonl", ".ndjson")) and not (
        "://" in source or has_magic(source)
    )
    if not json_lines and not (Path(source) / "corpus.jsonl").is_file():
        return None
    try:
        lines, total = load_documents.lines_of(source)
        first = next(lines, b"")
        row = json.loads(first or b"{}")
    except (OSError, EOFError, zlib.error):
        return None  # damaged
    except ValueError:
        row = {"id": None}
    rows = isinstance(row, dict) and first and not {"id", "_id"} & row.keys()
    return None if rows else (chain((first,) if first else (), lines), total)


def _from_stdin(folder: Path) -> FoundFile:
    given = cast(BufferedReader, sys.stdin.buffer)
    start = given.peek(8)
    name = "stdin" + next((suffix for sign, suffix in _BEGINNINGS if start.startswith(sign)), ".txt")
    with (folder / name).open("wb") as file:
        shutil.copyfileobj(given, file)
    return checked(FoundFile(name=name, path=folder / name))


def _noted(lines: Iterable[bytes], ids: set[str]) -> Iterator[bytes]:
    for line in lines:
        ids.add(json.loads(line)["id"])
        yield line


def _delete_gone(
    client: Client, collection: str, roots: list[str], reader: FileReader, ids: set[str], refused: int, *, prune: bool
) -> int:
    """Delete what files that were read no longer hold and, with `prune`, all of files that are gone from `roots`."""
    where = {SOURCE: {"$in": sorted(set(roots))}}
    if not reader.read or client.count(collection, where) <= len(ids) - refused:
        return 0

    def gone(document: StoredDocument) -> bool:
        file = document["metadata"]["ingested"]["file"]
        unread = any(file == one or file.startswith(f"{one}/") for one in reader.problems)
        return document["id"] not in ids and (file in reader.read or (prune and not unread))

    found = [one["id"] for one in client.documents(collection, where) if gone(one)]
    return client.delete(collection, found)["deleted"]


def _told(loaded: LoadResult, reader: FileReader, any_read: bool, deleted: int) -> Answer:
    for error in loaded.errors[:20]:
        print_err(f"{reader.file_of(error['line']) or 'line ' + str(error['line'])}: {error['error']}")
    for file, reason in reader.problems.items():
        print_err(f"{file}: {reason}")
    for file, reason in reader.skipped.items():
        print_err(f"{file}: skipped, it {reason}", style="yellow")
    if not any_read:
        print_err("Nothing was read, so nothing was changed.")
    told = {"files": len(reader.read), "not_read": reader.problems, "skipped": reader.skipped, "errors": loaded.errors}
    also = {"deleted": deleted, "files read": len(reader.read), "not read": len(reader.problems)}
    counts = loaded.counts | {what: count for what, count in also.items() if count}
    code = EXIT_PARTIAL if loaded.counts["refused"] or reader.problems or not any_read else 0
    shown = ", ".join(f"{count} {what}" for what, count in counts.items())
    return Answer({**loaded.counts, "deleted": deleted, **told}, shown, code=code)
