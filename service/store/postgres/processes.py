"""The API processes of this installation, by their heartbeats."""

from datetime import datetime, timedelta

from service.core.ids import CollectionId, VersionNumber
from service.core.versions import ApiProcess
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Adapter, retrying

SQL = sql_files.load("processes")

FORGOTTEN = timedelta(hours=1)
"""A process that was silent for so long was killed, and its row is deleted."""


class PostgresProcesses(Adapter):
    """Adapter of `ports.Processes`."""

    async def record_heartbeat(self, process: ApiProcess) -> None:
        values = {
            "id": process.id,
            "host": process.host,
            "now": process.seen_at,
            "proven": sorted(f"{collection_id}/{number}" for collection_id, number in process.proven),
            "forgotten": process.seen_at - FORGOTTEN,
        }
        await retrying(lambda: self._pool.execute(SQL.record_heartbeat, values))

    async def seen_since(self, moment: datetime) -> tuple[ApiProcess, ...]:
        return tuple(
            ApiProcess(id=str(id_), host=host, seen_at=seen_at, proven=frozenset(map(_space, proven)))
            for id_, host, seen_at, proven in await self._pool.fetch_all(SQL.seen_since, {"moment": moment})
        )

    async def remove(self, process_id: str) -> None:
        await self._pool.execute(SQL.remove, {"id": process_id})


def _space(text: str) -> tuple[CollectionId, VersionNumber]:
    collection_id, number = map(int, text.split("/"))
    return CollectionId(collection_id), VersionNumber(number)
