"""Documents that bring their vectors, against a bare COPY into the same tables: `python -m loadtests.bulk_load`.

The service: one request over HTTP with documents of 25 words, metadata and vectors, to an API without a worker. The
limit: what it wrote (documents, changes, vectors) is read out, deleted and copied back in binary. And the lexical
index: what the service's indexer takes for the documents, beside a bare Tantivy index of the same texts.

Seconds say little where others use the machine, so processor time is compared as well: of API and PostgreSQL, the
lexical index included, and of PostgreSQL alone for COPY.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import psycopg
import tantivy

from loadtests import ingest
from loadtests.figures import heading, table
from loadtests.ingest import service_cpu
from loadtests.sandbox import Sandbox, sandbox, until
from service.client.http_client import Client
from service.core.change_feed import Change, Position
from service.core.documents import Document, StoredDocument
from service.store.lexical.analyzer import analyzer_for
from service.store.lexical.indexer import Indexer

DIMENSIONS, WORDS, LINES_AT_ONCE = 384, 25, 500
COLLECTION = "bulk"
EXTERNAL = {"embedder": {"model": "external", "dimensions": DIMENSIONS, "identity": "x"}}
Spent = tuple[float, float]
"""Seconds on the clock, and of processors."""


def made(count: int) -> tuple[list[Document], np.ndarray]:
    texts = ingest.documents(None, count)
    short = [Document(id=one.id, text=" ".join(one.text.split()[:WORDS])) for one in texts]
    vectors = np.random.default_rng(5).normal(size=(count, DIMENSIONS)).astype(np.float32)
    return short, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def lines(texts: list[Document], vectors: np.ndarray) -> Iterator[bytes]:
    for start in range(0, len(texts), LINES_AT_ONCE):
        rows = zip(texts[start : start + LINES_AT_ONCE], vectors[start:], strict=False)
        bodies = [
            {"id": one.id, "text": one.text, "metadata": {"year": 1990 + at % 30}, "vector": vector}
            for at, (one, vector) in enumerate(rows)
        ]
        yield b"".join(
            orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE) for body in bodies
        )


def spent(place: Sandbox, work: Callable[[], object]) -> Spent:
    started, cpu = time.perf_counter(), service_cpu(place)
    work()
    return time.perf_counter() - started, service_cpu(place) - cpu


def through_the_service(place: Sandbox, kind: str, body: list[bytes], count: int) -> tuple[Spent, Spent]:
    """Until it is committed, and until words find it."""
    with place.api() as address, Client(address) as client:
        client.ensure_collection(COLLECTION, EXTERNAL)

        def load() -> None:
            url = f"{address}/v1/collections/{COLLECTION}/documents"
            answer = httpx.post(url, content=iter(body), headers={"Content-Type": kind}, timeout=None)
            assert answer.json()["created"] == count, answer.text[:500]

        def indexed() -> bool:
            return client.collection(COLLECTION)["lexical_lag_seconds"] == 0

        written = spent(place, load)
        searchable = spent(place, lambda: until(indexed))
    return written, (written[0] + searchable[0], written[1] + searchable[1])


def copied(place: Sandbox) -> Spent:
    """What the service wrote, out and in again."""
    with psycopg.connect(place.url, autocommit=True) as connection:
        [(vectors,)] = connection.execute("SELECT relname FROM pg_class WHERE relname ~ '^vectors_\\d+_\\d+$'")
        tables = ("documents", "changes", vectors)
        held = []
        for name in tables:
            with connection.cursor().copy(f"COPY {name} TO STDOUT (FORMAT binary)") as out:
                held.append(b"".join(bytes(part) for part in out))
            connection.execute(f"DELETE FROM {name}")
            connection.execute(f"VACUUM {name}")

        def load() -> None:
            for name, rows in zip(tables, held, strict=True):
                with connection.cursor().copy(f"COPY {name} FROM STDIN (FORMAT binary)") as into:
                    into.write(rows)

        return spent(place, load)


def lexical(texts: list[Document]) -> tuple[float, float]:
    """Processor seconds of the service's indexer, and of Tantivy alone."""
    now, folder = datetime.now(UTC), Path(tempfile.mkdtemp())
    written: dict[str, Any] = {"revision": 1, "content_revision": 1, "created_at": now, "updated_at": now}
    stored = [StoredDocument(id=one.id, title="", text=one.text, metadata={}, **written) for one in texts]
    changes = [Change(position=Position(xid=1, document_id=one.id), document_id=one.id, document=one) for one in stored]
    indexer = Indexer(folder / "own", analyzer_for("english"))
    started = time.process_time()
    for start in range(0, len(changes), 1000):
        indexer.apply(changes[start : start + 1000])
    indexer.commit(caught_up=True)
    own = time.process_time() - started
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("document_id", tokenizer_name="raw", stored=True)
    builder.add_text_field("body", tokenizer_name="en_stem")
    (folder / "bare").mkdir()
    writer = tantivy.Index(builder.build(), path=str(folder / "bare")).writer(50_000_000, 1)
    started = time.process_time()
    for one in stored:
        writer.add_document(tantivy.Document(document_id=one.id, body=one.text))
    writer.commit()
    return own, time.process_time() - started


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=50_000)
    count = arguments.parse_args().documents
    texts, vectors = made(count)
    with sandbox() as place:
        written, searchable = through_the_service(place, "application/x-ndjson", list(lines(texts, vectors)), count)
        bare = copied(place)
    own, tantivy_alone = lexical(texts)
    heading(f"{count} documents of {WORDS} words with {DIMENSIONS} dimensions")
    rows = [("bare COPY", bare), ("NDJSON, committed", written), ("NDJSON, searchable", searchable)]
    cells = [[name, count / s, bare[0] / s, 1e3 * cpu / count, bare[1] / cpu] for name, (s, cpu) in rows]
    table(["", "documents/s", "of COPY", "processor ms each", "of COPY"], cells)
    each = [1e3 * own / count, 1e3 * tantivy_alone / count, tantivy_alone / own]
    print("  lexical index, processor ms each: {:.3f}, of Tantivy alone {:.3f}, a share of {:.2f}".format(*each))


if __name__ == "__main__":
    main()
