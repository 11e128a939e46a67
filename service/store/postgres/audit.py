"""Who changed what, when, on which evidence. Adapter of `ports.Audit`; entries are written with what they tell of."""

from psycopg.errors import ForeignKeyViolation

from service.core.errors import CollectionNotFound
from service.core.ids import CollectionId
from service.core.versions import AuditEntry
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection, Pool

SQL = sql_files.load("audit")


class PostgresAudit:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def page(self, collection_id: CollectionId, before: int | None, limit: int) -> tuple[AuditEntry, ...]:
        values = {"collection_id": collection_id, "before": before, "limit": limit}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(SQL.page, values)).fetchall()
        return tuple(
            AuditEntry(
                number=number,
                at=at,
                actor=actor,
                action=action,
                version=version,
                before=predecessor,
                note=note,
                details=details,
            )
            for number, at, actor, action, version, predecessor, note, details in rows
        )

    async def add(self, collection_id: CollectionId, entry: AuditEntry) -> None:
        try:
            async with self._pool.connection() as connection:
                await write(connection, collection_id, entry)
        except ForeignKeyViolation as error:
            raise CollectionNotFound from error


async def write(connection: Connection, collection_id: CollectionId, entry: AuditEntry) -> None:
    """Inside the caller's transaction, which holds the row of the collection in some way or waits for it here."""
    values = {
        "collection_id": collection_id,
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "version": entry.version,
        "before": entry.before,
        "note": entry.note,
        "details": dict(entry.details),
    }
    await connection.execute(SQL.insert, values)
