"""Searches over 100,000 chunks through the HTTP API: `python -m loadtests.search_100k`.

The service runs as it always does, with the default model, in a process of its own; the client is another. The
collection is made by `prepare` (minutes); with --folder it is kept and found again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests import own_time, prepare
from loadtests.clients import Answers, ask, ask_at_once
from loadtests.corpus import BROAD, SELECTIVE
from loadtests.figures import heading, percentile, table
from loadtests.sandbox import Sandbox, sandbox
from service.client.http_client import Client

WAYS: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "dense": {"mode": "dense"},
    "lexical": {"mode": "lexical"},
    "hybrid, 1 % pass": {"filter": SELECTIVE},
    "hybrid, 30 % pass": {"filter": BROAD},
}
NARROWED: dict[str, dict[str, Any]] = {
    "all": {},
    "all, ef_search 100": {"ef_search": 100},
    "all, ef_search 400": {"ef_search": 400},
    "1 % pass": {"filter": SELECTIVE},
    "30 % pass": {"filter": BROAD},
}


def latency(address: str, queries: Sequence[str], rounds: int) -> None:
    """One client; the ways in turns, so that they share whatever else the machine does."""
    answers = {way: Answers() for way in WAYS}
    for _ in range(rounds):
        for way, request in WAYS.items():
            part = ask(address, prepare.COLLECTION, [{"query": query, **request} for query in queries])
            answers[way].seconds += part.seconds
            answers[way].bodies += part.bodies
    heading(f"One client, k 10, {rounds * len(queries)} searches each: ms")
    rows = [
        [way, *(percentile(own.seconds, share) for share in (0.5, 0.95)), percentile(own.took, 0.5), _plan(own)]
        for way, own in answers.items()
    ]
    table(["search", "p50", "p95", "p50 inside", "plan"], rows)
    heading("Where it goes: ms, median (p95) of each stage; dense and lexical run at once")
    stages = list(dict.fromkeys(stage for own in answers.values() for stage in own.stages if any(own.stage(stage))))
    rows = [[way, *(_spread(own.stage(stage)) for stage in stages)] for way, own in answers.items()]
    table(["search", *stages], rows)
    hybrid = answers["hybrid"]
    whole = percentile(hybrid.seconds, 0.5)
    shares = [[stage, 100 * percentile(hybrid.stage(stage), 0.5) / whole] for stage in hybrid.stages]
    shares.append(["HTTP and edge", 100 * (whole - percentile(hybrid.took, 0.5)) / whole])
    heading("Share of each stage in the median hybrid search, %")
    table(["stage", "%"], shares)


def recall(address: str, queries: Sequence[str]) -> None:
    """Of the index against exact, on the documents of the dense leg."""
    rows = []
    for name, narrowed in NARROWED.items():
        request = {"mode": "dense", "include": [], **narrowed}
        found = ask(address, prepare.COLLECTION, [{"query": query, **request} for query in queries])
        exact = ask(
            address,
            prepare.COLLECTION,
            [{"query": query, **request, "ef_search": None, "exact": True} for query in queries],
        )
        hits, wanted = 0, 0
        for one, other in zip(found.bodies, exact.bodies, strict=True):
            ids = {hit["id"] for hit in other["hits"]}
            hits += len(ids & {hit["id"] for hit in one["hits"]})
            wanted += len(ids)
        dense = [percentile(own.stage("dense"), 0.5) for own in (found, exact)]
        rows.append([name, hits / wanted, *dense, _plan(found)])
    heading(f"Recall@10 of the plan against exact, {len(queries)} queries; dense stage in ms")
    table(["documents", "recall@10", "plan's", "exact", "plan"], rows)


def throughput(address: str, queries: Sequence[str], rounds: int) -> None:
    rows = []
    for clients in (1, 4, 16):
        requests = [{"query": query} for query in queries] * rounds
        elapsed, answers = ask_at_once(address, prepare.COLLECTION, requests, clients)
        shares = [percentile(answers.seconds, share) for share in (0.5, 0.95)]
        rows.append([clients, len(requests) / elapsed, *shares])
    heading("Hybrid searches by clients at once")
    table(["clients", "searches/s", "p50 ms", "p95 ms"], rows)


def _plan(answers: Answers) -> str:
    plan = answers.bodies[-1]["plan"]
    dense: str = plan["dense"]
    return dense + (f", ef_search {plan['ef_search']}" if plan["ef_search"] else "")


def _spread(seconds: Sequence[float]) -> str:
    return f"{percentile(seconds, 0.5):.2f} ({percentile(seconds, 0.95):.2f})"


def measure(place: Sandbox, documents: int, rounds: int) -> None:
    queries = prepare.queries(place, documents)
    with place.api() as address:
        with Client(address) as client:
            prepare.caught_up(client)
        for request in WAYS.values():
            ask(address, prepare.COLLECTION, [{"query": query, **request} for query in queries[:30]])
        latency(address, queries, rounds)
        recall(address, queries)
        throughput(address, queries, rounds)
    own_time.measure(place, queries)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=2, help="times that each of 200 queries is asked in each way")
    arguments.add_argument("--folder", type=Path, help="keep the collection here, or use the one that is here")
    chosen = arguments.parse_args()
    with sandbox(chosen.folder) as place:
        measure(place, chosen.documents, chosen.rounds)


if __name__ == "__main__":
    main()
