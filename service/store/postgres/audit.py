"""Who changed what, when and on which evidence. Entries are written in the transaction of the change."""

import dataclasses

from service.core.ids import CollectionId
from service.core.versions import AuditEntry
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Adapter, Connection

SQL = sql_files.load("audit")


class PostgresAudit(Adapter):
    """Adapter of `ports.Audit`."""

    async def page(self, collection_id: CollectionId, before: int | None, limit: int) -> tuple[AuditEntry, ...]:
        values = {"collection_id": collection_id, "before": before, "limit": limit}
        return await self._pool.fetch_objects(AuditEntry, SQL.page, values)

    async def add(self, collection_id: CollectionId, entry: AuditEntry) -> None:
        async with self._pool.connection() as connection:
            await write(connection, collection_id, entry)


async def write(connection: Connection, collection_id: CollectionId, entry: AuditEntry) -> None:
    """Inside the caller's transaction. Waits for whoever has locked the collection exclusively."""
    await connection.execute(SQL.insert, {**dataclasses.asdict(entry), "collection_id": collection_id})
