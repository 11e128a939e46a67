"""Do many workers stand in each other's way? `python -m loadtests.many_workers`.

Each worker claims, sleeps as long as a GPU would encode, and stores, through the adapters of the service and with
connections of its own. So two cores can show up to 32 of them: what is left is PostgreSQL and its locks.
"""

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from datetime import timedelta

import numpy as np

from loadtests.figures import heading, table
from loadtests.sandbox import Sandbox, sandbox
from service.core.collections import CollectionSettings
from service.core.documents import Chunk, Document
from service.core.ids import CollectionName, DocumentId
from service.core.jobs import EncodedDocument
from service.core.periodic import utc_now
from service.core.versions import EmbedderIdentity, EmbedderVersion
from service.store.postgres.connection.pool import open_pool
from service.store.postgres.store import Store

DIMENSIONS, LEASE = 384, timedelta(minutes=5)
COLLECTIONS = 4
WRITTEN_AT_ONCE = 500


async def fill(store: Store, name: str, documents: int) -> EmbedderVersion:
    """A collection whose documents all wait for the worker."""
    identity = EmbedderIdentity(parts={"weights": "none"}, dimensions=DIMENSIONS, max_tokens=256)
    canary = {"text": (1.0,) * DIMENSIONS}
    made = await store.collections.create(CollectionName(name), CollectionSettings(), identity, canary, utc_now())
    for first in range(0, documents, WRITTEN_AT_ONCE):
        ids = range(first, min(documents, first + WRITTEN_AT_ONCE))
        texts = [Document(id=DocumentId(f"d{at}"), title="", text=f"text {at} " * 60, metadata={}) for at in ids]
        await store.documents.put(made.id, texts, utc_now())
    (version,) = await store.versions.of(made.id)
    return version


async def work(
    store: Store, versions: list[EmbedderVersion], name: str, batch: int, rate: float, until: float
) -> tuple[float, ...]:
    """Documents stored, and the seconds of claims, of encoding and of writes."""
    rng, done, spent = np.random.default_rng(len(name)), 0, [0.0, 0.0, 0.0]
    await asyncio.sleep(rng.random() * batch / rate)
    while time.monotonic() < until:
        started = time.monotonic()
        claimed = await store.queue.claim(versions, batch, name, utc_now(), LEASE)
        spent[0] += time.monotonic() - started
        vectors = rng.normal(size=(len(claimed), 1, DIMENSIONS)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        await asyncio.sleep(batch / rate)
        spent[1] += batch / rate
        started = time.monotonic()
        for version in versions:
            encoded = [
                EncodedDocument(
                    job=one.job,
                    chunks=(Chunk(number=0, start=0, end=len(one.document.text), text=one.document.text, tokens=1),),
                    vectors=rows,
                )
                for one, rows in zip(claimed, vectors, strict=True)
                if one.job.collection_id == version.collection_id
            ]
            done += len(await store.vectors.write(version, encoded))
        spent[2] += time.monotonic() - started
    return done, *spent


async def measure(place: Sandbox, counts: list[int], seconds: float, batch: int, rate: float) -> None:
    rows = []
    async with AsyncExitStack() as stack:
        stores = [
            Store(
                await stack.enter_async_context(
                    await open_pool(place.url, size=1, statement_timeout_seconds=60, application_name=f"worker {at}")
                )
            )
            for at in range(max(counts))
        ]
        for workers in counts:
            wanted = round(workers * rate * seconds * 1.5 / COLLECTIONS) + batch
            versions = [await fill(stores[0], f"w{workers}-{at}", wanted) for at in range(COLLECTIONS)]
            until = time.monotonic() + seconds
            works = [work(stores[at], versions, f"worker {at}", batch, rate, until) for at in range(workers)]
            done, claims, encoding, writes = (sum(one) for one in zip(*await asyncio.gather(*works), strict=True))
            total = claims + encoding + writes
            rows.append((workers, done / (total / workers), *(100 * one / total for one in (claims, writes, encoding))))
            for version in versions:
                await stores[0].collections.delete(version.collection_id)
    heading(f"{rate:g} documents a second for a worker, {batch} at once, {COLLECTIONS} collections")
    heads = ("workers", "documents/s", "claims, % of the time", "writes, %", "encoding, %")
    table(heads, [(workers, *(f"{one:.1f}" for one in others)) for workers, *others in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=8.0, help="Documents that a worker encodes each second.")
    args = parser.parse_args()
    with sandbox() as place:
        asyncio.run(measure(place, args.workers, args.seconds, args.batch, args.rate))


if __name__ == "__main__":
    main()
