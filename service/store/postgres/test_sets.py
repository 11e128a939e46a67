"""The judgments that collections bring along, one row a collection. Adapter of `ports.TestSets`."""

from datetime import datetime

from psycopg.errors import ForeignKeyViolation

from service.core.errors import CollectionNotFound
from service.core.ids import CollectionId
from service.core.versions import AuditEntry, Judgments
from service.store.postgres import audit, json_records
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool

SQL = sql_files.load("test_sets")


class PostgresTestSets:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def put(self, collection_id: CollectionId, judgments: Judgments, entry: AuditEntry) -> None:
        values = {
            **json_records.judgments_to_json(judgments),
            "collection_id": collection_id,
            "now": judgments.uploaded_at,
        }
        try:
            async with self._pool.transaction() as connection:
                await connection.execute(SQL.put, values)
                await audit.write(connection, collection_id, entry)
        except ForeignKeyViolation as error:
            raise CollectionNotFound from error

    async def get(self, collection_id: CollectionId) -> Judgments | None:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL.get, {"collection_id": collection_id})).fetchone()
        if row is None:
            return None
        queries, grades, uploaded_at = row
        return Judgments(queries=queries, grades=grades, uploaded_at=uploaded_at)

    async def uploaded_at(self, collection_id: CollectionId) -> datetime | None:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL.uploaded_at, {"collection_id": collection_id})).fetchone()
        return None if row is None else row[0]

    async def delete(self, collection_id: CollectionId, entry: AuditEntry) -> None:
        """Nothing happens, and nothing is noted, where there is no test set."""
        async with self._pool.transaction() as connection:
            gone = await connection.execute(SQL.delete, {"collection_id": collection_id})
            if gone.rowcount:
                await audit.write(connection, collection_id, entry)
