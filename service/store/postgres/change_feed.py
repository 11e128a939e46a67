"""The change feed in PostgreSQL.

A sequence number is not a commit order: a transaction may take a low number and commit late. Changes therefore carry
the id of their transaction, and followers keep their place below `pg_snapshot_xmin`, under which everything has ended.
What is committed above it, because some transaction of the server is still open, is read ahead of that place.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from service.core.change_feed import NOTHING_SEEN, Change, ChangePage, IndexMark, Position, Snapshot
from service.core.errors import CollectionNotFound, NotFound
from service.core.ids import CollectionId, DocumentId
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Adapter, Connection
from service.store.postgres.rows import document_of

SQL = sql_files.load("change_feed")

PAGE_BYTES = 16_000_000
"""Of documents that are read at once: a page of long ones is shorter."""


class PostgresChanges(Adapter):
    """Adapter of `ports.ChangeFeed`."""

    async def after(
        self,
        collection_id: CollectionId,
        position: Position,
        limit: int,
        now: datetime,
        seen: Snapshot = NOTHING_SEEN,
        mark: IndexMark | None = None,
    ) -> ChangePage:
        """The lag is the age of the first change after the position, in the order of the feed.

        A position is unusable where it lies at or before tombstones that were purged since it was reached. And where
        the database was restored since: it does not know the mark, or the position lies beyond all changes, of which
        the latest always stays, or beyond every transaction of this server.
        """
        values = _parameters(collection_id, position, seen, limit) | _mark_parameters(mark or IndexMark(generation=""))
        rows = await self._pool.fetch_all(SQL.after, values, prepare=False)
        if not rows:
            raise CollectionNotFound()
        purged, next_xid, latest, ahead, known, waiting_since = rows[0][:6]
        lag_seconds = 0.0 if waiting_since is None else max(0.0, (now - waiting_since).total_seconds())
        missed = position.xid <= purged and position.purged != purged
        beyond = position.xid >= next_xid or position.xid > (latest or 0)
        unknown = mark is not None and not known and (position.xid > 0 or mark.token)
        if (position.xid > 0 and (missed or beyond)) or seen.xmax > next_xid or unknown:
            return ChangePage(changes=(), lag_seconds=lag_seconds, rebuild=True)
        changes = tuple(_change(row[6:-1], purged) for row in rows if row[6] is not None)
        cut = len(changes) < (rows[0][-1] or 0)
        return ChangePage(changes=changes, lag_seconds=lag_seconds, ahead=bool(ahead), cut=cut)

    async def ahead(
        self, collection_id: CollectionId, seen: Snapshot, position: Position, limit: int
    ) -> tuple[tuple[Change, ...], Snapshot, bool]:
        values = _parameters(collection_id, position, seen, limit)
        rows = await self._pool.fetch_all(SQL.ahead, values, prepare=False)
        _, xmax, running = rows[0][0].split(":")
        snapshot = Snapshot(xmax=int(xmax), running=tuple(map(int, running.split(","))) if running else ())
        changes = tuple(_change(row[1:-1], position.purged) for row in rows if row[1] is not None)
        return changes, snapshot, len(changes) < (rows[0][-1] or 0)

    async def newest(self) -> Mapping[CollectionId, int]:
        return {CollectionId(id_): xid for id_, xid in await self._pool.fetch_all(SQL.newest)}

    async def mark(self, collection_id: CollectionId, mark: IndexMark, now: datetime) -> str | None:
        values = {"collection_id": collection_id, "now": now, **_mark_parameters(mark)}
        row = await self._pool.fetch_one(SQL.mark, values)
        return None if row is None else str(row[0])

    async def position_of(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Position:
        row = await self._pool.fetch_one(SQL.position_of, {"collection_id": collection_id, "ids": list(ids)})
        return Position() if row is None else Position(xid=row[0], document_id=row[1])

    async def last_missing(
        self, collection_id: CollectionId, revision: int, position: Position, seen: Snapshot
    ) -> Position | None:
        values = _parameters(collection_id, position, seen, 1) | {"revision": str(revision)}
        row = await self._pool.fetch_one(SQL.last_missing, values)
        if row is None or not row[0]:
            raise NotFound()
        return None if row[1] is None else Position(xid=row[1], document_id=row[2])


def _parameters(collection_id: CollectionId, position: Position, seen: Snapshot, limit: int) -> dict[str, Any]:
    return {
        "collection_id": collection_id,
        "xid": str(position.xid),
        "document_id": position.document_id,
        "seen": str(seen.xmax),
        "running": list(map(str, seen.running)),
        "limit": limit,
        "bytes": PAGE_BYTES,
    }


def _mark_parameters(mark: IndexMark) -> dict[str, Any]:
    return {"generation": mark.generation, "token": mark.token or None}


def _change(row: Sequence[Any], purged: int) -> Change:
    xid, document_id, present, *columns = row
    return Change(
        position=Position(xid=xid, document_id=document_id, purged=purged),
        document_id=document_id,
        document=document_of((document_id, *columns)) if present else None,
    )


async def record(connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId], now: datetime) -> None:
    """Add to the feed that these documents change in the running transaction."""
    await connection.execute(SQL.record, {"collection_id": collection_id, "ids": list(ids), "now": now})
