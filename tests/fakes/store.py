"""The tables of PostgreSQL in memory."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from service.core.change_feed import record_revision
from service.core.documents import StoredDocument
from service.core.errors import CollectionNotFound, VersionNotFound
from service.core.ids import CollectionId, DocumentId, VersionNumber
from service.core.images import Image
from service.core.jobs import Job
from service.core.versions import EmbedderVersion, VersionState
from tests.fakes.collections import FakeCollections
from tests.fakes.versions import FakeVersions


@dataclass
class Row:
    """A document or, where `document` is None, its tombstone."""

    document: StoredDocument | None
    revision: int


@dataclass
class Waiting:
    """A job: `lease` None is free, `set_aside_at` None is not given up. `priority` as `store/queue.py` tells them."""

    content_revision: int
    enqueued_at: datetime
    available_at: datetime
    priority: int = 0
    lease: str | None = None
    worker: str | None = None
    lost_leases: int = 0
    attempts: int = 0
    reason: str = ""
    set_aside_at: datetime | None = None


@dataclass
class StoredChunk:
    """One chunk as it is stored, in the precision of its version's storage."""

    content_revision: int
    start: int
    end: int
    embedding: np.ndarray


class FakeStore:
    """What PostgreSQL holds. `collections` knows which there are and which versions of them are written."""

    def __init__(self, collections: FakeCollections | None = None) -> None:
        self.collections = collections or FakeCollections()
        self.versions = FakeVersions(self.collections, self)
        self.documents: dict[tuple[CollectionId, DocumentId], Row] = {}
        self.images: dict[tuple[CollectionId, DocumentId], Image | None] = {}
        self.jobs: dict[tuple[CollectionId, DocumentId, VersionNumber], Waiting] = {}
        self.vectors: dict[tuple[CollectionId, VersionNumber], dict[tuple[DocumentId, int], StoredChunk]] = {}
        self.changes: dict[tuple[CollectionId, DocumentId], tuple[int, datetime]] = {}
        self.index_marks: dict[tuple[CollectionId, str], tuple[str, str]] = {}
        self._transactions = itertools.count(1)
        self.last_xid = 0

    def begin(self, collection_id: CollectionId) -> int:
        """The id of a new transaction that writes to a collection."""
        if collection_id not in self.collections.rows:
            raise CollectionNotFound
        self.last_xid = next(self._transactions)
        record_revision(self.last_xid)
        return self.last_xid

    def living(self, collection_id: CollectionId) -> Iterator[StoredDocument]:
        for (owner, _), row in sorted(self.documents.items(), key=lambda item: item[0][1].encode()):
            if owner == collection_id and row.document is not None:
                yield row.document

    def living_one(self, collection_id: CollectionId, document_id: DocumentId) -> StoredDocument | None:
        row = self.documents.get((collection_id, document_id))
        return None if row is None else row.document

    def space(self, version: EmbedderVersion) -> dict[tuple[DocumentId, int], StoredChunk]:
        if self.collections.version(version.collection_id, version.number).state is VersionState.RETIRED:
            raise VersionNotFound
        return self.vectors.setdefault((version.collection_id, version.number), {})

    def priority(self, version: EmbedderVersion) -> int:
        """Of a document that was just written."""
        if version.spec.external:
            return 3
        return 0 if version.number == self.collections.rows[version.collection_id].active_version else 1

    def held(self, jobs: Sequence[Job]) -> list[tuple[Job, Waiting]]:
        """Those of the jobs that are still leased to whoever names them, for the same content."""
        pairs = ((job, self.jobs.get((job.collection_id, job.document_id, job.version))) for job in jobs)
        return [
            (job, waiting)
            for job, waiting in pairs
            if waiting and waiting.lease == job.lease and waiting.content_revision == job.content_revision
        ]
