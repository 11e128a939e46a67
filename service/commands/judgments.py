"""`azimuth judgments`: give a collection its own test set, by which new versions are judged before they answer."""

from pathlib import Path
from typing import Annotated

import typer

from service import beir
from service.client import Client
from service.commands import shell

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


def upload(client: Client, collection: str, found: beir.Judgments) -> None:
    client.upload_judgments(collection, found)
    graded = sum(map(len, found.grades.values()))
    shell.say(f"{len(found.queries):,} queries with {graded:,} judgments are the test set of {collection}", "dim")
