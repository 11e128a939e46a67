"""Documents to searchable, against the machine's own limit: `python -m loadtests.ingest [--corpus corpus.jsonl]`.

The service: NDJSON over HTTP to an API, a worker, until nothing is pending and the lexical index has caught up. The
limit: a loop that encodes the same passages, cut and packed beforehand, in the same precision and does nothing else.
Both in turns on the same machine. Without a corpus the texts are made of documentation strings, as long as abstracts.

Where others use the machine too, seconds say little: whoever runs more threads gets more of it. So the seconds of CPU
that either way takes are compared as well, and the share of its time that the worker's model was at work.
"""

import argparse
import itertools
import json
import re
import statistics
import time
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil

from loadtests.figures import heading, table
from loadtests.sandbox import Sandbox, sandbox, unused_port, until
from service import demo
from service.client import Client, ndjson
from service.domain import Chunking, Document, DocumentId, EmbedderSpec, StoredDocument
from service.embedder.packing import pack
from service.embedder.passages import cut
from service.embedder.registry import Loader
from service.ports import Encoder

MEAN_WORDS, SPREAD = 200, 0.35
"""Words of an abstract: lognormal, as SciFact's are."""


def documents(corpus: Path | None, count: int) -> list[Document]:
    """The first of a BEIR corpus, or made: running words of the standard library's documentation."""
    if corpus is not None:
        with corpus.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in itertools.islice(lines, count)]
        return [Document(id=DocumentId(row["_id"]), title=row.get("title", ""), text=row["text"]) for row in rows]
    words = " ".join(one.text for one in demo.documents()).split()
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
    chunks = list(itertools.chain.from_iterable(cut(encoder, stored, Chunking())))
    packed = pack([chunk.tokens for chunk in chunks], encoder.batch_tokens)
    return [[chunks[at].text for at in batch] for batch in packed]


def encode_alone(encoder: Encoder, work: Sequence[Sequence[str]]) -> float:
    """Seconds of nothing but the model."""
    started = time.perf_counter()
    for batch in work:
        encoder.encode(batch, "document")
    return time.perf_counter() - started


def through_the_service(client: Client, name: str, texts: Sequence[Document]) -> tuple[float, float]:
    """Seconds until everything was committed, and until all of it can be found in both ways."""
    client.ensure_collection(name)
    lines = [ndjson({"id": one.id, "title": one.title, "text": one.text}) for one in texts]
    started = time.perf_counter()
    for outcome in client.ingest(name, lines):
        assert not outcome["errors"], outcome["errors"]
    committed = time.perf_counter() - started

    def searchable() -> bool:
        answer = client.call("GET", f"/v1/collections/{name}")
        return answer["counts"]["pending"] == 0 and answer["lexical_lag_seconds"] == 0

    until(searchable, seconds=600)
    return committed, time.perf_counter() - started


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


def measure(place: Sandbox, corpus: Path | None, count: int, rounds: int) -> None:
    texts = documents(corpus, count)
    encoder = Loader(device="auto", precision="auto", threads=0)(EmbedderSpec(model="all-MiniLM-L6-v2"))
    work = batches(encoder, texts)
    passages = sum(map(len, work))
    alone: list[float] = []
    alone_cpu: list[float] = []
    committed: list[float] = []
    whole: list[float] = []
    whole_cpu: list[float] = []
    at_work: list[float] = []

    def encode() -> None:
        before = time.process_time()
        alone.append(encode_alone(encoder, work))
        alone_cpu.append(time.process_time() - before)

    port = unused_port()
    metrics = f"http://127.0.0.1:{port}/metrics"
    with place.api() as address, place.process("worker", {"AZIMUTH_WORKER_PORT": str(port)}), Client(address) as client:
        through_the_service(client, "warm", texts[:64])
        encode_alone(encoder, work[:2])
        for number in range(rounds):
            encode()
            cpu, computed = service_cpu(place), busy(metrics)
            acknowledged, found = through_the_service(client, f"round-{number}", texts)
            committed.append(acknowledged)
            whole.append(found)
            whole_cpu.append(service_cpu(place) - cpu)
            at_work.append((busy(metrics) - computed) / found)
        encode()
    heading(f"{len(texts)} documents, {passages} passages in {len(work)} batches of {encoder.batch_tokens} tokens")
    rows: list[list[object]] = []
    for name, seconds, cpu_seconds in (
        ("encoding alone", alone, alone_cpu),
        ("searchable", whole, whole_cpu),
    ):
        wall, cpu = statistics.median(seconds), statistics.median(cpu_seconds)
        rows.append(
            [name, wall, passages / wall, statistics.median(alone) / wall, cpu, statistics.median(alone_cpu) / cpu]
        )
    table(["", "seconds", "passages/s", "of alone", "CPU seconds", "of alone"], rows)
    pairs = [(before + after) / 2 / own for before, after, own in zip(alone, alone[1:], whole, strict=False)]
    print("  each round against its neighbours: " + ", ".join(f"{ratio:.3f}" for ratio in pairs))
    print(f"  the worker's model at work: {100 * statistics.median(at_work):.1f} % of the time")
    print(f"  acknowledged after {statistics.median(committed):.2f} s")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument(
        "--corpus", type=Path, help="corpus.jsonl of a BEIR folder such as SciFact; none: made texts"
    )
    arguments.add_argument("--documents", type=int, default=1_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path, help="keep everything here")
    chosen = arguments.parse_args()
    with sandbox(chosen.folder) as place:
        measure(place, chosen.corpus, chosen.documents, chosen.rounds)


if __name__ == "__main__":
    main()
