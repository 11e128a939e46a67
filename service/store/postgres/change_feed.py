"""The change feed in PostgreSQL. Adapter of `ports.Changes`.

A sequence number is not a commit order: a transaction may take a low number and commit late. Changes therefore carry
the id of their transaction, and followers read only below `pg_snapshot_xmin`, under which everything has ended.
"""

from collections.abc import Sequence
from datetime import datetime

from service.core.change_feed import Change, ChangePage, Position
from service.core.errors import CollectionNotFound
from service.core.ids import CollectionId, DocumentId
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection, Pool
from service.store.postgres.rows import stored

SQL = sql_files.load("change_feed")


class PostgresChanges:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def after(self, collection_id: CollectionId, position: Position, limit: int, now: datetime) -> ChangePage:
        """As the port says. The lag is the age of the first unfollowed change in the order of the feed.

        A position cannot be followed on where it stands at or before tombstones that were forgotten since it was
        reached, or beyond every transaction of this server (which was restored from a backup).
        """
        arguments = {
            "collection_id": collection_id,
            "xid": str(position.xid),
            "document_id": position.document_id,
            "limit": limit,
        }
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(SQL.after, arguments, prepare=False)).fetchall()
        if not rows:
            raise CollectionNotFound()
        purged, ceiling, waiting_since = rows[0][:3]
        lag_seconds = 0.0 if waiting_since is None else max(0.0, (now - waiting_since).total_seconds())
        missed = position.xid <= purged and position.purged != purged
        if position.xid > 0 and (missed or position.xid >= ceiling):
            return ChangePage(changes=(), lag_seconds=lag_seconds, rebuild=True)
        changes = tuple(
            Change(
                position=Position(xid=xid, document_id=document_id, purged=purged),
                document_id=document_id,
                document=stored(document_id, *columns) if alive else None,
            )
            for _, _, _, xid, document_id, alive, *columns in rows
            if xid is not None
        )
        return ChangePage(changes=changes, lag_seconds=lag_seconds)

    async def position_of(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Position:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL.position_of, {"collection_id": collection_id, "ids": list(ids)})
            row = await cursor.fetchone()
        return Position() if row is None else Position(xid=row[0], document_id=row[1])


async def record(connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId], now: datetime) -> None:
    """Announce that these documents change in the running transaction."""
    await connection.execute(SQL.record, {"collection_id": collection_id, "ids": list(ids), "now": now})
