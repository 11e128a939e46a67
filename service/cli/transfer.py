"""`azimuth export` and `azimuth import`: all of a collection as a file, and an equal collection from it."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

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
    """Write a line with settings and judgments, then all documents, a line each, in the order of their ids.

    A file is there only when it is whole.
    """
    chosen = {"filter": where, "vectors": vectors, "header": True}
    with ExitStack() as stack:
        client = stack.enter_context(shell.connect(url))
        draft = None if output is None else output.with_name(f"{output.name}.part")
        stream: BinaryIO = sys.stdout.buffer if draft is None else stack.enter_context(draft.open("wb"))
        count = -1  # the first line is no document
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

    A collection that exists keeps its settings and judgments, and must have the same embedder. Aliases that lead
    elsewhere by now stay as they are.
    """
    lines, _ = load_documents.lines_of(source, headers=True)
    first = next(lines, b"")
    if not load_documents.is_header(first):
        shell.fail(f"{source} does not begin with the settings of a collection; `azimuth ingest` loads documents alone")
    header = json.loads(first)[HEADER]
    with shell.connect(url) as client:
        there = client.ensure_collection(collection, header["settings"])
        (active,) = (one for one in there["versions"] if one["number"] == there["active_version"])
        if active["fingerprint"] != header["fingerprint"]:
            shell.fail(f"{collection} has another embedder than the collection that was exported")
        loaded = load_documents.load(client, collection, lines, None, shell.err, wait=wait)
        judgments = f"/v1/collections/{collection}/judgments"
        if header["judgments"] and not client.call("GET", judgments)["queries"]:
            client.call("POST", judgments, json=header["judgments"])
        taken = {one["alias"] for one in client.call("GET", "/v1/aliases")["aliases"]}
        taken |= {one["name"] for one in client.call("GET", "/v1/collections")["collections"]}
        for alias in set(header["aliases"]) - taken:
            client.call("PUT", f"/v1/aliases/{alias}", json={"collection": collection})
    for error in loaded.errors[:20]:
        shell.print_err(f"document {error['line']}: {error['error']}")
    shown = ", ".join(f"{count} {what}" for what, count in loaded.counts.items())
    code = shell.EXIT_PARTIAL if loaded.counts["refused"] else 0
    return shell.Answer({**loaded.counts, "errors": loaded.errors}, shown, code=code)
