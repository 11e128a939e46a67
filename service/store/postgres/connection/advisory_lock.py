"""One process at a time advances a version, however many try."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import LiteralString

import psycopg

from service.core.versions import EmbedderVersion
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.driver_errors import translated_errors
from service.store.postgres.connection.pool import Connection, Pool
from service.store.postgres.vectors.vector_tables import vector_table_of

SQL = sql_files.load("advisory_lock")

_POLL_SECONDS = 0.05


@asynccontextmanager
async def transition_lock(
    pool: Pool, version: EmbedderVersion, wait_seconds: float = 0.0, purpose: str = ""
) -> AsyncIterator[bool]:
    """As `Versions.transition_lock`, or the lock of another kind of work (`purpose`) that may run beside it.

    The lock belongs to the one connection that this process keeps beside its pool, and ends with it, however the
    process dies; where a pooler stands between, to a connection of its own. It only avoids double work: transitions
    exclude each other by the states that they start from.
    """
    key, deadline = vector_table_of(version).table + purpose, time.monotonic() + wait_seconds
    while pool.heartbeat.pooled:
        async with lock_in_transaction(pool, key) as held:
            if held or time.monotonic() >= deadline:
                yield held
                return
        await asyncio.sleep(_POLL_SECONDS)
    with translated_errors():
        # A statement that waits would hold a snapshot, which an index build of the lock's holder would wait for.
        while (connection := await _try_lock(pool, key)) is None and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
    if connection is None:
        yield False
        return
    try:
        yield True
    finally:
        pool.heartbeat.locks.discard(key)
        with suppress(psycopg.Error):  # a broken connection has released it already
            await _execute(connection, SQL.unlock, key)


@asynccontextmanager
async def lock_in_transaction(pool: Pool, key: str) -> AsyncIterator[bool]:
    """Whether this has the lock now, on a new connection whose transaction lasts as long as the block."""
    async with pool.dedicated() as connection, connection.transaction():
        held = await _execute(connection, SQL.try_lock_in_transaction, key)
        await connection.execute(SQL.stay_idle)
        yield held


async def _try_lock(pool: Pool, key: str) -> Connection | None:
    """The connection that holds the lock now; None where another task or process holds it."""
    connection, locks = await pool.heartbeat.connection(), pool.heartbeat.locks
    if key in locks:
        return None
    locks.add(key)  # before the server is asked, for whom other tasks of this process are the same holder
    held = False
    try:
        held = await _execute(connection, SQL.try_lock, key)
    finally:
        if not held:
            locks.discard(key)
    return connection if held else None


async def _execute(connection: Connection, query: LiteralString, key: str) -> bool:
    try:
        return await connection.fetch_one(query, {"key": key}) == (True,)
    except asyncio.CancelledError:
        connection.cut()  # whether it holds the lock is not known: now it does not
        raise
