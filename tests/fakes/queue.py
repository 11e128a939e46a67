"""The queue in memory."""

import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from service.core.ids import CollectionId, DocumentId, VersionNumber
from service.core.jobs import ClaimedJob, FailedDocument, Job, Lane, QueueStatus
from service.core.versions import EmbedderVersion
from tests.fakes.store import FakeStore, Waiting


class FakeQueue:
    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._leases = itertools.count(1)

    async def claim(
        self,
        versions: Sequence[EmbedderVersion],
        limit: int,
        worker: str,
        now: datetime,
        lease: timedelta,
        lane: Lane = "live",
    ) -> tuple[ClaimedJob, ...]:
        store, ticket = self._store, f"00000000-0000-0000-0000-{next(self._leases):012d}"
        spaces = {(version.collection_id, version.number) for version in versions}
        priorities = {"live": (0, 1), "backfill": (2,)}[lane]
        available = [
            (key, waiting)
            for key, waiting in store.jobs.items()
            if (key[0], key[2]) in spaces
            and waiting.priority in priorities
            and waiting.set_aside_at is None
            and waiting.available_at <= now
        ]
        available.sort(key=lambda item: (item[1].priority, item[1].enqueued_at, item[0][1].encode()))
        turns: Counter[CollectionId] = Counter()
        by_turn = []
        for key, waiting in available:
            turns[key[0]] += 1
            by_turn.append((turns[key[0]], key, waiting))
        by_turn.sort(key=lambda turn: turn[0])
        claimed = []
        for _, (collection_id, document_id, number), waiting in by_turn[:limit]:
            document = store.living_one(collection_id, document_id)
            if document is None or document.content_revision != waiting.content_revision:
                del store.jobs[collection_id, document_id, number]
                continue
            waiting.lost_leases += waiting.worker not in (None, worker)
            waiting.lease, waiting.worker, waiting.available_at = ticket, worker, now + lease
            job = Job(
                collection_id=collection_id,
                document_id=document_id,
                version=number,
                content_revision=waiting.content_revision,
                attempts=waiting.attempts,
                lease=ticket,
            )
            image = self._store.images.get((job.collection_id, job.document_id)) if document.image else None
            shown = None if image is None else image.preview
            claimed.append(ClaimedJob(job=job, document=document, lost_leases=waiting.lost_leases, image=shown))
        return tuple(claimed)

    async def extend(self, jobs: Sequence[Job], until: datetime) -> None:
        for _, waiting in self._store.held(jobs):
            waiting.available_at = until

    async def release(self, jobs: Sequence[Job], available: datetime) -> None:
        for _, waiting in self._store.held(jobs):
            waiting.lease, waiting.worker, waiting.available_at = None, None, available

    async def record_failure(
        self, jobs: Sequence[Job], reason: str, max_attempts: int, now: datetime, available: datetime
    ) -> tuple[DocumentId, ...]:
        gone = []
        for job, waiting in self._store.held(jobs):
            waiting.attempts += 1
            waiting.reason, waiting.worker, waiting.available_at = reason, None, available
            if waiting.attempts >= max_attempts:
                waiting.lease, waiting.set_aside_at = None, now
                gone.append(job.document_id)
        return tuple(gone)

    def _of(self, collection_id: CollectionId) -> dict[tuple[DocumentId, VersionNumber], Waiting]:
        return {key[1:]: waiting for key, waiting in self._store.jobs.items() if key[0] == collection_id}

    async def status(self, collection_id: CollectionId, version: VersionNumber, now: datetime) -> QueueStatus:
        jobs = [job for (_, number), job in self._of(collection_id).items() if number == version]
        since = [job.enqueued_at for job in jobs if job.set_aside_at is None]
        oldest = (now - min(since, default=now)).total_seconds()
        return QueueStatus(pending=len(since), failed=len(jobs) - len(since), oldest_seconds=max(0.0, oldest))

    async def failed(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int
    ) -> tuple[FailedDocument, ...]:
        latest = {
            document_id: FailedDocument(
                id=document_id, version=number, attempts=job.attempts, reason=job.reason, failed_at=job.set_aside_at
            )
            for (document_id, number), job in sorted(self._of(collection_id).items(), key=lambda item: item[0][1])
            if job.set_aside_at is not None and document_id.encode() > (after or "").encode()
        }
        return tuple(sorted(latest.values(), key=lambda one: one.id.encode()))[:limit]

    async def retry(self, collection_id: CollectionId, now: datetime) -> int:
        failed = [(key, job) for key, job in self._of(collection_id).items() if job.set_aside_at is not None]
        for (document_id, number), job in failed:
            fresh = Waiting(job.content_revision, job.enqueued_at, now, job.priority)
            self._store.jobs[collection_id, document_id, number] = fresh
        return len(failed)

    async def unfinished(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        jobs = self._of(collection_id)
        return tuple(id_ for id_ in ids if (job := jobs.get((id_, version))) and job.set_aside_at is None)

    async def dead_lettered(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        jobs = self._of(collection_id)
        return tuple(id_ for id_ in ids if (job := jobs.get((id_, version))) and job.set_aside_at is not None)
