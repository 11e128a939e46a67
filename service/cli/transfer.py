"""`azimuth export` and `azimuth import`: all of a collection as a file, and an equal collection from it."""

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from azimuth_client.operations import ndjson
from service.cli import load_documents, shell
from service.cli.load_documents import HEADER


def export(
    collection: shell.Collection,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; default: standard output.")] = None,
    where: Annotated[str | None, typer.Option("--filter", help="JSON; only documents that pass.")] = None,
    vectors: Annotated[
        bool | None, typer.Option(help="With vectors of the active version. Default: those that clients brought.")
    ] = None,
    url: shell.Url = None,
) -> None:
    """Write a line with the settings, and all documents, one a line in the order of their ids: for `azimuth import`.

    A file is there only when it is whole.
    """
    chosen = {"filter": where, "vectors": vectors}
    with ExitStack() as stack:
        client = stack.enter_context(shell.connect(url))
        draft = None if output is None else output.with_name(f"{output.name}.part")
        stream: BinaryIO = sys.stdout.buffer if draft is None else stack.enter_context(draft.open("wb"))
        stream.write(ndjson({HEADER: _described(client.collection(collection))}))
        count = 0
        for part in client.export(collection, {name: one for name, one in chosen.items() if one is not None}):
            stream.write(part)
            count += part.count(b"\n")
    if draft is not None and output is not None:
        draft.replace(output)
    shell.print_err(f"{count:,} documents", style="")


@shell.answering
def import_collection(
    source: Annotated[str, typer.Argument(help="What `azimuth export` wrote (also .gz), or - for standard input.")],
    collection: shell.Collection,
    wait: Annotated[bool, typer.Option(help="Wait until everything is encoded.")] = True,
    url: shell.Url = None,
) -> shell.Answer:
    """Make a collection equal to the one that was exported. If it broke off, run it again: what is there is unchanged.

    A collection that exists keeps its settings, and must have the same embedder.
    """
    lines, _ = load_documents.lines_of(source, headers=True)
    first = next(lines, b"")
    if not load_documents.is_header(first):
        shell.fail(f"{source} does not begin with the settings of a collection; `azimuth ingest` loads documents alone")
    header = json.loads(first)[HEADER]
    with shell.connect(url) as client:
        there = _described(client.ensure_collection(collection, header["settings"]))
        if there["fingerprint"] != header["fingerprint"]:
            shell.fail(f"{collection} has another embedder than the collection that was exported")
        loaded = load_documents.load(client, collection, lines, None, shell.err, wait=wait)
    for error in loaded.errors[:20]:
        shell.print_err(f"document {error['line']}: {error['error']}")
    shown = ", ".join(f"{count} {what}" for what, count in loaded.counts.items())
    code = shell.EXIT_PARTIAL if loaded.counts["refused"] else 0
    return shell.Answer({**loaded.counts, "errors": loaded.errors}, shown, code=code)


def _described(collection: Mapping[str, Any]) -> dict[str, Any]:
    """What makes an equal collection: without names and times, as if it had the active version alone."""
    settings = dict(collection["settings"])
    tuned = settings.pop("tuned")
    if tuned is not None and not tuned["outdated"]:
        kept = {name: one for name, one in tuned.items() if name not in {"at", "outdated"}}
        settings["tuned"] = kept | {"version": 1}
    (active,) = (one for one in collection["versions"] if one["number"] == collection["active_version"])
    return {"settings": settings, "fingerprint": active["fingerprint"]}
