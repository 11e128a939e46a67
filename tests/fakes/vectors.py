"""Vectors in memory."""

import random
from collections.abc import Mapping, Sequence

import numpy as np

from service.core.filters import matches
from service.core.ids import DocumentId, Vector
from service.core.jobs import EncodedDocument
from service.core.ports.vectors import VectorQuery
from service.core.search import Candidate
from service.core.vector_math import direction
from service.core.versions import EmbedderVersion, VectorSample
from tests.fakes.store import FakeStore, StoredChunk


class FakeVectors:
    """Whatever the plan, the scan is exact."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def write(self, version: EmbedderVersion, encoded: Sequence[EncodedDocument]) -> frozenset[DocumentId]:
        store, space = self._store, self._store.space(version)
        key = (version.collection_id, version.number)
        own = {one.job: one for one in encoded if (one.job.collection_id, one.job.version) == key}
        ours = [job for job, _ in store.held(list(own))]
        for job in ours:
            del store.jobs[job.collection_id, job.document_id, job.version]
            for old in [old for old in space if old[0] == job.document_id]:
                del space[old]
            for chunk, vector in zip(own[job].chunks, own[job].vectors, strict=True):
                space[job.document_id, chunk.number] = StoredChunk(
                    job.content_revision, chunk.start, chunk.end, stored_vector(version, vector)
                )
        return frozenset(job.document_id for job in ours)

    async def nearest(self, query: VectorQuery) -> tuple[Candidate, ...]:
        def passes(document_id: DocumentId) -> bool:
            if query.within is not None:
                return document_id in query.within
            document = self._store.living_one(query.version.collection_id, document_id)
            return query.where is None or (
                document is not None and matches(query.where, document.metadata, document.id)
            )

        ranked = [one for one in self._ranked(query.version, query.vector) if passes(one.document_id)]
        if query.by_document and query.plan.kind == "exact":
            best: dict[DocumentId, Candidate] = {}
            ranked = [one for one in ranked if best.setdefault(one.document_id, one) is one]
        return tuple(ranked)[: query.limit]

    async def score(
        self, version: EmbedderVersion, vector: Vector | None, ids: Sequence[DocumentId], chunks: int = 1
    ) -> tuple[Candidate, ...]:
        best: dict[DocumentId, list[Candidate]] = {id_: [] for id_ in ids}
        rows = sorted(self._store.space(version).items())
        ranked = [candidate_of(*row, 0.0) for row in rows] if vector is None else self._ranked(version, vector)
        for one in ranked:
            if one.document_id in best:
                best[one.document_id].append(one)
        return tuple(one for ranked in best.values() for one in ranked[:chunks])

    async def directions(self, version: EmbedderVersion, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Vector]:
        rows: dict[DocumentId, list[np.ndarray]] = {}
        for (document_id, _), row in self._store.space(version).items():
            document = self._store.living_one(version.collection_id, document_id)
            if document_id in ids and document is not None and document.content_revision == row.content_revision:
                rows.setdefault(document_id, []).append(row.embedding.astype(np.float32))
        means = {document_id: direction(np.mean(own, axis=0)) for document_id, own in rows.items()}
        return {document_id: mean for document_id, mean in means.items() if mean is not None}

    async def get(
        self, version: EmbedderVersion, chunks: Sequence[tuple[DocumentId, int]], revisions: Sequence[int] | None = None
    ) -> Mapping[tuple[DocumentId, int], Vector]:
        space = self._store.space(version)
        return {
            key: _unit(space[key].embedding)
            for at, key in enumerate(chunks)
            if key in space and (revisions is None or revisions[at] == space[key].content_revision)
        }

    async def chunks(self, version: EmbedderVersion, ids: Sequence[DocumentId]) -> tuple[tuple[Candidate, Vector], ...]:
        rows = sorted(self._store.space(version).items())
        return tuple(
            (candidate_of(key, row, 0.0), row.embedding.astype(np.float32)) for key, row in rows if key[0] in ids
        )

    async def sample(self, version: EmbedderVersion, size: int) -> VectorSample:
        space = self._store.space(version)
        chunks = random.sample(sorted(space), min(size, len(space)))
        rows = [_unit(space[key].embedding) for key in chunks]
        return VectorSample(
            chunks=tuple(chunks),
            vectors=np.stack(rows) if rows else np.empty((0, version.dimensions), np.float32),
            places=tuple(candidate_of(key, space[key], 1.0) for key in chunks),
        )

    def _ranked(self, version: EmbedderVersion, vector: Vector) -> list[Candidate]:
        query = _unit(stored_vector(version, vector))
        space = self._store.space(version)
        candidates = [candidate_of(key, row, float(_unit(row.embedding) @ query)) for key, row in space.items()]
        return sorted(candidates, key=lambda one: -one.score)


def candidate_of(key: tuple[DocumentId, int], row: StoredChunk, score: float) -> Candidate:
    document_id, chunk = key
    return Candidate(
        document_id=document_id,
        content_revision=row.content_revision,
        score=score,
        chunk=chunk,
        start=row.start,
        end=row.end,
    )


def _unit(vector: np.ndarray) -> Vector:
    wide = vector.astype(np.float32)
    unit: Vector = wide / np.linalg.norm(wide)
    return unit


def stored_vector(version: EmbedderVersion, vector: np.ndarray) -> np.ndarray:
    return vector.astype(np.float32 if version.index.storage == "vector" else np.float16)
