"""One process at a time advances a version, however many try."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg

from service.core.versions import EmbedderVersion
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool
from service.store.postgres.vectors.vector_tables import vector_table_of

SQL = sql_files.load("advisory_lock")

_POLL_SECONDS = 0.05


@asynccontextmanager
async def transition_lock(
    pool: Pool, version: EmbedderVersion, wait_seconds: float = 0.0, purpose: str = ""
) -> AsyncIterator[bool]:
    """As `Versions.transition_lock`, or the lock of another kind of work (`purpose`) that may run beside it.

    The lock belongs to a dedicated connection and ends with it, however the process dies. It only avoids double work:
    transitions exclude each other by the states that they start from.
    """
    key = {"key": vector_table_of(version).table + purpose}
    async with pool.dedicated() as connection:
        deadline = time.monotonic() + wait_seconds
        # A statement that waits would hold a snapshot, which an index build of the lock's holder would wait for.
        while not (held := await (await connection.execute(SQL.try_lock, key)).fetchone() == (True,)):
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(_POLL_SECONDS)
        try:
            yield held
        finally:
            if held:
                # Closing the connection releases it too, but only some moments later; a broken one already has.
                with suppress(psycopg.Error):
                    await connection.execute(SQL.unlock, key)
