"""The judgments that collections bring along, one row for each collection."""

from datetime import datetime

from psycopg.types.json import Jsonb

from service.core.ids import CollectionId
from service.core.versions import AuditEntry, Judgments
from service.store.postgres import audit
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Adapter

SQL = sql_files.load("test_sets")


class PostgresTestSets(Adapter):
    """Adapter of `ports.TestSets`."""

    async def put(self, collection_id: CollectionId, judgments: Judgments, entry: AuditEntry) -> None:
        values = {
            "collection_id": collection_id,
            "queries": Jsonb(judgments.queries),
            "grades": Jsonb(judgments.grades),
            "now": judgments.uploaded_at,
        }
        async with self._pool.transaction() as connection:
            await connection.execute(SQL.put, values)
            await audit.write(connection, collection_id, entry)

    async def get(self, collection_id: CollectionId) -> Judgments | None:
        rows = await self._pool.fetch_all(SQL.get, {"collection_id": collection_id})
        if not rows:
            return None
        queries, grades = {row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows}
        return Judgments(queries=queries, grades=grades, uploaded_at=rows[0][3])

    async def uploaded_at(self, collection_id: CollectionId) -> datetime | None:
        row = await self._pool.fetch_one(SQL.uploaded_at, {"collection_id": collection_id})
        return None if row is None else row[0]

    async def delete(self, collection_id: CollectionId, entry: AuditEntry) -> None:
        """Writes no audit entry where there is no test set."""
        async with self._pool.transaction() as connection:
            deleted = await connection.execute(SQL.delete, {"collection_id": collection_id})
            if deleted.rowcount:
                await audit.write(connection, collection_id, entry)
