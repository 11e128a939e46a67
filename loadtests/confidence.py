"""Does confidence tell a collection's questions from others, and do its probabilities come true? Through the service.

python -m loadtests.confidence FOLDER... --svg docs/confidence.svg

Each folder in BEIR layout is ingested as a collection, and the documentation of Python's standard library with
questions of our own beside them; nothing is uploaded that says which questions are whose. When a collection has learnt
its confidence, the judged queries of every folder are asked of it. A pair of collections is a trial: own queries should
be sure, foreign ones not. AUROC and the expected calibration error (ten bins of equal mass) are of as many own as
foreign queries. `--documents` and `--queries` bound the time: by far most of it is encoding.
"""

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from azimuth_client.operations import ndjson
from loadtests.clients import ask_at_once
from loadtests.diagram import reliability_diagram
from loadtests.figures import heading, table
from loadtests.sandbox import Sandbox, sandbox, until
from service.cli import demo_corpus
from service.client.http_client import Client
from service.confidence.fit import Bin, Labels, auroc, balanced, calibration_error, reliability
from service.core.logistic import Floats
from service.evaluation import beir

CLIENTS = 4
LEARN_SECONDS = 240.0
QUESTIONS = Path(__file__).with_name("python_questions.txt")
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A collection as it is ingested, and questions that it answers."""

    name: str
    documents: Sequence[dict[str, Any]]
    queries: Sequence[str]


def folder(path: Path, documents: int, queries: int) -> Subject:
    """A sample: of the queries that have an answer, and of the documents, theirs first."""
    chance = random.Random(SEED)
    judged = beir.judgments(path)
    answered = sorted(query for query, grades in judged.grades.items() if max(grades.values()) > 0)
    chosen = chance.sample(answered, min(queries, len(answered)))
    with (path / "corpus.jsonl").open(encoding="utf-8") as lines:
        rows = [beir.document(json.loads(line)) for line in lines if line.strip()]
    relevant = {document for query in chosen for document, grade in judged.grades[query].items() if grade > 0}
    chance.shuffle(rows)
    rows.sort(key=lambda row: row["id"] not in relevant)
    return Subject(
        name=path.name.lower().replace(".", "-"),
        documents=rows[: max(documents, len(relevant))],
        queries=[judged.queries[query] for query in chosen],
    )


def python_docs(queries: int) -> Subject:
    """All of it: nobody judged which documents answer which question."""
    chance = random.Random(SEED)
    questions = [line for line in QUESTIONS.read_text(encoding="utf-8").splitlines() if line]
    return Subject(
        name=demo_corpus.COLLECTION,
        documents=[{"id": one.id, "title": one.title, "text": one.text} for one in demo_corpus.documents()],
        queries=chance.sample(questions, min(queries, len(questions))),
    )


def ingest(client: Client, subject: Subject) -> None:
    client.ensure_collection(subject.name)
    for _ in client.import_batches(subject.name, map(ndjson, subject.documents)):
        pass


def learnt(client: Client, subject: Subject) -> dict[str, Any]:
    """What the version says of it, as soon as it is there."""

    def there() -> bool:
        return client.version(subject.name, 1)["confidence"] is not None

    until(lambda: not client.counts(subject.name)["pending"], seconds=1_200.0, pause=0.5)
    until(there, seconds=LEARN_SECONDS, pause=0.5)
    found: dict[str, Any] = client.version(subject.name, 1)["confidence"]
    return found


def asked(address: str, subject: Subject, queries: Sequence[str], mode: str) -> Floats:
    """The confidence in each; RuntimeError where it is not told."""
    requests = [{"query": query, "k": 1, "mode": mode, "syntax": "plain", "include": []} for query in queries]
    _, answers = ask_at_once(address, subject.name, requests, CLIENTS)
    told = [body["confidence"] for body in answers.bodies]
    unsure = next((one["reason"] for one in told if one["in_domain"] is None), None)
    if unsure is not None:
        raise RuntimeError(f"{subject.name} cannot tell: {unsure}")
    return np.array([one["in_domain"] for one in told])


Table = Mapping[tuple[str, str], Floats]
"""(collection, whose queries) -> confidence in each."""


def measure(place: Sandbox, subjects: Sequence[Subject], mode: str) -> tuple[Table, dict[str, dict[str, Any]]]:
    with place.api() as address, place.process("worker"), Client(address) as client:
        for subject in subjects:
            ingest(client, subject)
        figures = {subject.name: learnt(client, subject) for subject in subjects}
        found = {
            (subject.name, other.name): asked(address, subject, other.queries, mode)
            for subject in subjects
            for other in subjects
        }
    return found, figures


@dataclass(frozen=True, kw_only=True)
class Trial:
    collection: str
    foreign: str
    auroc: float
    error: float


def pooled(found: Table, name: str) -> tuple[Floats, Floats]:
    """Own queries, and those of all others in equal parts."""
    others = [values for (collection, whose), values in found.items() if collection == name != whose]
    most = max(values.size for values in others)
    return found[name, name], np.concatenate([np.resize(values, most) for values in others])


def trials(found: Table, names: Sequence[str]) -> Iterator[Trial]:
    for name in names:
        pairs = [(other, (found[name, name], found[name, other])) for other in names if other != name]
        for other, (own, foreign) in [*pairs, ("all of them", pooled(found, name))]:
            yield Trial(
                collection=name,
                foreign=other,
                auroc=auroc(own, foreign),
                error=calibration_error(reliability(*balanced(own, foreign))),
            )


def at_share(own: Floats, foreign: Floats, share: float) -> tuple[Floats, Labels]:
    """As if this share of the questions were for the collection; the smaller kind is repeated."""
    whole = max(own.size / share, foreign.size / (1 - share))
    ours = np.resize(own, round(whole * share))
    theirs = np.resize(foreign, round(whole * (1 - share)))
    return np.concatenate([ours, theirs]), np.arange(ours.size + theirs.size) < ours.size


def shifted(probabilities: Floats, share: float) -> Floats:
    """Bayes: what a probability for even odds becomes where this share is expected beforehand."""
    return probabilities * share / (probabilities * share + (1 - probabilities) * (1 - share))


def curves(found: Table, names: Sequence[str]) -> dict[str, tuple[Bin, ...]]:
    return {name: reliability(*balanced(*pooled(found, name))) for name in names}


def report(found: Table, figures: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[Trial]:
    heading("what was learnt")
    columns = ("collection", "chunks", "texts", "AUROC", "ECE")
    table(
        columns,
        [
            (name, one["chunks"], sum(one["sources"].values()), one["auroc"], one["expected_calibration_error"])
            for name, one in figures.items()
        ],
    )
    done = list(trials(found, names))
    heading("real queries")
    table(
        ("collection", "foreign queries", "AUROC", "ECE"),
        [(one.collection, one.foreign, one.auroc, one.error) for one in done],
    )
    heading("other shares of questions for the collection, all foreign queries: ECE as it is / with Bayes' shift")
    shares = (0.1, 0.25, 0.75, 0.9)
    rows = []
    for name in names:
        own, foreign = pooled(found, name)
        cells = []
        for share in shares:
            probabilities, outcomes = at_share(own, foreign, share)
            plain = calibration_error(reliability(probabilities, outcomes))
            moved = calibration_error(reliability(shifted(probabilities, share), outcomes))
            cells.append(f"{plain:.3f} / {moved:.3f}")
        rows.append((name, *cells))
    table(("collection", *(f"{share:.0%}" for share in shares)), rows)
    return done


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("folders", nargs="+", type=Path, help="in BEIR layout")
    arguments.add_argument("--documents", type=int, default=3_000, help="of each folder, at most")
    arguments.add_argument("--queries", type=int, default=200, help="of each collection, at most")
    arguments.add_argument("--mode", choices=("hybrid", "dense"), default="hybrid")
    arguments.add_argument("--svg", type=Path, help="the reliability diagram is written here")
    arguments.add_argument("--json", type=Path, help="all confidences are written here")
    chosen = arguments.parse_args()
    subjects = [folder(path, chosen.documents, chosen.queries) for path in chosen.folders]
    subjects.append(python_docs(chosen.queries))
    names = [subject.name for subject in subjects]
    with sandbox() as place:
        found, figures = measure(place, subjects, chosen.mode)
    done = report(found, figures, names)
    if chosen.svg:
        errors = {one.collection: one.error for one in done if one.foreign == "all of them"}
        chosen.svg.write_text(reliability_diagram(curves(found, names), errors), encoding="utf-8")
    if chosen.json:
        told = {f"{collection} < {whose}": values.tolist() for (collection, whose), values in found.items()}
        chosen.json.write_text(json.dumps({"learnt": figures, "confidences": told}), encoding="utf-8")


if __name__ == "__main__":
    main()
