from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from service.core.ids import CollectionId, DocumentId, VersionNumber
from service.core.jobs import ClaimedJob, FailedDocument, Job, Lane, QueueStatus
from service.core.versions import EmbedderVersion


class JobQueue(Protocol):
    """Documents that wait for the embedder. A job ends by being stored (`VectorStore.write`) or set aside."""

    async def claim(
        self,
        versions: Sequence[EmbedderVersion],
        limit: int,
        worker: str,
        now: datetime,
        lease: timedelta,
        lane: Lane = "live",
    ) -> tuple[ClaimedJob, ...]:
        """Lease jobs of one lane, oldest first, and commit; then read their documents.

        Collections take turns: none waits for the backlog of another one. Of live writes of a collection, those of the
        active version come first.
        """

    async def extend(self, jobs: Sequence[Job], until: datetime) -> None:
        """Extend the leases that are still held."""

    async def release(self, jobs: Sequence[Job], available: datetime) -> None:
        """Return jobs without counting an attempt: on shutdown, or after errors of the database or the model."""

    async def record_failure(
        self, jobs: Sequence[Job], reason: str, max_attempts: int, now: datetime, available: datetime
    ) -> tuple[DocumentId, ...]:
        """Count a failed attempt of each job; set it aside at `max_attempts`. Returns the documents set aside.

        Runs in its own transaction, after a failure and also before a risky document is tried alone. The lease is
        kept, so that the document can still be stored; else it is available at `available`, and its expired lease is
        not counted again.
        """

    async def status(self, collection_id: CollectionId, version: VersionNumber, now: datetime) -> QueueStatus: ...

    async def failed(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int
    ) -> tuple[FailedDocument, ...]: ...

    async def retry(self, collection_id: CollectionId, now: datetime) -> int:
        """Put all documents that were set aside back, with no attempts. Returns how many."""

    async def unfinished(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        """Those of `ids` that still wait for the version."""

    async def dead_lettered(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        """Those of `ids` that the version could not encode."""
