"""How a new version gets the documents that were there before it. Adapter of `ports.Backfills`.

A backfill walks through the documents in the order of their ids, a portion in each transaction, behind a cursor that
is kept in the version's row and moves with the jobs that it speaks of. What is written after the version was registered
comes by itself, so the walk needs to see each document only once, and may see it as it was a moment ago: a job for
content that was replaced meanwhile is ended when it is claimed.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString

from psycopg import sql
from psycopg.errors import UndefinedTable
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from service.core.errors import VersionNotFound
from service.core.versions import BackfillStatus, Completeness, EmbedderVersion, Progress, VersionState
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool, retrying
from service.store.postgres.queue import OVERWRITE
from service.store.postgres.vectors.vector_tables import vector_table_of
from service.store.postgres.versions import backfill_rate
from service.store.postgres.versions.versions import PostgresVersions

SQL = sql_files.load("backfills")

PORTION = 5_000
"""Documents that one transaction looks at: some tens of milliseconds."""

PRIORITY, PRIORITY_BROUGHT = 2, 3
"""Of what workers encode, and of what waits for vectors that the client brings (`queue.py`)."""


class PostgresBackfills:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._versions = PostgresVersions(pool)

    async def advance(self, version: EmbedderVersion, now: datetime, window: int) -> BackfillStatus:
        """As the port says; VersionNotFound where it is gone or not backfilling any more.

        Killed at any moment, it has enqueued some portions, and the next call goes on behind them.
        """
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL.standing, _key(version))).fetchone()
        if row is None:
            raise _gone(version)
        enqueued, everything, waiting = row
        while waiting < window and not everything:
            before = enqueued
            enqueued, everything = await self._portion(version, now, min(PORTION, window - waiting))
            waiting += max(0, enqueued - before)
        if version.spec.external and everything and 0 < waiting <= PORTION:
            waiting -= await self._drop_outdated(version)
        return BackfillStatus(enqueued=enqueued, waiting=waiting, everything=everything)

    async def _portion(self, version: EmbedderVersion, now: datetime, limit: int) -> tuple[int, bool]:
        """Look at the next documents; answers how many were ever enqueued, and whether there are no more.

        The version's row is locked from reading the cursor to moving it: a second caller goes on behind the first.
        """

        async def commit() -> tuple[int, bool]:
            async with self._pool.transaction() as connection:
                row = await (await connection.execute(SQL.hold, _key(version))).fetchone()
                if row is None:
                    raise _gone(version)
                after, brought = row
                place = {**_key(version), "after": after or "", "limit": limit}
                ((looked, last),) = await (await connection.execute(SQL.portion, place)).fetchall()
                enqueued = 0
                if looked:
                    priority = PRIORITY_BROUGHT if brought else PRIORITY
                    values = {**place, "last": last, "now": now, "priority": priority}
                    enqueue = _statement(SQL.enqueue, version, overwrite=OVERWRITE)
                    enqueued = (await connection.execute(enqueue, values)).rowcount
                everything = looked < limit
                moved = {**_key(version), "last": last, "enqueued": enqueued, "everything": everything}
                ((total,),) = await (await connection.execute(SQL.looked, moved)).fetchall()
                return total, everything

        return await retrying(commit)

    async def _drop_outdated(self, version: EmbedderVersion) -> int:
        """End what would wait for ever: nobody claims these jobs, so nobody would notice."""

        async def drop() -> int:
            async with self._pool.connection() as connection:
                return (await connection.execute(SQL.drop_outdated, _key(version))).rowcount

        return await retrying(drop)

    async def restart(self, version: EmbedderVersion) -> None:
        """As the port says; VersionNotFound where it is gone or not backfilling any more."""

        async def remove() -> None:
            async with self._pool.transaction() as connection:
                await connection.execute(SQL.look_at_all)
                try:
                    await connection.execute(_statement(SQL.drop_homeless, version))
                except UndefinedTable as error:
                    raise _gone(version) from error

        # Apart, for it may take long, and nobody can pause or retire the version while its row is locked.
        await retrying(remove)
        async with self._pool.connection() as connection:
            if await (await connection.execute(SQL.start_over, _key(version))).fetchone() is None:
                raise _gone(version)

    async def progress(self, version: EmbedderVersion, now: datetime) -> Progress:
        """As the port says. Documents are counted, about 0.1 s for a million; rows as PostgresVersions.status does it.

        A retired version has nothing left to do. VersionNotFound where there is none.
        """
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL.progress, _key(version))).fetchone()
        if row is None:
            raise _gone(version)
        state, paused, notes, total, done, failed = row
        match VersionState(state):
            case VersionState.RETIRED:
                return Progress(done=0, total=0, failed=0)
            case VersionState.INDEXING:
                return await self._building(version)
            case VersionState.BACKFILLING if not paused:
                return backfill_rate.of_backfill(_notes(notes), now.timestamp(), done=done, total=total, failed=failed)
        return Progress(done=done, total=total, failed=failed)

    async def _building(self, version: EmbedderVersion) -> Progress:
        status = await self._versions.status(version)
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL.build, {"table": vector_table_of(version).table})).fetchone()
        if row is None or status.indexed:
            return Progress(done=status.rows if status.indexed else 0, total=status.rows, failed=0)
        share, seconds = row
        return backfill_rate.of_build(status.rows, share, seconds)

    async def record_progress(self, version: EmbedderVersion, now: datetime) -> None:
        """As the port says; nothing happens where it is too soon for another note, or the version rests or is gone."""
        at = now.timestamp()
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL.notes, _key(version))).fetchone()
            if row is None or not backfill_rate.due(_notes(row[0]), at):
                return
            counted = await (await connection.execute(SQL.progress, _key(version))).fetchone()
            if counted is None:
                return
            done = counted[4]
            notes = backfill_rate.noted(_notes(row[0]), at, done)
            values = {**_key(version), "before": Jsonb(row[0]), "notes": Jsonb(notes)}
            await connection.execute(SQL.keep_notes, values)

    async def completeness(self, version: EmbedderVersion) -> Completeness:
        """As the port says: one statement, so one moment. About a second for a million documents.

        VersionNotFound where its table is gone.
        """
        async with (
            self._pool.transaction() as connection,
            connection.cursor(row_factory=class_row(Completeness)) as cursor,
        ):
            await connection.execute(SQL.look_at_all)
            try:
                await cursor.execute(_statement(SQL.completeness, version), _key(version))
            except UndefinedTable as error:
                raise _gone(version) from error
            (found,) = await cursor.fetchall()
            return found


def _key(version: EmbedderVersion) -> dict[str, Any]:
    return {"collection_id": version.collection_id, "version": version.number}


def _gone(version: EmbedderVersion) -> VersionNotFound:
    return VersionNotFound(f"The embedder version {version.number} is not there, or in another state by now.")


def _statement(query: LiteralString, version: EmbedderVersion, **parts: sql.Composable) -> sql.Composed:
    return sql.SQL(query).format(vectors=vector_table_of(version).table_identifier, **parts)


def _notes(row: Sequence[Sequence[float]]) -> backfill_rate.Notes:
    return tuple((at, int(done)) for at, done in row)
