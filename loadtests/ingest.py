"""Documents to searchable, against the machine's own limit: `python -m loadtests.ingest [--corpus corpus.jsonl]`.

The service: NDJSON over HTTP to an API, a worker, until nothing is pending and the lexical index has caught up. The
limit: a loop that encodes the same passages, cut and packed beforehand, in the same precision and does nothing else.
Both in turns on the same machine. Without a corpus the texts are made of documentation strings, as long as abstracts.

Both ways get a fresh process each round. Where others use the machine too, seconds say little: whoever runs more
threads gets more of it. So the seconds of CPU that either way takes are compared as well, and the share of its time
that the worker's model was at work.
"""

import argparse
import itertools
import json
import multiprocessing
import re
import statistics
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil

from azimuth_client.operations import ndjson
from loadtests.figures import heading, table
from loadtests.sandbox import Sandbox, sandbox, unused_port
from service.cli import demo_corpus
from service.client.http_client import Client
from service.core.collections import ChunkingSettings, EmbedderSpec
from service.core.documents import Document, StoredDocument
from service.core.ids import DocumentId
from service.core.ports.embedder import Encoder
from service.embedder.models import source
from service.embedder.models.batch_packing import pack
from service.embedder.models.loader import ModelLoader
from service.embedder.worker.document_chunker import chunk_documents

MEAN_WORDS, SPREAD = 200, 0.35
"""Words of an abstract: lognormal, as SciFact's are."""
LOOK_SECONDS = 0.005
"""For each document that still waits, until the next look: the nearer the end, the closer."""


def documents(corpus: Path | None, count: int) -> list[Document]:
    """The first of a BEIR corpus, or made: running words of the standard library's documentation."""
    if corpus is not None:
        with corpus.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in itertools.islice(lines, count)]
        return [Document(id=DocumentId(row["_id"]), title=row.get("title", ""), text=row["text"]) for row in rows]
    words = " ".join(one.text for one in demo_corpus.documents()).split()
    generator = np.random.default_rng(3)
    lengths = generator.lognormal(np.log(MEAN_WORDS), SPREAD, count).astype(int)
    starts = generator.integers(len(words) - max(lengths), size=count)
    return [
        Document(id=DocumentId(f"doc-{number:06d}"), text=" ".join(words[start : start + length]))
        for number, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]


def batches(encoder: Encoder, texts: Sequence[Document]) -> list[list[str]]:
    """What the worker would give to the model, packed over everything at once."""
    now = datetime.now(UTC)
    stored = [
        StoredDocument(
            id=one.id,
            title=one.title,
            text=one.text,
            metadata={},
            revision=1,
            content_revision=1,
            created_at=now,
            updated_at=now,
        )
        for one in texts
    ]
    chunks = list(itertools.chain.from_iterable(chunk_documents(encoder, stored, ChunkingSettings())))
    packed = pack([chunk.tokens for chunk in chunks], encoder.batch_tokens)
    return [[chunks[at].text for at in batch] for batch in packed]


@dataclass(frozen=True)
class Spent:
    """What one way took."""

    seconds: float
    cpu_seconds: float
    passages: int = 0
    batches: int = 0
    model_seconds: float = 0.0


def encode_alone(texts: Sequence[Document]) -> Spent:
    """Nothing but the model. Runs in a process of its own."""
    encoder = ModelLoader(device="auto", precision="auto", threads=0)(EmbedderSpec(model=source.BUNDLED))
    work = batches(encoder, texts)

    def encode(packed: Sequence[Sequence[str]]) -> Spent:
        started, cpu = time.perf_counter(), time.process_time()
        for batch in packed:
            encoder.encode(batch, "document")
        return Spent(time.perf_counter() - started, time.process_time() - cpu, sum(map(len, work)), len(work))

    # In a second thread, as in the worker.
    encode(work[:2])
    with ThreadPoolExecutor(1) as thread:
        thread.submit(encode, work[:2]).result()
        return thread.submit(encode, work).result()


def apart(texts: Sequence[Document]) -> Spent:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(encode_alone, texts).result()


def through_the_service(client: Client, name: str, texts: Sequence[Document]) -> None:
    """Return when all of it can be found in both ways."""
    client.ensure_collection(name)
    for outcome in client.import_batches(
        name, (ndjson({"id": one.id, "title": one.title, "text": one.text}) for one in texts)
    ):
        assert not outcome["errors"], outcome["errors"]

    while True:
        answer = client.call("GET", f"/v1/collections/{name}")
        pending = answer["counts"]["pending"]
        if pending == 0 and answer["lexical_lag_seconds"] == 0:
            return
        time.sleep(min(1.0, max(0.05, pending * LOOK_SECONDS)))  # each look costs the service some milliseconds


def busy(metrics: str) -> float:
    """Seconds that the worker's model has computed so far."""
    with urllib.request.urlopen(metrics) as response:
        text = response.read().decode()
    found = re.findall(r'^azimuth_embed_batch_seconds_sum\{role="document"\} (\S+)', text, re.MULTILINE)
    return float(found[0]) if found else 0.0


def service_cpu(place: Sandbox) -> float:
    """Seconds of CPU that API, worker and PostgreSQL have had so far, processes that have ended included."""
    postmaster = psutil.Process(int((place.folder / "postgres" / "postmaster.pid").read_text().split()[0]))
    ended = postmaster.cpu_times()
    spent = float(ended.children_user + ended.children_system)
    for process in (postmaster, *postmaster.children(recursive=True), *psutil.Process().children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent += times.user + times.system
    return spent


def one_round(place: Sandbox, client: Client, number: int, texts: Sequence[Document]) -> Spent:
    """A fresh worker, warmed up; then all texts."""
    port = unused_port()
    metrics = f"http://127.0.0.1:{port}/metrics"
    with place.process("worker", {"AZIMUTH_WORKER_PORT": str(port)}):
        through_the_service(client, f"warm-{number}", texts[:16])
        started, cpu, computed = time.perf_counter(), service_cpu(place), busy(metrics)
        through_the_service(client, f"round-{number}", texts)
        return Spent(
            seconds=time.perf_counter() - started,
            cpu_seconds=service_cpu(place) - cpu,
            model_seconds=busy(metrics) - computed,
        )


def measure(place: Sandbox, corpus: Path | None, count: int, rounds: int) -> None:
    texts = documents(corpus, count)
    alone, whole = [], []
    with place.api() as address, Client(address) as client:
        for number in range(rounds):
            alone.append(apart(texts))
            whole.append(one_round(place, client, number, texts))
    passages = alone[0].passages
    heading(f"{len(texts)} documents, {passages} passages in {alone[0].batches} batches")
    rows: list[list[object]] = []
    seconds = [statistics.median(one.seconds for one in own) for own in (alone, whole)]
    cpu = [statistics.median(one.cpu_seconds for one in own) for own in (alone, whole)]
    for at, name in enumerate(("encoding alone", "through the service")):
        rows.append([name, seconds[at], passages / seconds[at], seconds[0] / seconds[at], cpu[at], cpu[0] / cpu[at]])
    table(["", "seconds", "passages/s", "of alone", "CPU seconds", "of alone"], rows)
    pairs = [before.seconds / after.seconds for before, after in zip(alone, whole, strict=True)]
    print("  round by round: " + ", ".join(f"{ratio:.3f}" for ratio in pairs))
    at_work = statistics.median(one.model_seconds / one.seconds for one in whole)
    print(f"  the worker's model at work: {100 * at_work:.1f} % of the time, from the first byte to searchable")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument(
        "--corpus", type=Path, help="corpus.jsonl of a BEIR folder such as SciFact; none: made texts"
    )
    arguments.add_argument("--documents", type=int, default=400)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path, help="keep everything here")
    chosen = arguments.parse_args()
    with sandbox(chosen.folder) as place:
        measure(place, chosen.corpus, chosen.documents, chosen.rounds)


if __name__ == "__main__":
    main()
