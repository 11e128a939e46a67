"""The creation, state changes and retirement of versions: each is one transaction, with its audit entry.

Transitions that change which versions are written (register, fail, resume, retire) lock the collection exclusively;
others neither wait for a writer nor block one (`collection_lock.py`). Locks are taken in one order: the row of the
collection, rows of versions, jobs, the table.
"""

import asyncio
import dataclasses
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from psycopg import sql
from psycopg.errors import LockNotAvailable
from psycopg.types.json import Jsonb

from service.core.collections import ChunkingSettings, Collection, EmbedderSpec, IndexSettings
from service.core.errors import CollectionNotFound, Conflict, Overtaken, TimedOut, Unavailable, VersionNotFound
from service.core.ids import CollectionId, VersionNumber
from service.core.versions import (
    AuditEntry,
    Calibration,
    EmbedderIdentity,
    EmbedderVersion,
    PromotionEvidence,
    VersionState,
)
from service.store.postgres import audit
from service.store.postgres.connection import collection_lock, sql_files
from service.store.postgres.connection.pool import Adapter, Connection, retrying
from service.store.postgres.rows import collection_of, version_key, version_of
from service.store.postgres.vectors import index_kinds, vector_tables

SQL = sql_files.load("version_transitions")

COLUMNS = sql.SQL(SQL.columns)
"""The columns of a version, for `version_of`."""

MAX_WRITTEN = 8
"""Every document is encoded and stored once for each version that is written."""

REORDERED = 10_000
"""Jobs whose priority changes in one transaction: a worker that wants one of them waits for some tenths of a second."""

RETIRE_SECONDS = 30.0
"""How long a retirement is tried again while the table is read."""
_FIRST_LOCK_TIMEOUT, _LAST_LOCK_TIMEOUT = 0.1, 2.0
"""Seconds that a DROP TABLE waits for readers. Later readers wait for it in turn, so the first tries are short; the
last are longer than the second after which PostgreSQL cancels an automatic vacuum that is in the way."""

_NO_MOVE = frozenset({VersionState.ACTIVE, VersionState.RETIRED})
"""States that `move` neither leads to nor leaves: `promote` and `retire` do."""

SELECT, _INSERT, _MOVE, _PAUSE, _RETIRE = (
    sql.SQL(query).format(columns=COLUMNS) for query in (SQL.select, SQL.insert, SQL.move, SQL.pause, SQL.retire)
)


class VersionTransitions(Adapter):
    """The part of `PostgresVersions` that changes them."""

    async def register(
        self,
        collection: Collection,
        spec: EmbedderSpec,
        chunking: ChunkingSettings,
        index: IndexSettings,
        identity: EmbedderIdentity,
        canary: Mapping[str, tuple[float, ...]],
        entry: AuditEntry,
        newest: VersionNumber | None = None,
    ) -> EmbedderVersion:
        """The audit entry gets the new number. CollectionNotFound where the collection is gone."""

        async def commit() -> EmbedderVersion:
            async with self._pool.transaction() as connection:
                if not await collection_lock.lock_exclusively(connection, collection.id):
                    raise CollectionNotFound
                number = await _next_number(connection, collection.id)
                if newest is not None and number != newest + 1:
                    raise Overtaken
                version = EmbedderVersion(
                    collection_id=collection.id,
                    number=number,
                    state=VersionState.BACKFILLING,
                    spec=spec,
                    chunking=chunking,
                    index=index,
                    identity=identity,
                    fingerprint=identity.fingerprint,
                    canary=canary,
                    created_at=entry.at,
                )
                version = await insert(connection, version)
                await audit.write(connection, collection.id, dataclasses.replace(entry, version=number))
            return version

        return await retrying(commit)

    async def move(
        self,
        version: EmbedderVersion,
        to: VersionState,
        entry: AuditEntry | None,
        *,
        reason: str | None = None,
        evidence: PromotionEvidence | None = None,
    ) -> EmbedderVersion:
        if to is not version.state and not _NO_MOVE.isdisjoint((version.state, to)):
            raise Conflict(f"a version that is {version.state} cannot be moved to {to}")
        values = {
            **version_key(version),
            "from": version.state.value,
            "to": to.value,
            "reason": reason,
            "evidence": None if evidence is None else Jsonb(evidence),
        }

        async def commit() -> EmbedderVersion:
            async with self._pool.transaction() as connection:
                # These change whether it is written: without the lock a job would be left, or a document missed.
                changes_writes = VersionState.FAILED in (version.state, to)
                lock = collection_lock.lock_exclusively if changes_writes else collection_lock.prevent_deletion
                if not await lock(connection, version.collection_id):
                    raise VersionNotFound
                if version.state is VersionState.FAILED:
                    await _next_number(connection, version.collection_id)
                row = await connection.fetch_one(_MOVE, values)
                if row is None:
                    raise _state_conflict(version, await _current(connection, version))
                if to is VersionState.BACKFILLING:
                    await connection.execute(SQL.restart_backfill, values)
                elif to is VersionState.FAILED:
                    await connection.execute(SQL.delete_jobs, values)
                if entry is not None:
                    await audit.write(connection, version.collection_id, entry)
            return version_of(row)

        return await retrying(commit)

    async def save_calibration(self, version: EmbedderVersion, calibration: Calibration) -> bool:
        before = None if version.calibration is None else version.calibration.learnt_at.isoformat()
        values = {**version_key(version), "calibration": Jsonb(calibration), "before": before}
        return await self._pool.execute(SQL.save_calibration, values) == 1

    async def pause(self, version: EmbedderVersion, paused: bool, entry: AuditEntry) -> EmbedderVersion:
        """Conflict where it is in another state by now, VersionNotFound where it is gone."""
        values = {**version_key(version), "state": version.state.value, "paused": paused}

        async def commit() -> EmbedderVersion:
            async with self._pool.transaction() as connection:
                if not await collection_lock.prevent_deletion(connection, version.collection_id):
                    raise VersionNotFound
                row = await connection.fetch_one(_PAUSE, values)
                current = await _current(connection, version) if row is None else version_of(row)
                if current.state is not version.state:
                    raise _state_conflict(version, current)
                if row is not None:
                    await audit.write(connection, version.collection_id, entry)
                return current

        return await retrying(commit)

    async def promote(self, collection: Collection, version: EmbedderVersion, entry: AuditEntry) -> Collection:
        """NotFound where either is gone. Neither waits for writers nor blocks a search.

        `Collections.update` compares settings, so the later of it and this sees what the earlier one did.
        """
        if version.number == collection.active_version:
            raise Conflict(f"version {version.number} is active already")
        values = {"id": collection.id, "from": collection.active_version, "to": version.number, "limit": REORDERED}
        reordered = 0

        async def commit() -> Collection:
            nonlocal reordered
            async with self._pool.transaction() as connection:
                active = await connection.fetch_one(SQL.lock_collection, values)
                if active is None:
                    raise CollectionNotFound
                if active[0] != collection.active_version:
                    raise Conflict("another version was made active at the same moment")
                await connection.execute(SQL.demote, values)
                if await connection.fetch_one(SQL.activate, values) is None:
                    raise _state_conflict(version, await _current(connection, version))
                row = await connection.fetch_one(SQL.switch, values)
                assert row is not None  # locked above
                reordered = (await connection.execute(SQL.reorder, values)).rowcount
                await audit.write(connection, collection.id, entry)
            return collection_of(row)

        promoted = await retrying(commit)
        # The promotion is committed: jobs that keep their old order are no reason for an error.
        with suppress(Unavailable):
            while reordered == REORDERED:
                reordered = await self._pool.execute(SQL.reorder, values)
        return promoted

    async def retire(self, version: EmbedderVersion, entry: AuditEntry) -> EmbedderVersion:
        """Does nothing where it is retired already.

        TimedOut where somebody reads the table for longer than `RETIRE_SECONDS` without a pause, as a dump does.
        """
        deadline = time.monotonic() + RETIRE_SECONDS
        lock_timeout = _FIRST_LOCK_TIMEOUT
        while True:
            try:
                return await retrying(partial(self._retire, version, entry, lock_timeout))
            except TimedOut as error:
                if not isinstance(error.__cause__, LockNotAvailable) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(lock_timeout)
            lock_timeout = min(2 * lock_timeout, _LAST_LOCK_TIMEOUT)

    async def _retire(self, version: EmbedderVersion, entry: AuditEntry, lock_timeout: float) -> EmbedderVersion:
        table = vector_tables.vector_table_of(version).table
        values = {**version_key(version), "lock_timeout": f"{lock_timeout * 1000:.0f}"}
        async with self._pool.transaction(even_when_full=True) as connection:
            await connection.lift_time_limit()
            if not await collection_lock.lock_exclusively(connection, version.collection_id):
                raise VersionNotFound
            current = await _current(connection, version)
            if current.state is VersionState.RETIRED:
                return current
            if current.state is VersionState.ACTIVE:
                raise Conflict(f"version {version.number} is active: promote another one first")
            retired = await connection.fetch_one(_RETIRE, values)
            assert retired is not None  # the collection is locked
            await connection.execute(SQL.forget_previous, values)
            # Jobs before the table, in the order of a worker: what it is storing just now is waited for.
            await connection.execute(SQL.delete_jobs, values)
            await collection_lock.cancel_builds(connection, [table])
            await connection.execute(SQL.set_lock_timeout, values)
            await connection.execute(vector_tables.drop_table(version.collection_id, version.number))
            await audit.write(connection, version.collection_id, entry)
        return version_of(retired)


async def insert(connection: Connection, version: EmbedderVersion) -> EmbedderVersion:
    """Store a version and create its table, inside the caller's transaction; returns it as it is stored."""
    values = {
        **version_key(version),
        "state": version.state.value,
        "fingerprint": version.identity.fingerprint,
        "now": version.created_at,
        **{name: Jsonb(getattr(version, name)) for name in ("spec", "chunking", "identity", "canary", "index")},
    }
    (row,) = await connection.fetch_all(_INSERT, values)
    storage = version.index.storage
    await index_kinds.require(connection, version.index.kind)
    for statement in vector_tables.create_table(version.collection_id, version.number, version.dimensions, storage):
        await connection.execute(statement)
    return version_of(row)


async def _next_number(connection: Connection, collection_id: CollectionId) -> VersionNumber:
    """The collection is locked. Conflict where no further version can be written."""
    key = {"collection_id": collection_id}
    ((number, written),) = await connection.fetch_all(SQL.next_number, key)
    if written >= MAX_WRITTEN:
        raise Conflict(f"{written} versions are written already, as many as may be: retire one first")
    return VersionNumber(number)


async def _current(connection: Connection, version: EmbedderVersion) -> EmbedderVersion:
    row = await connection.fetch_one(SELECT, version_key(version))
    if row is None:
        raise VersionNotFound
    return version_of(row)


def _state_conflict(version: EmbedderVersion, current: EmbedderVersion) -> Conflict:
    return Conflict(f"version {version.number} is {current.state} by now, no longer {version.state}")
