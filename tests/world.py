"""One collection with everything that stores it, in memory or in PostgreSQL, and short words for what is done to it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from service.core.collections import Collection, CollectionSettings
from service.core.documents import Accepted, Chunk, Document, StoredDocument
from service.core.ids import CollectionName, DocumentId, Vector, VersionNumber
from service.core.ids import Vectors as VectorArray
from service.core.jobs import ClaimedJob, EncodedDocument
from service.core.ports.documents import Documents
from service.core.versions import EmbedderIdentity, EmbedderVersion, VersionState
from service.store.postgres.connection.pool import Pool
from service.store.postgres.store import Store
from service.store.postgres.versions import version_transitions
from tests.fakes import FakeAdapters

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=60)
DIMENSIONS = 4

Adapters = Store | FakeAdapters


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def doc(name: str, text: str | None = None, title: str = "", **metadata: Any) -> Document:
    return Document(
        id=DocumentId(name), title=title, text=f"text of {name}" if text is None else text, metadata=metadata
    )


def unit(*values: float) -> Vector:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def encoded(
    claimed: ClaimedJob, vectors: VectorArray | None = None, pieces: Sequence[str] | None = None
) -> EncodedDocument:
    """Finished work: one chunk a piece (default: the whole text) with the given rows, or rows made of the text."""
    texts = [claimed.document.text] if pieces is None else pieces
    chunks, at = [], 0
    for number, text in enumerate(texts):
        chunks.append(Chunk(number=number, start=at, end=at + len(text), text=text, tokens=1))
        at += len(text)
    rows = np.stack([telling(text) for text in texts]) if vectors is None else vectors
    return EncodedDocument(job=claimed.job, chunks=tuple(chunks), vectors=rows)


def telling(text: str) -> Vector:
    """A vector that gives its text away: different texts, different directions."""
    generator = np.random.default_rng(list(text.encode()))
    return unit(*generator.normal(size=DIMENSIONS))


@dataclass
class World:
    adapters: Adapters
    collection: Collection
    version: EmbedderVersion
    pool: Pool | None
    """None in memory."""

    def __post_init__(self) -> None:
        adapters = self.adapters
        self.fake = adapters.store if isinstance(adapters, FakeAdapters) else None
        self.documents: Documents = adapters.documents
        self.collections, self.versions, self.processes = adapters.collections, adapters.versions, adapters.processes
        self.queue, self.vectors, self.changes = adapters.queue, adapters.vectors, adapters.changes
        self.audit, self.test_sets, self.recalls = adapters.audit, adapters.test_sets, adapters.recalls

    async def put(self, *documents: Document, now: datetime = NOW) -> tuple[Accepted, ...]:
        return await self.documents.put(self.collection.id, documents, now)

    async def delete(self, *names: str, now: datetime = NOW) -> tuple[DocumentId, ...]:
        return await self.documents.delete(self.collection.id, [DocumentId(name) for name in names], now)

    async def get(self, name: str) -> StoredDocument:
        return (await self.documents.get(self.collection.id, [DocumentId(name)]))[DocumentId(name)]

    async def claim(self, limit: int = 100, worker: str = "w1", now: datetime = NOW) -> tuple[ClaimedJob, ...]:
        return await self.queue.claim([self.version], limit, worker, now, LEASE)

    async def store(self, *work: EncodedDocument) -> frozenset[DocumentId]:
        return await self.vectors.write(self.version, work)

    async def drain(self, now: datetime = NOW) -> None:
        """Encode everything that can be claimed."""
        while claimed := await self.claim(now=now):
            await self.store(*map(encoded, claimed))

    async def put_and_store(self, rows: Mapping[str, VectorArray], **metadata: Any) -> None:
        """Documents with given vectors, a chunk of ten code points a row."""
        await self.put(*(doc(name, "0123456789" * len(vectors), **metadata) for name, vectors in rows.items()))
        work = [
            encoded(one, rows[one.job.document_id], ["0123456789"] * len(rows[one.job.document_id]))
            for one in await self.claim(limit=len(rows))
        ]
        assert len(await self.store(*work)) == len(rows)

    @property
    def database(self) -> Pool:
        assert self.pool is not None
        return self.pool

    async def execute(self, query: str, *values: object) -> None:
        await self.database.execute(query.encode(), values)

    async def rows(self, query: str) -> list[Any]:
        return await self.database.fetch_all(query.encode())

    async def stored_chunks(self, version: EmbedderVersion | None = None) -> dict[tuple[str, int], int]:
        """(document, chunk) -> content revision, as the space holds it."""
        version = version or self.version
        if self.fake is not None:
            return {key: row.content_revision for key, row in self.fake.space(version).items()}
        rows = await self.rows(
            f"SELECT document_id, chunk, content_revision FROM vectors_{version.collection_id}_{version.number}"
        )
        assert len(rows) == len({row[:2] for row in rows})
        return {(name, chunk): revision for name, chunk, revision in rows}

    async def add_version(self, number: int, state: VersionState, **changes: Any) -> EmbedderVersion:
        """Another embedder version of the collection, like the first but for these fields."""
        version = dataclasses.replace(self.version, number=VersionNumber(number), state=state, **changes)
        if self.fake is not None:
            self.fake.collections.versions[self.collection.id].append(version)
            return version
        async with self.database.transaction() as connection:
            await version_transitions.insert(connection, version)
        return version


async def build(pool: Pool | None, *, dimensions: int = DIMENSIONS) -> World:
    """A new collection with an active version 1; in memory where there is no pool."""
    adapters: Adapters = Store(pool) if pool is not None else FakeAdapters()
    collections, versions = adapters.collections, adapters.versions
    identity = EmbedderIdentity(parts={"weights": "test"}, dimensions=dimensions, max_tokens=256)
    name = CollectionName(f"c{len(await collections.all())}")
    canary = {"text": (1.0,) * dimensions}
    collection = await collections.create(name, CollectionSettings(), identity, canary, NOW)
    (version,) = await versions.of(collection.id)
    return World(adapters, collection, version, pool)
