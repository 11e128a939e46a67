"""The judgments that collections bring along, one row for each collection, and marked queries, one row for each."""

import dataclasses
from datetime import datetime

from psycopg.types.json import Jsonb

from service.core import versions
from service.core.ids import CollectionId
from service.core.versions import AuditEntry, Judgments, Mark
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

    async def put_mark(self, collection_id: CollectionId, mark: Mark) -> None:
        values = {**dataclasses.asdict(mark), "documents": list(mark.documents)}
        values |= {"collection_id": collection_id, "most": versions.MAX_MARKS}
        await self._pool.execute(SQL.put_mark, values)

    async def marks(self, collection_id: CollectionId, tenant: str | None, after: str, limit: int) -> tuple[Mark, ...]:
        values = {"collection_id": collection_id, "tenant": tenant, "after": after, "limit": limit}
        found = await self._pool.fetch_objects(Mark, SQL.marks, values)
        return tuple(dataclasses.replace(mark, documents=tuple(mark.documents)) for mark in found)

    async def count_marks(self, collection_id: CollectionId, tenant: str) -> int:
        row = await self._pool.fetch_one(SQL.count_marks, {"collection_id": collection_id, "tenant": tenant})
        return 0 if row is None else int(row[0])

    async def delete_marks(self, collection_id: CollectionId, tenant: str | None, mark_id: str | None) -> int:
        values = {"collection_id": collection_id, "tenant": tenant, "id": mark_id}
        return await self._pool.execute(SQL.delete_marks, values)

    async def delete_marks_before(self, before: datetime) -> None:
        await self._pool.execute(SQL.delete_marks_before, {"before": before})
