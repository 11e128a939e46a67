"""The queue in PostgreSQL: a table claimed with SKIP LOCKED. Adapter of `ports.Queue`.

Every method is one statement in a transaction of its own: a lease, a charge or a release is committed when it returns.
`available_at` is also the end of the lease, so that what a dead worker held becomes available by itself.

    priority   lane
    0          live       just written, for the active version
    1          live       just written, for another version
    2          backfill   was there before the version was (`backfills.py`)
    3                     waits for the client, who brings the vectors of this version: nothing that a worker could do
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString

from psycopg import sql
from psycopg.rows import class_row

from service.core.documents import StoredDocument
from service.core.ids import CollectionId, DocumentId, VersionNumber
from service.core.jobs import ClaimedJob, FailedDocument, Job, Lane, QueueStatus
from service.core.versions import EmbedderVersion
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection, Pool, retrying
from service.store.postgres.rows import stored

SQL = sql_files.load("queue")

MAX_REASON_LENGTH = 1_000

LANES: Mapping[Lane, tuple[int, int]] = {"live": (0, 1), "backfill": (2, 2)}
"""The first and the last priority of each lane."""

OVERWRITE = sql.SQL(SQL.overwrite)
"""How whoever enqueues takes the place of an earlier job."""

_ENQUEUE = sql.SQL(SQL.enqueue).format(overwrite=OVERWRITE)
_HELD = sql.SQL(SQL.held)
_FINISH = sql.SQL(SQL.finish).format(held=_HELD)
_EXTEND = sql.SQL(SQL.extend).format(held=_HELD)
_RELEASE = sql.SQL(SQL.release).format(held=_HELD)
_CHARGE = sql.SQL(SQL.record_failure).format(held=_HELD)
_DROP_OUTDATED = sql.SQL(SQL.drop_outdated).format(held=_HELD)


class PostgresQueue:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(
        self,
        versions: Sequence[EmbedderVersion],
        limit: int,
        worker: str,
        now: datetime,
        lease: timedelta,
        lane: Lane = "live",
    ) -> tuple[ClaimedJob, ...]:
        """As the port says. A job whose content has been replaced since stays with its new content for the next claim.

        A job is ended where its document is gone, or is of other content although the job is still ours: a backfill
        enqueues what it saw a moment ago, and meanwhile that content was replaced and the new one encoded by the job
        of whoever replaced it.
        """
        ticket = str(uuid.uuid4())
        first, last = LANES[lane]
        arguments = {
            "spaces": [f"{version.collection_id}/{version.number}" for version in versions],
            "first": first,
            "last": last,
            "limit": limit,
            "lease": ticket,
            "worker": worker,
            "now": now,
            "until": now + lease,
        }
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(SQL.claim, arguments, prepare=False)).fetchall()
            jobs = [
                Job(
                    collection_id=collection_id,
                    document_id=document_id,
                    version=version,
                    content_revision=content_revision,
                    attempts=attempts,
                    lease=ticket,
                )
                for collection_id, document_id, version, content_revision, attempts, _ in rows
            ]
            lost_leases = [row[-1] for row in rows]
            if not jobs:
                return ()
            documents = await _documents(connection, jobs)
            claimed = tuple(
                ClaimedJob(job=job, document=document, lost_leases=lost)
                for job, lost in zip(jobs, lost_leases, strict=True)
                if (document := documents.get((job.collection_id, job.document_id))) is not None
                and document.content_revision == job.content_revision
            )
            if len(claimed) < len(jobs):
                useful = {one.job for one in claimed}
                await connection.execute(_DROP_OUTDATED, _named([job for job in jobs if job not in useful]))
        return claimed

    async def extend(self, jobs: Sequence[Job], until: datetime) -> None:
        await self._run(_EXTEND, jobs, {"until": until})

    async def release(self, jobs: Sequence[Job], available: datetime) -> None:
        await self._run(_RELEASE, jobs, {"available": available})

    async def record_failure(
        self, jobs: Sequence[Job], reason: str, max_attempts: int, now: datetime, available: datetime
    ) -> tuple[DocumentId, ...]:
        arguments = {
            "reason": reason.replace("\0", "").encode(errors="replace").decode()[:MAX_REASON_LENGTH],
            "max_attempts": max_attempts,
            "now": now,
            "available": available,
        }
        rows = await self._run(_CHARGE, jobs, arguments)
        return tuple(id_ for id_, dead_lettered in rows if dead_lettered)

    async def status(self, collection_id: CollectionId, version: VersionNumber, now: datetime) -> QueueStatus:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL.status, {"collection_id": collection_id, "version": version})
            ((pending, failed, oldest),) = await cursor.fetchall()
        age = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
        return QueueStatus(pending=pending, failed=failed, oldest_seconds=age)

    async def failed(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int
    ) -> tuple[FailedDocument, ...]:
        """As the port says; a document that failed in several versions is told for the newest."""
        arguments = {"collection_id": collection_id, "after": after or "", "limit": limit}
        async with (
            self._pool.connection() as connection,
            connection.cursor(row_factory=class_row(FailedDocument)) as cursor,
        ):
            await cursor.execute(SQL.failed, arguments)
            return tuple(await cursor.fetchall())

    async def retry(self, collection_id: CollectionId, now: datetime) -> int:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL.retry, {"collection_id": collection_id, "now": now})
            return cursor.rowcount

    async def unfinished(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        return await self._among(SQL.unfinished, collection_id, version, ids)

    async def dead_lettered(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        return await self._among(SQL.dead_lettered, collection_id, version, ids)

    async def _among(
        self, query: LiteralString, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        arguments = {"collection_id": collection_id, "version": version, "ids": list(ids)}
        async with self._pool.connection() as connection:
            found = {row[0] for row in await (await connection.execute(query, arguments)).fetchall()}
        return tuple(id_ for id_ in ids if id_ in found)

    async def _run(self, query: sql.Composed, jobs: Sequence[Job], arguments: Mapping[str, Any]) -> list[Any]:
        async def run() -> list[Any]:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(query, {**_named(jobs), **arguments})
                return await cursor.fetchall() if cursor.description else []

        return await retrying(run) if jobs else []


# ---------------------------------------------------------------- parts of other modules' transactions


async def enqueue(
    connection: Connection, collection_id: CollectionId, content_revisions: Mapping[DocumentId, int], now: datetime
) -> None:
    """Ask for the vectors of these documents in every version that is written, before all that is only filled."""
    arguments = {
        "collection_id": collection_id,
        "ids": list(content_revisions),
        "content_revisions": list(content_revisions.values()),
        "now": now,
    }
    await connection.execute(_ENQUEUE, arguments)


async def forget(connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId]) -> None:
    """End the jobs of deleted documents."""
    await connection.execute(SQL.forget, {"collection_id": collection_id, "ids": list(ids)})


async def finish(connection: Connection, jobs: Sequence[Job]) -> frozenset[Job]:
    """End those of these jobs of one version that are still leased to whoever holds them: only these may be stored."""
    rows = await (await connection.execute(_FINISH, _named(jobs))).fetchall()
    ended = {(document_id, str(lease)) for document_id, lease in rows}
    return frozenset(job for job in jobs if (job.document_id, job.lease) in ended)


async def _documents(
    connection: Connection, jobs: Sequence[Job]
) -> dict[tuple[CollectionId, DocumentId], StoredDocument]:
    cursor = await connection.execute(
        SQL.documents,
        {"collections": [job.collection_id for job in jobs], "ids": [job.document_id for job in jobs]},
    )
    return {(row[0], row[1]): stored(*row[1:]) for row in await cursor.fetchall()}


def _named(jobs: Sequence[Job]) -> dict[str, list[Any]]:
    return {
        "collections": [job.collection_id for job in jobs],
        "ids": [job.document_id for job in jobs],
        "versions": [job.version for job in jobs],
        "content_revisions": [job.content_revision for job in jobs],
        "leases": [job.lease for job in jobs],
    }
