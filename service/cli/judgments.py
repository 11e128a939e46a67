"""`azimuth judgments`: upload the test set of a collection, on which new embedder versions are checked."""

from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli import shell
from service.client.http_client import Client
from service.evaluation import beir

Folder = Annotated[Path, typer.Argument(help="BEIR layout: queries.jsonl and qrels/SPLIT.tsv.")]
Split = Annotated[str, typer.Option(help="Which judgments.")]


@shell.answering
def judgments(
    folder: Folder, collection: shell.Collection, split: Split = "test", url: shell.Url = None
) -> shell.Answer:
    """Upload queries and judgments as the collection's test set; they replace the former test set.

    A new version is compared with the active version on these queries before it can be promoted.
    """
    found = beir.judgments(folder, split)
    with shell.connect(url) as client:
        return shell.Answer(upload(client, collection, found))


def upload(client: Client, collection: str, found: beir.BeirJudgments) -> dict[str, Any]:
    """Upload the test set, print its counts, and return them."""
    taken = client.upload_judgments(collection, found)
    shell.print_err(
        f"{taken['queries']:,} queries with {taken['judgments']:,} judgments are the test set of {collection}", "dim"
    )
    if unknown := taken["unknown_documents"]:
        shell.print_err(f"{unknown:,} judged documents are not in the collection; no version can find them", "yellow")
    return taken
