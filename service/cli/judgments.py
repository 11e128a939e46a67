"""`azimuth judgments`: give a collection its own test set, by which new versions are judged before they answer."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from service.cli import shell
from service.client.http_client import Client
from service.evaluation import beir

Folder = Annotated[Path, typer.Argument(help="BEIR layout: queries.jsonl and qrels/SPLIT.tsv.")]
Split = Annotated[str, typer.Option(help="Which judgments.")]


def judgments(
    folder: Folder,
    collection: shell.Collection,
    split: Split = "test",
    url: shell.Url = None,
) -> None:
    """Upload a folder's queries and judgments as the collection's own test set, in place of the one before.

    From then on a new version is compared with the active one on these queries before it may be promoted.
    """
    found = beir.judgments(folder, split)
    with shell.connect(url) as client:
        upload(client, collection, found)


def upload(client: Client, collection: str, found: beir.BeirJudgments) -> datetime:
    """Make them the collection's test set, and say what the service made of them; when that was."""
    taken = client.upload_judgments(collection, found)
    shell.print_err(
        f"{taken['queries']:,} queries with {taken['judgments']:,} judgments are the test set of {collection}", "dim"
    )
    if unknown := taken["unknown_documents"]:
        shell.print_err(f"{unknown:,} judged documents are not in the collection: no version can find them", "yellow")
    return datetime.fromisoformat(taken["uploaded_at"])
