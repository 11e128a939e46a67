"""The queue in PostgreSQL: a table from which jobs are claimed with SKIP LOCKED.

Every method is a transaction of its own: a lease, a failure or a release is committed when it returns.
`available_at` is also the end of the lease, so that the jobs of a dead worker become available by themselves.

    priority   lane
    0          live       just written, for the active version
    1          live       just written, for another version
    2          backfill   was there before the version was (`backfills.py`)
    3                     waits for the client, who brings the vectors of this version: no worker claims it
"""

import math
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, LiteralString

from psycopg import sql

from service.core.ids import CollectionId, DocumentId, VersionNumber
from service.core.jobs import ClaimedJob, FailedDocument, Job, Lane, QueueStatus
from service.core.versions import EmbedderVersion
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Adapter, Connection, retrying
from service.store.postgres.rows import document_of

SQL = sql_files.load("queue")

MAX_REASON_LENGTH = 1_000

_JOB = ("collection_id", "document_id", "version", "content_revision", "attempts")

LANES: Mapping[Lane, tuple[int, int]] = {"live": (0, 1), "backfill": (2, 2)}
"""The first and the last priority of each lane."""

OVERWRITE = sql.SQL(SQL.overwrite)
"""How a new job replaces an earlier one of the same document and version."""

_ENQUEUE = sql.SQL(SQL.enqueue).format(overwrite=OVERWRITE)
_FINISH, _EXTEND, _RELEASE, _RECORD_FAILURE, _DROP_OUTDATED = (
    sql.SQL(query).format(held=sql.SQL(SQL.held))
    for query in (SQL.finish, SQL.extend, SQL.release, SQL.record_failure, SQL.drop_outdated)
)


class PostgresQueue(Adapter):
    """Adapter of `ports.JobQueue`."""

    async def claim(
        self,
        versions: Sequence[EmbedderVersion],
        limit: int,
        worker: str,
        now: datetime,
        lease: timedelta,
        lane: Lane = "live",
    ) -> tuple[ClaimedJob, ...]:
        """Collections take turns: none waits for the backlog of another one.

        A job whose content has been replaced since stays, with its new content, for the next claim.

        A job is deleted where its document is gone, or has other content although the job is still ours: a backfill
        enqueues what it read a moment ago, and meanwhile that content was replaced and the new content has its own job.
        """
        ticket = str(uuid.uuid4())
        first, last = LANES[lane]
        values = {
            "spaces": [f"{version.collection_id}/{version.number}" for version in versions],
            "first": first,
            "last": last,
            "lease": ticket,
            "worker": worker,
            "now": now,
            "until": now + lease,
        }
        # One transaction: a lease whose documents could not be read would seem to have been lost by a worker that died.
        async with self._pool.transaction() as connection:
            rows: list[tuple[Any, ...]] = []
            waiting = list(dict.fromkeys(version.collection_id for version in versions))
            while waiting and len(rows) < limit:
                wanted = limit - len(rows)
                share = math.ceil(wanted / len(waiting))
                turn = values | {"collections": waiting, "share": share, "limit": wanted}
                taken = await connection.fetch_all(SQL.claim, turn, prepare=False)
                rows += taken
                counts = Counter(row[0] for row in taken)
                waiting = [collection for collection in waiting if counts[collection] == share]
            if not rows:
                return ()
            keys = {"collections": [row[0] for row in rows], "ids": [row[1] for row in rows]}
            found = await connection.fetch_all(SQL.documents, keys)
            documents = {(row[0], row[1]): (document_of(row[1:-1]), row[-1]) for row in found}
            claimed, outdated = [], []
            for *columns, lost_leases in rows:
                job = Job(**dict(zip(_JOB, columns, strict=True)), lease=ticket)
                document, image = documents.get((job.collection_id, job.document_id), (None, None))
                if document is None or document.content_revision != job.content_revision:
                    outdated.append(job)
                else:
                    claimed.append(ClaimedJob(job=job, document=document, lost_leases=lost_leases, image=image))
            if outdated:
                await connection.execute(_DROP_OUTDATED, _columns(outdated))
        return tuple(claimed)

    async def extend(self, jobs: Sequence[Job], until: datetime) -> None:
        if jobs:
            await retrying(partial(self._pool.execute, _EXTEND, {**_columns(jobs), "until": until}))

    async def release(self, jobs: Sequence[Job], available: datetime) -> None:
        if jobs:
            await retrying(partial(self._pool.execute, _RELEASE, {**_columns(jobs), "available": available}))

    async def record_failure(
        self, jobs: Sequence[Job], reason: str, max_attempts: int, now: datetime, available: datetime
    ) -> tuple[DocumentId, ...]:
        if not jobs:
            return ()
        values = {
            **_columns(jobs),
            "reason": reason.replace("\0", "").encode(errors="replace").decode()[:MAX_REASON_LENGTH],
            "max_attempts": max_attempts,
            "now": now,
            "available": available,
        }
        rows = await retrying(partial(self._pool.fetch_all, _RECORD_FAILURE, values))
        return tuple(id_ for id_, dead_lettered in rows if dead_lettered)

    async def status(self, collection_id: CollectionId, version: VersionNumber, now: datetime) -> QueueStatus:
        rows = await self._pool.fetch_all(SQL.status, {"collection_id": collection_id, "version": version})
        ((pending, failed, oldest),) = rows
        age = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
        return QueueStatus(pending=pending, failed=failed, oldest_seconds=age)

    async def failed(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int
    ) -> tuple[FailedDocument, ...]:
        """A document that failed in several versions is listed once, with the newest of them."""
        values = {"collection_id": collection_id, "after": after or "", "limit": limit}
        return await self._pool.fetch_objects(FailedDocument, SQL.failed, values)

    async def retry(self, collection_id: CollectionId, now: datetime) -> int:
        return await self._pool.execute(SQL.retry, {"collection_id": collection_id, "now": now})

    async def unfinished(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        return await self._select_ids(SQL.unfinished, collection_id, version, ids)

    async def dead_lettered(
        self, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        return await self._select_ids(SQL.dead_lettered, collection_id, version, ids)

    async def _select_ids(
        self, query: LiteralString, collection_id: CollectionId, version: VersionNumber, ids: Sequence[DocumentId]
    ) -> tuple[DocumentId, ...]:
        """Those of `ids` that the query selects, in their order."""
        values = {"collection_id": collection_id, "version": version, "ids": list(ids)}
        found = {row[0] for row in await self._pool.fetch_all(query, values)}
        return tuple(id_ for id_ in ids if id_ in found)


async def enqueue(
    connection: Connection,
    collection_id: CollectionId,
    content_revisions: Mapping[DocumentId, int],
    now: datetime,
    brought: Mapping[DocumentId, VersionNumber],
) -> None:
    """A job for each of these documents in every version that is written, ahead of all backfills.

    `brought`: versions whose vectors come with the documents, in the same transaction.
    """
    values = {
        "collection_id": collection_id,
        "ids": list(content_revisions),
        "content_revisions": list(content_revisions.values()),
        "brought": [brought.get(id_) for id_ in content_revisions],
        "now": now,
    }
    await connection.execute(_ENQUEUE, values)


async def delete_jobs(connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId]) -> None:
    """Delete the jobs of deleted documents."""
    await connection.execute(SQL.delete_jobs, {"collection_id": collection_id, "ids": list(ids)})


async def finish(connection: Connection, jobs: Sequence[Job]) -> frozenset[Job]:
    """Delete those of these jobs of one version whose leases still hold, and return them: only these may be stored."""
    rows = await connection.fetch_all(_FINISH, _columns(jobs))
    finished = {(document_id, str(lease)) for document_id, lease in rows}
    return frozenset(job for job in jobs if (job.document_id, job.lease) in finished)


def _columns(jobs: Sequence[Job]) -> dict[str, list[Any]]:
    """The keys and leases of jobs, as one array for each column."""
    return {
        "collections": [job.collection_id for job in jobs],
        "ids": [job.document_id for job in jobs],
        "versions": [job.version for job in jobs],
        "content_revisions": [job.content_revision for job in jobs],
        "leases": [job.lease for job in jobs],
    }
