"""What does each storage of a space cost, and what does its index lose? `python -m loadtests.storages`.

The same vectors of the default model (`corpus.py`) in three versions of one collection, searched through the adapter
that serves searches, query by query in turns. Recall is against an exact scan of the widest storage.
"""

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from loadtests import corpus
from loadtests.figures import heading, median, percentile, table
from loadtests.prepare import QUERIES, SEED, settings_in
from loadtests.sandbox import Sandbox, sandbox
from loadtests.space import Filled, create
from service.core.collections import CollectionSettings, EmbedderSpec, IndexSettings, Storage
from service.core.ids import DocumentId, Vectors
from service.core.ports.embedder import Encoder
from service.core.ports.vectors import VectorQuery
from service.core.search import DensePlan
from service.core.versions import AuditEntry, EmbedderVersion
from service.runtime.container import components
from service.store.postgres.connection.pool import Pool
from service.store.postgres.vectors import vector_tables
from service.store.postgres.vectors.vectors import PostgresVectors
from service.store.postgres.versions.versions import PostgresVersions

STORAGES: tuple[Storage, ...] = ("halfvec", "vector", "binary", "scalar")
EXACT = DensePlan(kind="exact")
EF_SEARCHES = (40, 100, 200, 400)
LIMIT = 100
"""Chunks that the dense leg of a search asks for."""


@dataclass
class Measured:
    """Of one storage under one plan."""

    seconds: list[float] = field(default_factory=list)
    near: int = 0
    """Of the ten nearest, over all queries."""
    wide: int = 0
    """Of the `LIMIT` nearest."""


async def measure(place: Sandbox, size: int) -> None:
    settings = settings_in(place.folder)
    models = components.model_registry(settings)
    async with components.open_store(settings, place.url, "benchmark") as store:
        spec = models.resolve(EmbedderSpec())
        encoder = await models.get(spec)
        made = await asyncio.to_thread(corpus.build, encoder, QUERIES, SEED)
        queries = await asyncio.to_thread(encoder.encode, made.queries, "query")
        versions = await fill(store.pool, spec, encoder, made, size)
        await build(store.pool, versions)
        await search(store.pool, versions, queries)
    await models.close()


async def fill(
    pool: Pool, spec: EmbedderSpec, encoder: Encoder, made: corpus.Corpus, size: int
) -> Mapping[Storage, EmbedderVersion]:
    """One collection with a version for each storage; every document goes to all of them."""
    space = await create(pool, "storages", CollectionSettings(embedder=spec), encoder, made.queries[:3])
    first, versions = space.version, {STORAGES[0]: space.version}
    for storage in STORAGES[1:]:
        entry = AuditEntry(at=datetime.now(UTC), actor="benchmark", action="registered")
        versions[storage] = await PostgresVersions(pool).register(
            space.collection, spec, first.chunking, IndexSettings(storage=storage), first.identity, first.canary, entry
        )
    for batch, vectors in made.documents(size, SEED):
        for version in versions.values():
            await Filled(pool, space.collection, version).add(batch, vectors)
    return versions


async def build(pool: Pool, versions: Mapping[Storage, EmbedderVersion]) -> None:
    rows = []
    for storage, version in versions.items():
        names = vector_tables.vector_table_of(version)
        started = time.perf_counter()
        await PostgresVersions(pool).build_index(version)
        seconds = time.perf_counter() - started
        async with pool.dedicated() as connection:
            await connection.execute(f"VACUUM ANALYZE {names.table}".encode())
            sizes = "SELECT pg_relation_size(%s::regclass), pg_relation_size(%s::regclass)"
            ((table_bytes, index_bytes),) = await (
                await connection.execute(sizes, (names.table, names.index))
            ).fetchall()
        rows.append([storage, table_bytes / 2**20, index_bytes / 2**20, seconds])
    heading("Table and index in MB, seconds to build the index; ratios to halfvec")
    table(
        ["storage", "table", "ratio", "index", "ratio", "build", "ratio"],
        [
            [name, *(cell for own, base in zip(own_row, rows[0][1:], strict=True) for cell in (own, own / base))]
            for name, *own_row in rows
        ],
    )


async def search(pool: Pool, versions: Mapping[Storage, EmbedderVersion], queries: Vectors) -> None:
    vectors = PostgresVectors(pool)
    plans = [DensePlan(kind="hnsw", ef_search=ef_search) for ef_search in EF_SEARCHES] + [EXACT]
    measured = {(storage, plan): Measured() for plan in plans for storage in versions}

    async def nearest(storage: Storage, plan: DensePlan, query: np.ndarray) -> list[DocumentId]:
        return [one.document_id for one in await vectors.nearest(VectorQuery(versions[storage], query, LIMIT, plan))]

    for storage, plan in measured:  # once to warm up
        await nearest(storage, plan, queries[0])
    for query in queries:
        truth = await nearest("vector", EXACT, query)
        for (storage, plan), own in measured.items():
            started = time.perf_counter()
            found = await nearest(storage, plan, query)
            own.seconds.append(time.perf_counter() - started)
            own.near += len(set(truth[:10]) & set(found[:10]))
            own.wide += len(set(truth) & set(found))
    heading(f"Nearest {LIMIT}, {len(queries)} queries: recall of the exact scan of vector, ms, ratio to halfvec's p50")
    table(
        ["plan", "storage", "recall@10", f"recall@{LIMIT}", "p50", "p95", "ratio"],
        [row(storage, plan, own, measured["halfvec", plan]) for (storage, plan), own in measured.items()],
    )


def row(storage: Storage, plan: DensePlan, own: Measured, base: Measured) -> Sequence[object]:
    asked = len(own.seconds)
    return [
        plan.kind if plan.ef_search is None else f"{plan.kind}, ef_search {plan.ef_search}",
        storage,
        own.near / (10 * asked),
        own.wide / (LIMIT * asked),
        median(own.seconds),
        percentile(own.seconds, 0.95),
        median(own.seconds) / median(base.seconds),
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=20_000)
    chosen = arguments.parse_args()
    with sandbox() as place:
        asyncio.run(measure(place, chosen.documents))


if __name__ == "__main__":
    main()
