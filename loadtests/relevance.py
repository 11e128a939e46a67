"""Does the relevance of hits come true? Fitted on other collections than it is measured on, through the service.

python -m loadtests.relevance FOLDER... [--apply FOLDER...]

Each folder in BEIR layout is ingested as a collection, and the documentation of Python's standard library beside them,
whose questions are the first paragraphs of entries, cut from the entry. The first 20 hits of each query are reranked;
relevant is what is judged so, and everything unjudged counts as not relevant. The error is the expected calibration
error (ten bins of equal mass). `--apply`: collections that no fit learns from. `--documents` and `--queries` bound the
time: by far most of it is encoding and reranking.
"""

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from azimuth_client.operations import ndjson
from loadtests.clients import ask_at_once
from loadtests.figures import heading, table
from loadtests.sandbox import sandbox, until
from service.cli import demo_corpus
from service.client.http_client import Client
from service.confidence.fit import Bin, auroc, calibration_error, fit_logistic, reliability
from service.core.logistic import Floats, Logistic
from service.core.relevance import SAMPLE
from service.evaluation import beir
from service.search.rerank_blend import log_odds

CLIENTS = 2
SEED = 0
MIN_GRADE = {"medquad-liveqa": 2}
"""Grade 1 is an answer that is related and wrong."""
UNSEEN_TITLES = {"squad-v1-1-dev": {"Normans", "Martin Luther", "Civil disobedience"}}
"""The articles that the bundled reranker was not trained on."""
SAME_TEXT = ("squad", "xquad")
"""Collections whose names begin so share articles: neither is fitted on where the other is measured."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    name: str
    documents: Sequence[dict[str, Any]]
    queries: Mapping[str, frozenset[str]]
    """Text -> relevant documents."""


def folder(path: Path, documents: int, queries: int) -> Judged:
    name = f"{path.parent.name}-{path.name}" if path.parent.name == "xquad" else path.name.lower().replace(".", "-")
    judged = beir.judgments(path)
    with (path / "corpus.jsonl").open(encoding="utf-8") as lines:
        rows = [beir.document(json.loads(line)) for line in lines if line.strip()]
    titles, unseen = {row["id"]: row["title"] for row in rows}, UNSEEN_TITLES.get(name)
    relevant: dict[str, frozenset[str]] = {}
    for query, grades in sorted(judged.grades.items()):
        found = frozenset(one for one, grade in grades.items() if grade >= MIN_GRADE.get(name, 1))
        if unseen is None or {titles[one] for one in found} <= unseen:
            relevant[judged.queries[query]] = found
    return sample(name, rows, relevant, documents, queries)


def python_docs(documents: int, queries: int) -> Judged:
    rows: list[dict[str, Any]] = []
    relevant: dict[str, frozenset[str]] = {}
    for one in demo_corpus.documents():
        paragraphs = one.text.split("\n\n")
        signature = [paragraphs.pop(0)] if paragraphs[0].startswith(one.title.rsplit(".", 1)[-1] + "(") else []
        question = " ".join(paragraphs[0].split()) if paragraphs else ""
        rest = "\n\n".join([*signature, *paragraphs[1:]])
        if 30 < len(question) < 300 and len(rest) > 200:
            rows.append({"id": one.id, "title": one.title, "text": rest})
            relevant[question] = frozenset([str(one.id)])
    return sample("python-docs", rows, relevant, documents, queries)


def sample(
    name: str, rows: Sequence[dict[str, Any]], relevant: Mapping[str, frozenset[str]], documents: int, queries: int
) -> Judged:
    """Of the queries, and of the documents, the relevant ones first."""
    chance = random.Random(SEED)
    chosen = chance.sample(sorted(relevant), min(queries, len(relevant)))
    wanted = frozenset().union(*(relevant[query] for query in chosen))
    shuffled = chance.sample(list(rows), len(rows))
    shuffled.sort(key=lambda row: row["id"] not in wanted)
    return Judged(
        name=name,
        documents=shuffled[: max(documents, len(wanted))],
        queries={query: relevant[query] for query in chosen},
    )


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Of all queries, one after another. `above`: log-odds above their lower quartile, [n, 1]. `told`: `relevance`."""

    above: Floats
    told: Floats
    relevant: np.ndarray[Any, np.dtype[np.bool_]]
    quartile: float


def searched(address: str, judged: Judged) -> Hits:
    how = {"k": SAMPLE, "rerank": {"depth": SAMPLE}, "explain": True, "include": [], "syntax": "plain"}
    _, answers = ask_at_once(address, judged.name, [{"query": query} | how for query in judged.queries], CLIENTS)
    # The clients took turns, so that the answers of each are those of every so manyth query.
    texts = list(judged.queries)
    order = [query for client in range(CLIENTS) for query in texts[client::CLIENTS]]
    above: list[float] = []
    told: list[float] = []
    relevant: list[bool] = []
    quartiles = []
    for query, body in zip(order, answers.bodies, strict=True):
        odds = np.array([log_odds(hit["explain"]["rerank"]["score"]) for hit in body["hits"]])
        if any(hit["relevance"] is None for hit in body["hits"]) or not odds.size:
            continue  # the query was cut
        quartiles.append(float(np.quantile(odds, 0.25)))
        above += list(odds - quartiles[-1])
        told += [hit["relevance"] for hit in body["hits"]]
        relevant += [hit["id"] in judged.queries[query] for hit in body["hits"]]
    return Hits(
        above=np.array(above)[:, None],
        told=np.array(told),
        relevant=np.array(relevant),
        quartile=float(np.median(quartiles)),
    )


def fit(found: Mapping[str, Hits], names: Sequence[str]) -> Logistic:
    """Each collection counts the same."""
    most = max(len(found[name].told) for name in names)
    above = np.concatenate([np.resize(found[name].above, (most, 1)) for name in names])
    return fit_logistic(
        above, np.concatenate([np.resize(found[name].relevant, most) for name in names]), balanced=False
    )


def others(name: str, names: Sequence[str]) -> list[str]:
    kin = name.startswith(SAME_TEXT)
    return [one for one in names if one != name and not (kin and one.startswith(SAME_TEXT))]


def shown(bins: Sequence[Bin]) -> str:
    return "  ".join(f"{one.predicted:.2f}:{one.observed:.2f}" for one in bins)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("folders", nargs="+", type=Path, help="in BEIR layout")
    arguments.add_argument("--apply", nargs="*", type=Path, default=[], help="further folders, that no fit learns from")
    arguments.add_argument("--documents", type=int, default=3_000, help="of each collection, at most")
    arguments.add_argument("--queries", type=int, default=100, help="of each collection, at most")
    chosen = arguments.parse_args()
    fitted = [folder(path, chosen.documents, chosen.queries) for path in chosen.folders]
    fitted.append(python_docs(chosen.documents, chosen.queries))
    applied = [folder(path, chosen.documents, chosen.queries) for path in chosen.apply]
    found: dict[str, Hits] = {}
    with sandbox() as place, place.api() as address, place.process("worker"), Client(address) as client:
        for one in (*fitted, *applied):
            client.ensure_collection(one.name)
            for _ in client.import_batches(one.name, map(ndjson, one.documents)):
                pass
            name = one.name
            until(lambda name=name: not client.counts(name)["pending"], seconds=1_200.0, pause=0.5)  # type: ignore[misc]
            found[name] = searched(address, one)
    names = [one.name for one in fitted]
    whole = fit(found, names)
    usual = float(np.median([found[name].quartile for name in names]))
    heading(f"fit on all: slope {whole.weights[0]:.3f}, offset {whole.bias:.3f}, usual lower quartile {usual:.2f}")
    rows = []
    diagrams = []
    for name, hits in found.items():
        line = fit(found, others(name, names))
        held_out, came = line.probabilities(hits.above), hits.relevant
        bins = reliability(held_out, came)
        rates = (float(came.mean()), float(((held_out - came) ** 2).mean()), float(came.var()))
        rows.append(
            (
                name,
                len(came),
                *rates,
                calibration_error(bins),
                calibration_error(reliability(hits.told, came)),
                auroc(held_out[came], held_out[~came]),
            )
        )
        diagrams.append((name, shown(bins)))
    heading("fitted on the other collections; Brier of the base rate beside it; as shipped; AUROC")
    table(("collection", "hits", "relevant", "Brier", "base", "ECE", "ECE shipped", "AUROC"), rows)
    heading("reliability: predicted:observed in ten bins of equal mass, fitted on the other collections")
    table(("collection", "bins"), diagrams)


if __name__ == "__main__":
    main()
