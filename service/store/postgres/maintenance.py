"""Long-term maintenance: purging old tombstones, and repairing the change feed after a restore."""

from datetime import datetime, timedelta

from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool, retrying

SQL = sql_files.load("maintenance")

PURGE_BATCH = 10_000
MARKED = timedelta(days=90)
"""An index that is not written for so long, and comes back, is rebuilt."""


async def purge_tombstones(pool: Pool, older_than: datetime) -> int:
    """Remove the tombstones of documents that were deleted before `older_than`; returns how many.

    A follower of the change feed that has not read their deletion by now must start again. A document that comes back
    after this begins at revision 1.
    """
    values = {"older_than": older_than, "limit": PURGE_BATCH}
    purged = 0
    while True:
        ((batch,),) = await retrying(lambda: pool.fetch_all(SQL.purge, values))
        purged += int(batch)
        if batch < PURGE_BATCH:
            return purged


async def forget_marks(pool: Pool, now: datetime) -> int:
    """Forget the marks of lexical indexes that are gone with their machines; returns how many."""
    return await pool.execute(SQL.forget_marks, {"before": now - MARKED})


async def repair_after_restore(pool: Pool) -> int:
    """Renumber changes that lie beyond every transaction of this server; returns how many. Run it at every start.

    Transaction ids belong to the server that assigned them. After a dump was restored into another server, changes may
    carry ids that it will only reach in years, and until then no follower would read them.
    """

    async def commit() -> int:
        async with pool.transaction(even_when_full=True) as connection:
            repaired = (await connection.execute(SQL.repair_changes)).rowcount
            await connection.execute(SQL.repair_purged)
            return repaired

    return await retrying(commit)
