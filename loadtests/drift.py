"""Do the measures of drift rise where other things are asked than a collection holds, and stay where not? Through the
service.

python -m loadtests.drift FOLDER... --json OUT

Each folder in BEIR layout is ingested as a collection (with `--python` the documentation of Python's standard library,
with questions of our own, beside them). Each collection is first asked queries of its own, and then as many others:
more of its own (every second one, so that nothing distinguishes the two halves), its own in the order of the file
(where that goes by subject, the second half asks about other subjects of the same collection), or those of another
collection. `GET .../drift` says what became of it. Each round has a new process, for drift is remembered in memory.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.clients import ask_at_once
from loadtests.confidence import Subject, folder, ingest, learnt, python_docs
from loadtests.figures import heading, table
from loadtests.sandbox import Sandbox, sandbox, until
from service.client.http_client import Client
from service.evaluation import beir

CLIENTS = 2
LOOK_SECONDS = 120.0
SETTINGS = {"AZIMUTH_DRIFT_SECONDS": "1", "AZIMUTH_RERANKER": "none", "AZIMUTH_PROBE_SHARE": "0"}
"""Every query counts and is looked at soon; nothing else runs beside."""
OWN, IN_ORDER = "own", "own, in order"
MEASURES = ("out_of_domain", "unknown_words", "corpus_distance", "centroid_shift", "mmd", "top_score")

Figures = Mapping[str, Any]
"""What `GET .../drift` answered."""


def rounds(
    subjects: Sequence[Subject], orders: Mapping[str, Sequence[str]]
) -> Iterator[list[tuple[Subject, str, Sequence[str], Sequence[str]]]]:
    """Who is asked, whose queries follow, what is asked before, and what then; each subject once a round."""
    yield [(one, OWN, one.queries[0::2], one.queries[1::2]) for one in subjects]
    yield [(one, IN_ORDER, *_halves(orders[one.name])) for one in subjects if one.name in orders]
    for step in range(1, len(subjects)):
        others = [subjects[(at + step) % len(subjects)] for at in range(len(subjects))]
        yield [
            (one, other.name, list(one.queries), list(other.queries))
            for one, other in zip(subjects, others, strict=True)
        ]


def _halves(queries: Sequence[str]) -> tuple[list[str], list[str]]:
    middle = len(queries) // 2
    return list(queries[:middle]), list(queries[middle:])


def cell(address: str, client: Client, subject: Subject, before: Sequence[str], after: Sequence[str]) -> Figures:
    """As many of both, so that what came after is what the latest sample holds."""
    count = min(len(before), len(after))
    for queries in (before[:count], after[:count]):
        requests = [{"query": query, "k": 1, "syntax": "plain", "include": []} for query in queries]
        ask_at_once(address, subject.name, requests, CLIENTS)
    path = f"/v1/collections/{subject.name}/drift"

    def looked() -> bool:
        found = client.call("GET", path)
        return bool(found["history"]) and sum(one["queries"] for one in found["history"]) == 2 * count

    until(looked, seconds=LOOK_SECONDS, pause=0.5)
    found: Figures = client.call("GET", path)
    return found


def measure(
    place: Sandbox, subjects: Sequence[Subject], orders: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Figures]]:
    """Collection -> whose queries were asked -> what the service says."""
    with place.api() as address, place.process("worker"), Client(address) as client:
        for subject in subjects:
            ingest(client, subject)
        for subject in subjects:
            learnt(client, subject)
    found: dict[str, dict[str, Figures]] = {subject.name: {} for subject in subjects}
    for plan in rounds(subjects, orders):
        with place.api(SETTINGS) as address, Client(address) as client:
            for subject, whose, before, after in plan:
                found[subject.name][whose] = cell(address, client, subject, before, after)
    return found


def report(found: Mapping[str, Mapping[str, Figures]]) -> None:
    for name, by in found.items():
        heading(f"collection {name}: asked its own queries, and then those of")
        rows = []
        for whose, figures in by.items():
            measures = {one["name"]: one for one in figures["measures"]}
            shown = [_shown(measures[one]) for one in MEASURES]
            rows.append((whose, figures["queries"], *shown, figures["verdict"]))
        table(("", "queries", *MEASURES, "verdict"), rows)


def _shown(one: Mapping[str, Any]) -> str:
    mark = {"watch": "!", "broken": "!!"}.get(one["verdict"] or "", "")
    return "-" if one["value"] is None else f"{one['value']:.3f}{mark}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("folders", nargs="+", type=Path, help="in BEIR layout")
    arguments.add_argument("--documents", type=int, default=2_000, help="of each folder, at most")
    arguments.add_argument("--queries", type=int, default=200, help="of each collection, at most")
    arguments.add_argument("--python", action="store_true", help="the documentation of Python as a collection, too")
    arguments.add_argument("--json", type=Path, help="all that the service said is written here")
    chosen = arguments.parse_args()
    subjects = [folder(path, chosen.documents, chosen.queries) for path in chosen.folders]
    orders = {
        subject.name: [query for query in beir.judgments(path).queries.values() if query in set(subject.queries)]
        for subject, path in zip(subjects, chosen.folders, strict=True)
    }
    if chosen.python:
        subjects.append(python_docs(chosen.queries))
    with sandbox() as place:
        found = measure(place, subjects, orders)
    report(found)
    if chosen.json:
        chosen.json.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
