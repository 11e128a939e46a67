"""Commands about whole collections: what there is, what goes on, and what vectors tell."""

from typing import Annotated, Any

import typer
from rich.text import Text

from service.cli import shell, tables
from service.cli.shell import Answer

Filter = Annotated[str | None, typer.Option("--filter", help="Only documents that pass, as JSON.")]


@shell.answering
def collections(url: shell.Url = None) -> Answer:
    """List the collections: documents, those that wait for the embedder or were set aside, the active version."""
    with shell.connect(url) as client:
        answer = client.call("GET", "/v1/collections")
    counted = ("documents", "pending", "failed")
    rows = (
        (one["name"], *(f"{one['counts'][name]:,}" for name in counted), str(one["active_version"]))
        for one in answer["collections"]
    )
    return Answer(answer, shell.plain_table("collection", *counted, "version", right=(1, 2, 3, 4), rows=rows))


@shell.answering
def jobs(url: shell.Url = None) -> Answer:
    """List what is encoded, re-indexed, indexed and calibrated, or was, and how far it is."""
    with shell.connect(url) as client:
        answer = client.call("GET", "/v1/jobs")
    table = shell.plain_table("job", "state", "phase", "progress", "started", "error")
    for one in answer["jobs"]:
        progress = "" if one["progress"] is None else "{done:,} of {total:,}".format_map(one["progress"])
        error = Text(one["error"] or "")
        table.add_row(Text(one["id"]), one["state"], one["phase"], progress, tables.local_time(one["started"]), error)
    return Answer(answer, table)


@shell.answering
def duplicates(
    collection: shell.Collection,
    threshold: Annotated[float, typer.Option(min=-1, max=1, help="Least cosine of a pair.")] = 0.95,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Most pairs.")] = 100,
    where: Filter = None,
    url: shell.Url = None,
) -> Answer:
    """List pairs of documents that are nearly the same, the nearest first."""
    answer = _asked("duplicates", collection, where, url, threshold=threshold, limit=limit)
    shell.print_err(f"{answer['count']:,} pairs of {answer['compared']:,} documents", style="")
    rows = [(f"{one['score']:.4f}", *one["ids"]) for one in answer["pairs"]]
    return Answer(answer, shell.plain_table("cosine", "", "", rows=rows))


@shell.answering
def clusters(
    collection: shell.Collection,
    count: Annotated[int | None, typer.Option(min=2, max=100, help="Default: by the number of documents.")] = None,
    where: Filter = None,
    url: shell.Url = None,
) -> Answer:
    """Group the documents of a collection, and name each group by the words that tell it from the others."""
    answer = _asked("clusters", collection, where, url, clusters=count, members=3)
    rows = [(f"{one['size']:,}", " ".join(one["words"]), ", ".join(one["ids"])) for one in answer["clusters"]]
    return Answer(answer, shell.plain_table("documents", "words", "such as", rows=rows))


@shell.answering
def classify(
    collection: shell.Collection,
    label: Annotated[list[str], typer.Option(help="A label in words, such as `about physics`; at least two.")],
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most documents.")] = 100,
    where: Filter = None,
    url: shell.Url = None,
) -> Answer:
    """Give each document the label whose text is nearest to it. Examples instead of texts: see the route."""
    answer = _asked("classify", collection, where, url, labels=label, limit=limit)
    rows = [(f"{one['score']:.2f}", f"{one['margin']:.2f}", one["label"], one["id"]) for one in answer["results"]]
    return Answer(answer, shell.plain_table("cosine", "margin", "label", "document", rows=rows))


def _asked(route: str, collection: str, where: str | None, url: str | None, **body: Any) -> Any:
    if where is not None:
        body["filter"] = shell.parse_json(where, "--filter")
    with shell.connect(url) as client:
        answer = client.call("POST", f"/v1/collections/{collection}/{route}", json=body)
    if not answer["complete"]:
        shell.print_err("There are more documents than were read.", "yellow")
    return answer
