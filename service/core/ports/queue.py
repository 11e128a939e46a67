"""Port of the queue of documents that wait for an embedder."""

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
    ) -> tuple["ClaimedJob", ...]:
        """Lease jobs of one lane and commit at once, then read their documents. Old before new.

        Of live writes those of the active version come first.
        """
        ...

    async def extend(self, jobs: Sequence[Job], until: datetime) -> None:
        """Heartbeat: keep the leases that are still ours."""
        ...

    async def release(self, jobs: Sequence[Job], available: datetime) -> None:
        """Give back uncharged (shutdown, trouble of the database or of the model)."""
        ...

    async def record_failure(
        self, jobs: Sequence[Job], reason: str, max_attempts: int, now: datetime, available: datetime
    ) -> tuple[DocumentId, ...]:
        """Count a failed attempt against each; at `max_attempts` it is set aside. Answers those set aside.

        Runs in a transaction of its own, before a risky document is tried alone as well as after it failed. The lease
        is kept, so that a document charged beforehand can still be stored; otherwise it comes back at `available`,
        and that its lease ran out is not counted as lost once more.
        """
        ...

    async def status(self, collection_id: CollectionId, version: VersionNumber, now: datetime) -> QueueStatus: ...

    async def failed(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int
    ) -> tuple[FailedDocument, ...]: ...

    async def retry(self, collection_id: CollectionId, now: datetime) -> int:
        """Put everything that was set aside back, with its attempts forgotten. Answers how many."""
        ...

    async def unfinished(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        """Those of `ids` that the version has not encoded yet and that were not set aside."""
        ...

    async def dead_lettered(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        """Those of `ids` that the version could not encode."""
        ...
