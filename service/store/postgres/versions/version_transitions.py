"""How a version comes, moves from state to state and goes: each one transaction, with its audit entry.

What changes which versions are written (register, fail, take up again, retire) is alone with the collection; all else
neither waits for a writer nor stops one (`guard.py`). Locks are taken in one order: the row of the collection, rows of
versions, jobs, the table.
"""

import asyncio
import dataclasses
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from psycopg import sql
from psycopg.errors import LockNotAvailable

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
from service.store.postgres import audit, json_records
from service.store.postgres.connection import collection_lock, sql_files
from service.store.postgres.connection.pool import Connection, Pool, retrying
from service.store.postgres.rows import collection_of, version_of
from service.store.postgres.vectors import vector_tables

SQL = sql_files.load("version_transitions")

COLUMNS = sql.SQL(SQL.columns)
"""Of a version, for `version_of`."""
SELECT = sql.SQL(SQL.select).format(columns=COLUMNS)
"""One version, by `collection_id` and `number`."""

MAX_WRITTEN = 8
"""Every document is encoded and stored once for each version that is written."""

REORDERED = 10_000
"""Jobs that change their place in one transaction: who wants one of them waits for some tenths of a second."""

RETIRE_SECONDS = 30.0
"""So long a retirement goes on trying while the table is read."""
_FIRST_PATIENCE, _LAST_PATIENCE = 0.1, 2.0
"""Seconds that a DROP TABLE waits for readers. Readers that come after it wait for it in turn, so the first tries are
short; the last are longer than the second after which PostgreSQL ends a vacuum of its own that is in the way."""

_APART = frozenset({VersionState.ACTIVE, VersionState.RETIRED})
"""States that no simple move leads to or from."""

_INSERT = sql.SQL(SQL.insert).format(columns=COLUMNS)
_MOVE = sql.SQL(SQL.move).format(columns=COLUMNS)
_PAUSE = sql.SQL(SQL.pause).format(columns=COLUMNS)
_RETIRE = sql.SQL(SQL.retire).format(columns=COLUMNS)


class VersionTransitions:
    """The part of `PostgresVersions` that changes them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

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
        """As the port says; CollectionNotFound where it is gone. The audit entry gets the new number."""

        async def commit() -> EmbedderVersion:
            async with self._pool.transaction() as connection:
                if not await collection_lock.alone(connection, collection.id):
                    raise CollectionNotFound
                number = await _next_number(connection, collection.id)
                if newest is not None and number != newest + 1:
                    raise Overtaken
                version = await insert(
                    connection,
                    collection.id,
                    number,
                    state=VersionState.BACKFILLING,
                    spec=spec,
                    chunking=chunking,
                    index=index,
                    identity=identity,
                    canary=canary,
                    now=entry.at,
                )
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
        """As the port says; VersionNotFound where it is gone."""
        # To active and back it is promoted, to retired it is retired.
        if to is not version.state and not _APART.isdisjoint((version.state, to)):
            raise Conflict(f"a version that is {version.state} cannot be moved to {to}")
        values = {
            **_key(version),
            "from": version.state.value,
            "to": to.value,
            "reason": reason,
            "evidence": None if evidence is None else json_records.evidence_to_json(evidence),
        }

        async def commit() -> EmbedderVersion:
            async with self._pool.transaction() as connection:
                # Whether it is written changes with these: without a job too many, or a document missed.
                lock = collection_lock.alone if VersionState.FAILED in (version.state, to) else collection_lock.present
                if not await lock(connection, version.collection_id):
                    raise VersionNotFound
                if version.state is VersionState.FAILED:
                    await _next_number(connection, version.collection_id)
                row = await (await connection.execute(_MOVE, values)).fetchone()
                if row is None:
                    raise await _elsewhere(connection, version)
                if to is VersionState.BACKFILLING:
                    await connection.execute(SQL.start_over, values)
                elif to is VersionState.FAILED:
                    await connection.execute(SQL.delete_jobs, values)
                if entry is not None:
                    await audit.write(connection, version.collection_id, entry)
            return version_of(row)

        return await retrying(commit)

    async def save_calibration(self, version: EmbedderVersion, calibration: Calibration) -> bool:
        before = version.calibration
        values = {
            **_key(version),
            "calibration": json_records.calibration_to_json(calibration),
            "before": None if before is None else before.learnt_at.isoformat(),
        }
        async with self._pool.connection() as connection:
            return (await connection.execute(SQL.save_calibration, values)).rowcount == 1

    async def pause(self, version: EmbedderVersion, paused: bool, entry: AuditEntry) -> EmbedderVersion:
        """As the port says; Conflict where it is in another state by now, VersionNotFound where it is gone."""
        values = {**_key(version), "state": version.state.value, "paused": paused}

        async def commit() -> EmbedderVersion:
            async with self._pool.transaction() as connection:
                if not await collection_lock.present(connection, version.collection_id):
                    raise VersionNotFound
                row = await (await connection.execute(_PAUSE, values)).fetchone()
                if row is not None:
                    await audit.write(connection, version.collection_id, entry)
                    return version_of(row)
                standing = await (await connection.execute(SELECT, values)).fetchone()
                if standing is None or version_of(standing).state is not version.state:
                    raise await _elsewhere(connection, version)
                return version_of(standing)

        return await retrying(commit)

    async def promote(self, collection: Collection, version: EmbedderVersion, entry: AuditEntry) -> Collection:
        """As the port says; NotFound where either is gone. Neither waits for writers nor lets a search wait.

        `Collections.update` compares settings, so of it and this the later one sees what the earlier one did.
        """
        if version.number == collection.active_version:
            raise Conflict(f"version {version.number} is active already")
        values = {"id": collection.id, "from": collection.active_version, "to": version.number, "limit": REORDERED}
        reordered = 0

        async def commit() -> Collection:
            nonlocal reordered
            async with self._pool.transaction() as connection:
                active = await (await connection.execute(SQL.switching, values)).fetchone()
                if active is None:
                    raise CollectionNotFound
                if active[0] != collection.active_version:
                    raise Conflict("another version was made active at the same moment")
                await connection.execute(SQL.step_down, values)
                if await (await connection.execute(SQL.step_up, values)).fetchone() is None:
                    raise await _elsewhere(connection, version)
                row = await (await connection.execute(SQL.switch, values)).fetchone()
                assert row is not None  # locked above
                reordered = (await connection.execute(SQL.reorder, values)).rowcount
                await audit.write(connection, collection.id, entry)
            return collection_of(row)

        promoted = await retrying(commit)
        # It is done; that more jobs are in their old order is no reason to tell of an error.
        with suppress(Unavailable):
            while reordered == REORDERED:
                async with self._pool.connection() as connection:
                    reordered = (await connection.execute(SQL.reorder, values)).rowcount
        return promoted

    async def retire(self, version: EmbedderVersion, entry: AuditEntry) -> EmbedderVersion:
        """As the port says. Nothing more happens where it is retired already.

        TimedOut where somebody reads the table for longer than `RETIRE_SECONDS` without a pause, as a dump does.
        """
        deadline = time.monotonic() + RETIRE_SECONDS
        patience = _FIRST_PATIENCE
        while True:
            try:
                return await retrying(partial(self._retire, version, entry, patience))
            except TimedOut as error:
                if not isinstance(error.__cause__, LockNotAvailable) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(patience)
            patience = min(2 * patience, _LAST_PATIENCE)

    async def _retire(self, version: EmbedderVersion, entry: AuditEntry, patience: float) -> EmbedderVersion:
        table = vector_tables.vector_table_of(version).table
        values = {**_key(version), "patience": f"{patience * 1000:.0f}"}
        async with self._pool.transaction() as connection:
            await collection_lock.unhurried(connection)
            if not await collection_lock.alone(connection, version.collection_id):
                raise VersionNotFound
            standing = await (await connection.execute(SELECT, values)).fetchone()
            if standing is None:
                raise VersionNotFound
            match version_of(standing).state:
                case VersionState.RETIRED:
                    return version_of(standing)
                case VersionState.ACTIVE:
                    raise Conflict(f"version {version.number} is active: promote another one first")
            retired = await (await connection.execute(_RETIRE, values)).fetchone()
            assert retired is not None  # the collection is locked
            await connection.execute(SQL.forget_previous, values)
            # Jobs before the table, as a worker takes them: what it is just storing is waited for.
            await connection.execute(SQL.delete_jobs, values)
            await collection_lock.cancel_builds(connection, [table])
            await connection.execute(SQL.be_patient, values)
            await connection.execute(vector_tables.drop_table(version.collection_id, version.number))
            await audit.write(connection, version.collection_id, entry)
        return version_of(retired)


# ---------------------------------------------------------------- parts of transactions


async def insert(
    connection: Connection,
    collection_id: CollectionId,
    number: VersionNumber,
    *,
    state: VersionState,
    spec: EmbedderSpec,
    chunking: ChunkingSettings,
    identity: EmbedderIdentity,
    canary: Mapping[str, tuple[float, ...]],
    now: datetime,
    index: IndexSettings = IndexSettings(),  # noqa: B008 frozen
) -> EmbedderVersion:
    """A version and its table, inside the caller's transaction."""
    values: dict[str, Any] = {
        "collection_id": collection_id,
        "number": number,
        "state": state.value,
        "spec": json_records.spec_to_json(spec),
        "chunking": json_records.chunking_to_json(chunking),
        "identity": json_records.identity_to_json(identity),
        "fingerprint": identity.fingerprint,
        "canary": json_records.canary_to_json(canary),
        "index": json_records.index_to_json(index),
        "now": now,
    }
    row = await (await connection.execute(_INSERT, values)).fetchone()
    assert row is not None
    for statement in vector_tables.create_table(collection_id, number, identity.dimensions, index.storage):
        await connection.execute(statement)
    return version_of(row)


async def _next_number(connection: Connection, collection_id: CollectionId) -> VersionNumber:
    """Of a collection that is locked. Conflict where there is no room for one more written version."""
    row = await (await connection.execute(SQL.next_number, {"collection_id": collection_id})).fetchone()
    assert row is not None
    number, written = row
    if written >= MAX_WRITTEN:
        raise Conflict(f"{written} versions are written already, as many as may be: retire one first")
    return VersionNumber(number)


async def _elsewhere(connection: Connection, version: EmbedderVersion) -> Conflict | VersionNotFound:
    """Why no row was in the state that was expected."""
    row = await (await connection.execute(SELECT, _key(version))).fetchone()
    if row is None:
        return VersionNotFound()
    return Conflict(f"version {version.number} is {version_of(row).state} by now, no longer {version.state}")


def _key(version: EmbedderVersion) -> dict[str, int]:
    return {"collection_id": version.collection_id, "number": version.number}
