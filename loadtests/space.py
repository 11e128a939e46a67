"""A collection made through the adapters of the store: documents with given vectors, as a worker leaves them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from service.core.collections import Collection, CollectionSettings
from service.core.documents import Chunk, Document
from service.core.ids import CollectionName
from service.core.ids import Vectors as VectorArray
from service.core.jobs import EncodedDocument
from service.core.ports.embedder import Encoder
from service.core.versions import EmbedderVersion
from service.store.postgres.collections import PostgresCollections
from service.store.postgres.connection.pool import Pool
from service.store.postgres.documents import PostgresDocuments
from service.store.postgres.queue import PostgresQueue
from service.store.postgres.vectors.vectors import PostgresVectors
from service.store.postgres.versions.versions import PostgresVersions

BATCH = 1_000
LEASE = timedelta(minutes=5)


@dataclass
class Filled:
    pool: Pool
    collection: Collection
    version: EmbedderVersion

    async def add(self, documents: Sequence[Document], vectors: VectorArray) -> None:
        """One chunk a document, its vector in the row of the same number."""
        store, queue, space = PostgresDocuments(self.pool), PostgresQueue(self.pool), PostgresVectors(self.pool)
        now = datetime.now(UTC)
        for start in range(0, len(documents), BATCH):
            batch = documents[start : start + BATCH]
            await store.put(self.collection.id, batch, now)
            rows = dict(zip((document.id for document in batch), vectors[start : start + BATCH], strict=True))
            claimed = await queue.claim([self.version], BATCH, "benchmark", now, LEASE)
            await space.write(
                self.version,
                [
                    EncodedDocument(
                        job=one.job,
                        chunks=(Chunk(number=0, start=0, end=len(one.document.text), text="", tokens=1),),
                        vectors=rows[one.job.document_id][None, :],
                    )
                    for one in claimed
                ],
            )

    async def run(self, statements: Iterable[str]) -> None:
        """Upkeep that PostgreSQL would get to by itself later."""
        async with self.pool.dedicated() as connection:
            for statement in statements:
                await connection.execute(statement.encode())


async def create(pool: Pool, name: str, settings: CollectionSettings, encoder: Encoder, texts: Sequence[str]) -> Filled:
    """A collection whose version 1 is `encoder`, which gives the canary vectors of `texts`."""
    collections = PostgresCollections(pool)
    canary = {text: tuple(map(float, row)) for text, row in zip(texts, encoder.encode(texts, "document"), strict=True)}
    collection = await collections.create(CollectionName(name), settings, encoder.identity, canary, datetime.now(UTC))
    (version,) = await PostgresVersions(pool).of(collection.id)
    return Filled(pool, collection, version)


def clustered(count: int, dimensions: int, seed: int, per_cluster: int = 50) -> VectorArray:
    """Unit vectors around centres, most of the variance in few directions, as in the spaces of text embedders."""
    generator = np.random.default_rng(seed)
    spectrum = 1.0 / np.sqrt(1.0 + np.arange(dimensions) / 16.0)
    centres = generator.normal(size=(max(1, count // per_cluster), dimensions)) * spectrum
    noise = generator.normal(size=(count, dimensions)) * spectrum
    vectors = centres[generator.integers(len(centres), size=count)] + 0.8 * noise
    units: VectorArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return units
