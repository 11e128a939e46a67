"""How a new version gets the documents that were there before it.

A backfill walks through the documents in the order of their ids, one portion in each transaction. Its cursor is in the
version's row and moves together with the jobs that it enqueues. What is written after the version was registered has
its jobs anyway, so the walk needs to read each document only once, and may read a state of a moment ago: a job for
content that was replaced meanwhile is deleted when it is claimed.
"""

from datetime import datetime
from typing import LiteralString

from psycopg.errors import UndefinedTable
from psycopg.rows import TupleRow, class_row
from psycopg.types.json import Jsonb

from service.core.errors import VersionNotFound
from service.core.versions import BackfillStatus, Completeness, EmbedderVersion, Progress, VersionState
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Adapter, retrying
from service.store.postgres.queue import OVERWRITE
from service.store.postgres.rows import version_key
from service.store.postgres.vectors.vector_index import space_status
from service.store.postgres.vectors.vector_tables import on_table, vector_table_of
from service.store.postgres.versions import backfill_rate

SQL = sql_files.load("backfills")

PORTION = 5_000
"""Documents that one transaction reads: some tens of milliseconds."""

PRIORITY, PRIORITY_EXTERNAL = 2, 3
"""Priorities of jobs that workers encode, and of those that wait for vectors of the client (`queue.py`)."""


class PostgresBackfills(Adapter):
    """Adapter of `ports.Backfills`. Methods raise VersionNotFound where the version is gone or in another state."""

    async def advance(self, version: EmbedderVersion, now: datetime, window: int) -> BackfillStatus:
        """Killed at any moment, it has enqueued some portions, and the next call continues after them."""
        enqueued, everything, waiting = await self._fetch(SQL.status, version)
        while waiting < window and not everything:
            before = enqueued
            enqueued, everything = await self._enqueue_portion(version, now, min(PORTION, window - waiting))
            waiting += max(0, enqueued - before)
        if version.spec.external and everything and 0 < waiting <= PORTION:
            # Nobody claims these jobs, so outdated ones would stay for ever.
            waiting -= await retrying(lambda: self._pool.execute(SQL.drop_outdated, version_key(version)))
        return BackfillStatus(enqueued=enqueued, waiting=waiting, everything=everything)

    async def _enqueue_portion(self, version: EmbedderVersion, now: datetime, limit: int) -> tuple[int, bool]:
        """Read the next documents; returns how many jobs were ever enqueued, and whether no documents are left.

        The version's row is locked from reading the cursor to moving it: a second caller continues after the first.
        """

        async def commit() -> tuple[int, bool]:
            async with self._pool.transaction() as connection:
                row = await connection.fetch_one(SQL.lock, version_key(version))
                if row is None:
                    raise _not_found(version)
                after, external = row
                place = {**version_key(version), "after": after or "", "limit": limit}
                ((read, last),) = await connection.fetch_all(SQL.portion, place)
                enqueued = 0
                if read:
                    priority = PRIORITY_EXTERNAL if external else PRIORITY
                    values = {**place, "last": last, "now": now, "priority": priority}
                    enqueue = on_table(SQL.enqueue, version, overwrite=OVERWRITE)
                    enqueued = (await connection.execute(enqueue, values)).rowcount
                everything = read < limit
                moved = {**version_key(version), "last": last, "enqueued": enqueued, "everything": everything}
                ((total,),) = await connection.fetch_all(SQL.move_cursor, moved)
                return total, everything

        return await retrying(commit)

    async def restart(self, version: EmbedderVersion) -> None:
        async def remove_orphans() -> None:
            async with self._pool.transaction() as connection:
                await connection.lift_time_limit()
                await connection.execute(SQL.plan_full_scan)
                try:
                    await connection.execute(on_table(SQL.drop_orphans, version))
                except UndefinedTable as error:
                    raise _not_found(version) from error

        # Apart, for it may take long, and nobody can pause or retire the version while its row is locked.
        await retrying(remove_orphans)
        await self._fetch(SQL.start_over, version)

    async def progress(self, version: EmbedderVersion, now: datetime) -> Progress:
        """Documents are counted, about 0.1 s for a million; rows as PostgresVersions.status does it.

        A retired version has nothing left to do.
        """
        state, paused, samples, total, done, failed = await self._fetch(SQL.progress, version)
        match VersionState(state):
            case VersionState.RETIRED:
                return Progress(done=0, total=0, failed=0)
            case VersionState.INDEXING:
                return await self._build_progress(version)
            case VersionState.BACKFILLING if not paused:
                return backfill_rate.backfill_progress(samples, now.timestamp(), done=done, total=total, failed=failed)
        return Progress(done=done, total=total, failed=failed)

    async def _build_progress(self, version: EmbedderVersion) -> Progress:
        async with self._pool.connection() as connection:
            status = await space_status(connection, version.collection_id, version.number)
            row = await connection.fetch_one(SQL.build, {"table": vector_table_of(version).table})
        if row is None or status.indexed:
            return Progress(done=status.rows if status.indexed else 0, total=status.rows, failed=0)
        share, seconds = row
        return backfill_rate.build_progress(status.rows, share, seconds)

    async def record_progress(self, version: EmbedderVersion, now: datetime) -> None:
        """Does nothing where it is too soon for another sample, or the version is paused or gone."""
        at = now.timestamp()
        async with self._pool.connection() as connection:
            row = await connection.fetch_one(SQL.samples, version_key(version))
            if row is None or not backfill_rate.is_due(row[0], at):
                return
            progress = await connection.fetch_one(SQL.progress, version_key(version))
            if progress is None:
                return
            samples = backfill_rate.add_sample(row[0], at, done=progress[4])
            values = {**version_key(version), "before": Jsonb(row[0]), "samples": Jsonb(samples)}
            await connection.execute(SQL.save_samples, values)

    async def completeness(self, version: EmbedderVersion) -> Completeness:
        """One statement, so one moment. About a second for a million documents."""
        async with self._pool.transaction() as connection:
            cursor = connection.cursor(row_factory=class_row(Completeness))
            await connection.lift_time_limit()
            await connection.execute(SQL.plan_full_scan)
            try:
                await cursor.execute(on_table(SQL.completeness, version), version_key(version))
            except UndefinedTable as error:
                raise _not_found(version) from error
            (found,) = await cursor.fetchall()
            return found

    async def _fetch(self, query: LiteralString, version: EmbedderVersion) -> TupleRow:
        """The row of a version. VersionNotFound where the statement finds none."""
        row = await self._pool.fetch_one(query, version_key(version))
        if row is None:
            raise _not_found(version)
        return row


def _not_found(version: EmbedderVersion) -> VersionNotFound:
    return VersionNotFound(f"The embedder version {version.number} is not there, or in another state by now.")
