"""What keeps the tables fit over the years: old tombstones are forgotten, a restored change feed is set right."""

from datetime import datetime

from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool, retrying

SQL = sql_files.load("maintenance")

PURGE_BATCH = 10_000


async def purge_tombstones(pool: Pool, older_than: datetime) -> int:
    """Forget documents that were deleted before `older_than`. Answers how many.

    A follower of the change feed that has not seen their deletion by now is told to start again. The revision of a
    document that comes back after this begins at 1.
    """
    purged = 0
    while True:
        batch = await _purge(pool, older_than)
        purged += batch
        if batch < PURGE_BATCH:
            return purged


async def _purge(pool: Pool, older_than: datetime) -> int:
    async def commit() -> int:
        async with pool.connection() as connection:
            cursor = await connection.execute(SQL.purge, {"older_than": older_than, "limit": PURGE_BATCH})
            ((count,),) = await cursor.fetchall()
            return int(count)

    return await retrying(commit)


async def repair_after_restore(pool: Pool) -> int:
    """Bring changes back that lie beyond every transaction of this server. Answers how many; run it at every start.

    Transaction ids belong to the server that gave them out. After a dump was restored into another, changes may carry
    ids that it will only reach in years, and until then no follower would see them.
    """

    async def commit() -> int:
        async with pool.transaction() as connection:
            repaired = (await connection.execute(SQL.repair_changes)).rowcount
            await connection.execute(SQL.repair_purged)
            return repaired

    return await retrying(commit)
