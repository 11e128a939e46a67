"""Filtered searches over 100,000 chunks: recall, underfilled answers and latency: `python -m loadtests.filters`.

Each filter is asked with the same queries as no filter at all, in turns, so that both share whatever else the machine
does. Truth is an exact scan of what passes, through the same service. The collection is made by `filtered` (minutes);
with --folder it is kept and found again.

`first` is the first search with a filter, before anything is known of it; the figures beside it are of all others.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from loadtests import filtered, prepare
from loadtests.clients import Answers, ask
from loadtests.figures import heading, percentile, table
from loadtests.filtered import PARTS, PIVOTS, Asked
from loadtests.sandbox import Sandbox, sandbox, until
from service.client.http_client import Client

DECLARED = ["known.rank", *(f"known.in_{part}" for part in PARTS), *(f"known.near.{pivot}" for pivot in range(PIVOTS))]
TARGET_RECALL, TARGET_RATIO = 0.95, 3.0
K = 10


@dataclass
class Way:
    """One kind of filter at one share: pairs of a query and its filter, and what came back."""

    kind: str
    share: float
    asked: list[tuple[str, dict[str, Any]]]
    filter_match: int
    answers: Answers = field(default_factory=Answers)
    plain: Answers = field(default_factory=Answers)
    first: list[float] = field(default_factory=list)
    hits: int = 0
    wanted: int = 0
    short: int = 0

    @property
    def recall(self) -> float:
        return self.hits / self.wanted

    @property
    def ratio(self) -> float:
        return percentile(self.answers.seconds, 0.95) / percentile(self.plain.seconds, 0.95)


def ways(asked: Asked, documents: int, queries: int, parts: Sequence[int]) -> list[Way]:
    found = []
    for part in parts:
        filter_match = math.ceil(documents / part)
        some = asked.queries[:queries]
        for side, name in (("open", "undeclared"), ("known", "declared")):
            equal = {f"{side}.in_{part}": 0}
            below = {f"{side}.rank": {"$lt": filter_match}}
            found.append(Way(f"equality, {name}", 1 / part, [(query, equal) for query in some], filter_match))
            found.append(Way(f"range, {name}", 1 / part, [(query, below) for query in some], filter_match))
            near: list[tuple[str, dict[str, Any]]] = []
            far: list[tuple[str, dict[str, Any]]] = []
            for pivot, neighbours in enumerate(asked.near):
                place, around = f"{side}.near.{pivot}", neighbours[: max(1, queries // PIVOTS)]
                near += [(query, {place: {"$lt": filter_match}}) for query in around]
                far += [(query, {place: {"$gte": documents - filter_match}}) for query in around]
            found.append(Way(f"correlated, {name}", 1 / part, near, filter_match))
            found.append(Way(f"anti-correlated, {name}", 1 / part, far, filter_match))
    return found


def measure(address: str, mode: str, all_ways: Sequence[Way], rounds: int) -> None:
    """Each pair once unmeasured, with its truth; then in turns with the unfiltered search."""
    for way in all_ways:
        seen: set[str] = set()
        for query, where in way.asked:
            request = {"query": query, "k": K, "mode": mode, "filter": where}
            answers = ask(address, filtered.COLLECTION, [request])
            if repr(where) not in seen:
                seen.add(repr(where))
                way.first += answers.seconds
            _judge(address, way, query, where, answers.bodies[0], mode)
        for _ in range(rounds):
            for query, where in way.asked:
                request = {"query": query, "k": K, "mode": mode}
                for into, one in ((way.plain, request), (way.answers, {**request, "filter": where})):
                    part = ask(address, filtered.COLLECTION, [one])
                    into.seconds += part.seconds
                    into.bodies += part.bodies
        way.short += sum(len(body["hits"]) < min(K, way.filter_match) for body in way.answers.bodies)
        way.short += sum(body["plan"]["underfilled"] for body in way.answers.bodies)


def _judge(address: str, way: Way, query: str, where: dict[str, Any], body: dict[str, Any], mode: str) -> None:
    """Recall of the dense leg, whose truth is known: of the ten nearest that pass, how many were found."""
    way.short += len(body["hits"]) < min(K, way.filter_match)
    if mode == "dense":
        request = {"query": query, "k": K, "mode": mode, "filter": where, "exact": True, "include": []}
        truth = {hit["id"] for hit in ask(address, filtered.COLLECTION, [request]).bodies[0]["hits"]}
        way.wanted += len(truth)
        way.hits += len(truth & {hit["id"] for hit in body["hits"]})


def report(mode: str, all_ways: Sequence[Way]) -> None:
    heading(f"{mode}, k {K}: one client, each filter in turns with the same queries unfiltered; ms")
    rows = []
    for way in all_ways:
        spread = [percentile(way.answers.seconds, 0.5), percentile(way.answers.seconds, 0.95)]
        missed = [
            *(["recall"] if way.wanted and way.recall < TARGET_RECALL else []),
            *(["short"] if way.short else []),
            *(["time"] if way.ratio > TARGET_RATIO else []),
        ]
        share = f"{100 * way.share:g} %"
        recall = f"{way.recall:.3f}" if way.wanted else ""
        first = 1e3 * max(way.first)
        plain = percentile(way.plain.seconds, 0.95)
        rows.append(
            [
                f"{way.kind}, {share}",
                recall,
                way.short,
                *spread,
                plain,
                way.ratio,
                first,
                _plans(way),
                ", ".join(missed),
            ]
        )
    columns = ["filter", "recall@10", "short", "p50", "p95", "unfiltered p95", "ratio", "first", "plan", "missed"]
    table(columns, rows)


def _plans(way: Way) -> str:
    counted: dict[str, int] = {}
    for body in way.answers.bodies:
        counted[body["plan"]["dense"]] = counted.get(body["plan"]["dense"], 0) + 1
    return " ".join(f"{kind}" if len(counted) == 1 else f"{kind}:{count}" for kind, count in counted.items())


def declare(client: Client) -> None:
    """Declare the fields and wait until filters can use them."""
    path = f"/v1/collections/{filtered.COLLECTION}"
    client.call("PUT", path, json={"indexed": DECLARED})

    def ready() -> bool:
        return all(one["state"] == "ready" for one in client.call("GET", path)["fields"])

    until(ready, seconds=600)


def run(place: Sandbox, chosen: argparse.Namespace) -> None:
    asked = filtered.ready(place, chosen.documents)
    with place.api() as address:
        with Client(address) as client:
            declare(client)
            prepare.caught_up(client, filtered.COLLECTION)
        with psycopg.connect(place.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE indexed_values")
            connection.execute("VACUUM ANALYZE documents")
        for mode in chosen.modes:
            ask(address, filtered.COLLECTION, [{"query": query, "mode": mode} for query in asked.queries])
            all_ways = ways(asked, chosen.documents, chosen.queries, chosen.parts)
            all_ways = [way for way in all_ways if chosen.kinds in way.kind]
            measure(address, mode, all_ways, chosen.rounds)
            report(mode, all_ways)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=100_000)
    arguments.add_argument("--queries", type=int, default=32, help="asked with each kind of filter and share")
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--modes", nargs="+", default=["dense", "hybrid"], choices=["dense", "hybrid", "lexical"])
    arguments.add_argument("--parts", type=int, nargs="+", default=PARTS, choices=PARTS, help="one in so many passes")
    arguments.add_argument("--kinds", default="", help="only filters whose kind has this in its name")
    arguments.add_argument("--folder", type=Path, help="keep the collection here, or use the one that is here")
    chosen = arguments.parse_args()
    with sandbox(chosen.folder) as place:
        run(place, chosen)


if __name__ == "__main__":
    main()
