"""`azimuth documents`: list, read, count and delete the documents of a collection."""

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.json import JSON
from rich.text import Text

from service.cli import shell
from service.cli.shell import Answer

app = typer.Typer(no_args_is_help=True, help="Documents of a collection: list, get, count and delete them.")

Where = Annotated[str | None, typer.Option("--filter", help='JSON, such as \'{"year": {"$gte": 2019}}\'.')]
SHOWN = 60
"""Characters of a title or a text in the list."""


def _filter(where: str | None) -> Any:
    return None if where is None else shell.parse_json(where, "--filter")


@app.command("list")
@shell.answering
def list_documents(
    collection: shell.Collection,
    where: Where = None,
    limit: Annotated[int, typer.Option(min=1, help="Most documents to show.")] = 100,
    url: shell.Url = None,
) -> Answer:
    """List documents in the order of their ids."""
    with shell.connect(url) as client:
        found = list(islice(client.documents(collection, _filter(where)), limit))
    table = shell.plain_table("id", "revision", "title or text", right=(1,))
    for one in found:
        shown = " ".join((one["title"] or one["text"]).split())[:SHOWN]
        table.add_row(Text(one["id"]), str(one["revision"]), Text(shown))
    return Answer({"documents": found}, table)


@app.command()
@shell.answering
def get(
    ids: Annotated[list[str], typer.Argument(help="Their ids.")],
    collection: shell.Collection,
    vectors: Annotated[bool, typer.Option("--vectors", help="With the vectors of the active version.")] = False,
    url: shell.Url = None,
) -> Answer:
    """Print documents, always as JSON. Exit code 1 where one is not there."""
    with shell.connect(url) as client:
        found = client.fetch(collection, ids, include=["text", "metadata", *(["vectors"] if vectors else [])])
    missing = sorted(set(ids) - {one["id"] for one in found})
    return _partial({"documents": found, "missing": missing}, JSON.from_data({"documents": found}))


@app.command()
@shell.answering
def count(collection: shell.Collection, where: Where = None, url: shell.Url = None) -> Answer:
    """Count the documents, or those that pass a filter."""
    with shell.connect(url) as client:
        found = client.count(collection, _filter(where))
    return Answer({"count": found}, str(found))


@app.command()
@shell.answering
def delete(
    collection: shell.Collection,
    ids: Annotated[list[str] | None, typer.Argument(help="Their ids.")] = None,
    where: Where = None,
    url: shell.Url = None,
) -> Answer:
    """Delete documents by their ids, or those that pass a filter. Exit code 1 where one is not there."""
    if bool(ids) == (where is not None):
        shell.fail("name documents, or give a --filter")
    with shell.connect(url) as client:
        done = client.delete(collection, ids or None, filter=_filter(where))
    return _partial(done, f"{done['deleted']} deleted")


def _partial(found: Mapping[str, Any], shown: RenderableType) -> Answer:
    if missing := found.get("missing"):
        shell.print_err(f"not there: {', '.join(missing)}")
    return Answer(found, shown, code=shell.EXIT_PARTIAL if missing else 0)
