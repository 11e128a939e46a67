"""The API processes of this installation, by their heartbeats. Adapter of `ports.Processes`."""

from datetime import datetime, timedelta

from service.core.ids import CollectionId, VersionNumber
from service.core.versions import ApiProcess
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool, retrying

SQL = sql_files.load("processes")

FORGOTTEN = timedelta(hours=1)
"""A process that was silent for so long was killed: its row goes."""


class PostgresProcesses:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def record_heartbeat(self, process: ApiProcess) -> None:
        values = {
            "id": process.id,
            "host": process.host,
            "now": process.seen_at,
            "proven": sorted(f"{collection_id}/{number}" for collection_id, number in process.proven),
            "forgotten": process.seen_at - FORGOTTEN,
        }

        async def commit() -> None:
            async with self._pool.connection() as connection:
                await connection.execute(SQL.record_heartbeat, values)

        await retrying(commit)

    async def seen_since(self, moment: datetime) -> tuple[ApiProcess, ...]:
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(SQL.seen_since, {"moment": moment})).fetchall()
        return tuple(
            ApiProcess(id=str(id_), host=host, seen_at=seen_at, proven=frozenset(map(_space, proven)))
            for id_, host, seen_at, proven in rows
        )

    async def remove(self, process_id: str) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(SQL.remove, {"id": process_id})


def _space(text: str) -> tuple[CollectionId, VersionNumber]:
    collection_id, number = map(int, text.split("/"))
    return CollectionId(collection_id), VersionNumber(number)
