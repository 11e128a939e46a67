"""`azimuth collections` and `azimuth export`: what there is, and all of it as lines that `azimuth ingest` reads."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from azimuth_client.operations import ndjson
from service.cli import shell

EXPORTED = ("id", "title", "text", "metadata")


def collections(as_json: shell.AsJson = False, url: shell.Url = None) -> None:
    """List the collections: documents, those that wait for the embedder or were set aside, the active version."""
    with shell.connect(url) as client:
        answer = client.call("GET", "/v1/collections")
    if as_json:
        shell.out.print_json(data=answer)
        return
    table = shell.plain_table("collection", "documents", "pending", "failed", "version", right=(1, 2, 3, 4))
    for one in answer["collections"]:
        counts = (f"{one['counts'][name]:,}" for name in ("documents", "pending", "failed"))
        table.add_row(one["name"], *counts, str(one["active_version"]))
    shell.out.print(table)


def export(
    collection: shell.Collection,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; default: standard output.")] = None,
    url: shell.Url = None,
) -> None:
    """Write all documents, one JSON object a line in the order of their ids: what `azimuth ingest` loads.

    Vectors that clients brought are not written. A file is there only when it is whole.
    """
    with ExitStack() as stack:
        client = stack.enter_context(shell.connect(url))
        draft = None if output is None else output.with_name(f"{output.name}.part")
        stream: BinaryIO = sys.stdout.buffer if draft is None else stack.enter_context(draft.open("wb"))
        count = 0
        for document in client.documents(collection):
            stream.write(ndjson({name: part for name, part in document.items() if name in EXPORTED}))
            count += 1
    if draft is not None and output is not None:
        draft.replace(output)
    shell.print_err(f"{count:,} documents", style="")
