"""Backfills in memory. There is no cursor: each call looks at every document, so nothing can be missed."""

from collections import Counter
from datetime import datetime

from service.core.documents import StoredDocument
from service.core.errors import VersionNotFound
from service.core.ids import DocumentId, VersionNumber
from service.core.versions import BackfillStatus, Completeness, EmbedderVersion, Progress, VersionState
from service.store.postgres.versions import backfill_rate
from tests.fakes.store import FakeStore, Waiting


class FakeBackfills:
    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._enqueued: Counter[object] = Counter()
        self._notes: dict[object, backfill_rate.Samples] = {}

    async def advance(self, version: EmbedderVersion, now: datetime, window: int) -> BackfillStatus:
        self._backfilling(version)
        store, key = self._store, (version.collection_id, version.number)
        priority = 3 if version.spec.external else 2
        for document_id, job in self._jobs(version).items():
            document = store.living_one(version.collection_id, document_id)
            if version.spec.external and (document is None or document.content_revision != job.content_revision):
                del store.jobs[version.collection_id, document_id, version.number]
        for document in self._lacking(version)[: max(0, window - self._waiting(version))]:
            job = Waiting(document.content_revision, now, now, priority)
            store.jobs[version.collection_id, document.id, version.number] = job
            self._enqueued[key] += 1
        return BackfillStatus(
            enqueued=self._enqueued[key], waiting=self._waiting(version), everything=not self._lacking(version)
        )

    async def restart(self, version: EmbedderVersion) -> None:
        self._backfilling(version)
        space = self._store.space(version)
        living = {document.id for document in self._store.living(version.collection_id)}
        for chunk in [chunk for chunk in space if chunk[0] not in living]:
            del space[chunk]
        self._enqueued.pop((version.collection_id, version.number), None)
        self._notes.pop((version.collection_id, version.number), None)

    async def progress(self, version: EmbedderVersion, now: datetime) -> Progress:
        version = self._present(version)
        if version.state is VersionState.RETIRED:
            return Progress(done=0, total=0, failed=0)
        if version.state is VersionState.INDEXING:
            status = await self._store.versions.status(version)
            return Progress(done=status.rows if status.indexed else 0, total=status.rows, failed=0)
        total, done, failed = self._counted(version)
        if version.state is not VersionState.BACKFILLING or version.paused:
            return Progress(done=done, total=total, failed=failed)
        notes = self._notes.get((version.collection_id, version.number), ())
        return backfill_rate.backfill_progress(notes, now.timestamp(), done=done, total=total, failed=failed)

    async def record_progress(self, version: EmbedderVersion, now: datetime) -> None:
        key, at = (version.collection_id, version.number), now.timestamp()
        notes = self._notes.get(key, ())
        present = self._present(version)
        if present.state is VersionState.BACKFILLING and not present.paused and backfill_rate.is_due(notes, at):
            self._notes[key] = backfill_rate.add_sample(notes, at, self._counted(version)[1])

    async def completeness(self, version: EmbedderVersion) -> Completeness:
        if self._present(version).state is VersionState.RETIRED:
            raise VersionNotFound
        active_version = self._store.collections.rows[version.collection_id].active_version
        jobs, active = self._jobs(version), self._jobs(version, active_version)
        wanted = {
            (document.id, document.content_revision)
            for document in self._store.living(version.collection_id)
            if document.id not in jobs
        }
        stored = {
            (document_id, row.content_revision)
            for (document_id, chunk), row in self._store.space(version).items()
            if chunk == 0 and document_id not in jobs
        }
        pending = {id_: job for id_, job in jobs.items() if job.set_aside_at is None}
        given_up_there = {id_ for id_, job in active.items() if job.set_aside_at is not None}
        return Completeness(
            documents=len(wanted),
            stored=len(stored),
            documents_checksum=str(sorted(wanted)),
            stored_checksum=str(sorted(stored)),
            waiting=sum(job.priority >= 2 for job in pending.values()),
            failed=len(jobs.keys() - pending.keys() - given_up_there),
            behind=sum(job.priority < 2 and id_ not in active for id_, job in pending.items()),
        )

    def _present(self, version: EmbedderVersion) -> EmbedderVersion:
        return self._store.collections.version(version.collection_id, version.number)

    def _backfilling(self, version: EmbedderVersion) -> None:
        if self._present(version).state is not VersionState.BACKFILLING:
            raise VersionNotFound

    def _jobs(self, version: EmbedderVersion, number: VersionNumber | None = None) -> dict[DocumentId, Waiting]:
        """Of the version, or of that with this number."""
        space = (version.collection_id, number or version.number)
        return {key[1]: job for key, job in self._store.jobs.items() if (key[0], key[2]) == space}

    def _waiting(self, version: EmbedderVersion) -> int:
        return sum(job.priority >= 2 and job.set_aside_at is None for job in self._jobs(version).values())

    def _lacking(self, version: EmbedderVersion) -> list[StoredDocument]:
        """Living documents with neither vectors of their present content nor a job for it."""
        space, jobs = self._store.space(version), self._jobs(version)
        return [
            document
            for document in self._store.living(version.collection_id)
            if (row := space.get((document.id, 0))) is None or row.content_revision != document.content_revision
            if (job := jobs.get(document.id)) is None or job.content_revision < document.content_revision
        ]

    def _counted(self, version: EmbedderVersion) -> tuple[int, int, int]:
        """All documents, those that are done, those that were set aside."""
        jobs = self._jobs(version)
        living = {document.id for document in self._store.living(version.collection_id)}
        lacking = {document.id for document in self._lacking(version)}
        failed = sum(job.set_aside_at is not None for job in jobs.values())
        return len(living), len(living - lacking - jobs.keys()), failed
