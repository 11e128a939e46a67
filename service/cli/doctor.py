"""`azimuth doctor`: the geometry of a collection's vectors, as measures with verdicts and advice."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from service.cli import shell

STYLES = {"healthy": "green", "watch": "yellow", "broken": "bold red", None: "dim"}
ORDER = ("broken", "watch", "healthy", None)
HUBS = 3


@shell.answering
def doctor(
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Name of the collection; default: all of them.")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", "-v", min=1, help="Which version; default: the active one.")
    ] = None,
    sample: Annotated[int, typer.Option("--sample", min=100, max=5_000, help="Chunks that are looked at.")] = 2_000,
    url: shell.Url = None,
) -> shell.Answer:
    """Check the vectors of a version: collapse, hubs, duplicates, retrievability. Exit code 1 if one is broken."""
    if version is not None and collection is None:
        shell.fail("--version needs --collection: each collection has its own versions")
    with shell.connect(url) as client:
        names = [collection]
        if collection is None:
            names = [one["name"] for one in client.call("GET", "/v1/collections")["collections"]]
        params = {"sample": sample} | ({} if version is None else {"version": version})
        found = [client.call("GET", f"/v1/collections/{name}/geometry", params=params) for name in names]
    code = shell.EXIT_PARTIAL if any(one["verdict"] == "broken" for one in found) else 0
    data = found[0] if collection is not None else {"collections": found}
    return shell.Answer(data, *chain.from_iterable(map(_report, found)), code=code)


def _report(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    looked = f"{found['sample']:,} of {found['rows']:,} chunks"
    heading = f"{found['collection']}, version {found['version']}: {found['verdict'] or 'no verdict'} ({looked})"
    yield Text(heading, STYLES[found["verdict"]])
    if found["reason"]:
        yield found["reason"]
        return
    yield _table(found["measures"], found["before"])
    for one in found["hubs"][:HUBS]:
        name = f"{one['id']} ({one['title']})" if one["title"] else one["id"]
        yield f"near to {one['occurrences']:,} others: {name}, chunk {one['chunk']}"
    for advice in dict.fromkeys(one["do"] for one in _worst_first(found["measures"]) if one["do"]):
        yield f"- {advice}"


def _table(measures: Iterable[Mapping[str, Any]], before: Mapping[str, Any] | None) -> Table:
    """The measures, the worst first."""
    was = {} if before is None else {one["name"]: one["value"] for one in before["measures"]}
    heads = ("measure", "verdict", "value", *([f"version {before['version']}"] if before else []), "in words")
    numbers = tuple(range(2, len(heads) - 1))
    table = shell.plain_table(*heads, right=numbers)
    for column in numbers:
        table.columns[column].no_wrap = True
    for one in _worst_first(measures):
        error = "" if one["error"] is None else f" ± {one['error']:.2g}"
        value = "" if one["value"] is None else f"{one['value']:.3g}{error}"
        past = was.get(one["name"])
        row = [one["name"], Text(one["verdict"] or "unknown", STYLES[one["verdict"]]), value]
        if before is not None:
            row.append("" if past is None else f"{past:.3g}")
        table.add_row(*row, Text(one["says"]))
    return table


def _worst_first(measures: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(measures, key=lambda one: ORDER.index(one["verdict"]))
