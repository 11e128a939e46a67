"""One process at a time moves a version on, however often and however many try."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg

from service.core.versions import EmbedderVersion
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool
from service.store.postgres.vectors import vector_tables

SQL = sql_files.load("advisory_lock")

_LOOK_SECONDS = 0.05


@asynccontextmanager
async def transition_lock(
    pool: Pool, version: EmbedderVersion, wait_seconds: float = 0.0, what: str = ""
) -> AsyncIterator[bool]:
    """As `ports.Versions.driving`, or another kind of work (`what`) that goes on beside it.

    The lock belongs to a connection apart and ends with it, however the process dies.

    It saves double work and no more: transitions exclude each other by the states that they start from.
    """
    key = {"table": vector_tables.vector_table_of(version).table + what}
    async with pool.apart() as connection:
        deadline = time.monotonic() + wait_seconds
        # A statement that waits would hold a snapshot, for which an index build of whoever has the lock would wait.
        while not (ours := await (await connection.execute(SQL.try_take, key)).fetchone() == (True,)):
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        try:
            yield ours
        finally:
            if ours:
                # Closing lets go too, but only some moments after this returns; a broken connection already has.
                with suppress(psycopg.Error):
                    await connection.execute(SQL.let_go, key)
