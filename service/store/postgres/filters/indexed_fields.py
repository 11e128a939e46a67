"""The declared fields of a collection: their values stand in a narrow table with an order, kept by every write.

A field is declared by the settings of its collection, in the same transaction and alone with it (`guard.py`): every
write that commits later keeps its values. What was there before is filled in portions, each in a transaction that
locks its documents first, so that it sees no older metadata than a write beside it. How far it came is written with
it: whatever is killed, another goes on from there. Only a field that is ready answers filters.

Processes remember for a moment which fields are ready. So the values of a field that is dropped are kept for a while
longer (`KEPT`), and are removed when no process can believe in it any more.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from service.core.collections import FieldState, IndexedField
from service.core.ids import CollectionId, DocumentId
from service.store.postgres.connection import collection_lock, sql_files
from service.store.postgres.connection.pool import Connection, Pool, retrying

SQL = sql_files.load("indexed_fields")

PREFIX = 64
"""Code points of a text that are kept: with a document id they must fit an index entry of 2,700 bytes."""

PORTION = 500
"""Documents that are filled in one transaction: writes of the same documents wait for its 30 ms or so."""
EMPTIED = 5_000

KEPT = timedelta(seconds=60)
"""How long writers keep the values of a field that was dropped."""

Field = tuple[int, str]
"""Number and name."""


def path_of(name: str) -> tuple[str, ...]:
    return tuple(name.split("."))


def accessor(path: Sequence[str]) -> str:
    """The path in the language of SQL/JSON, whose quoted names escape as JSON strings do."""
    return "lax $" + "".join(f".{json.dumps(key, ensure_ascii=False)}" for key in path)


# ---------------------------------------------------------------- parts of other modules' transactions


async def declare(
    connection: Connection, collection_id: CollectionId, names: Sequence[str], now: datetime, *, empty: bool = False
) -> None:
    """Make these the declared fields. The caller is alone with the collection; `empty`: there is nothing to fill."""
    values = {"collection_id": collection_id, "names": list(names), "now": now}
    await connection.execute(SQL.undeclare, values)
    await connection.execute(SQL.declare, {**values, "state": "ready" if empty else "building"})


async def keep(connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId]) -> None:
    """The values of documents that were written or deleted in this transaction, which holds the collection."""
    fields = await (await connection.execute(SQL.kept, {"collection_id": collection_id})).fetchall()
    if fields:
        await _keep(connection, collection_id, ids, [(number, name) for number, name in fields])


async def _keep(
    connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId], fields: Sequence[Field]
) -> None:
    values = {
        "collection_id": collection_id,
        "ids": list(ids),
        "fields": [number for number, _ in fields],
        # An array stands for its elements, one level deep; in lax mode anything else is an array of itself.
        "paths": [f"{accessor(path_of(name))}[*]" for _, name in fields],
        "prefix": PREFIX,
    }
    await connection.execute(SQL.keep, values)


async def declared(connection: Connection, collection_id: CollectionId) -> tuple[tuple[int, IndexedField], ...]:
    """The fields with their numbers."""
    rows = await (await connection.execute(SQL.fields, {"collection_id": collection_id})).fetchall()
    return tuple((number, IndexedField(name=name, state=FieldState(state))) for number, name, state in rows)


async def remove(connection: Connection, collection_id: CollectionId) -> None:
    """All values of a collection that is deleted; its fields go by their foreign key."""
    await connection.execute(SQL.delete_values, {"collection_id": collection_id})


# ---------------------------------------------------------------- filling and emptying


class IndexedFields:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def maintain(self, now: datetime) -> None:
        """Fill what was declared, empty what was dropped. Any number of processes may be at it."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(SQL.under_way, {"dropped_before": now - KEPT})).fetchall()
        for collection_id in dict.fromkeys(id_ for id_, _, state in rows if state == "building"):
            while await self.fill(collection_id):
                pass
        for collection_id, number, state in rows:
            if state != "building":
                await self._empty(collection_id, number)

    async def fill(self, collection_id: CollectionId, limit: int = PORTION) -> bool:
        """The next portion of documents, for all fields that are as far. False where there is nothing to do here."""
        return await retrying(lambda: self._fill(collection_id, limit))

    async def _fill(self, collection_id: CollectionId, limit: int) -> bool:
        key = {"collection_id": collection_id}
        async with self._pool.transaction() as connection:
            if not await collection_lock.present(connection, collection_id):
                return False
            rows = await (await connection.execute(SQL.take, key)).fetchall()
            if not rows:
                return False
            after = min(filled_to or "" for _, _, filled_to in rows)
            fields = [(number, name) for number, name, filled_to in rows if (filled_to or "") == after]
            portion = {**key, "after": after, "limit": limit}
            ids = [row[0] for row in await (await connection.execute(SQL.portion, portion)).fetchall()]
            if ids:
                await connection.execute(SQL.lock, {**key, "ids": ids})
                await _keep(connection, collection_id, ids, fields)
            values = {"filled_to": ids[-1] if ids else after, "state": "building" if len(ids) == limit else "ready"}
            await connection.execute(SQL.filled, {**key, **values, "numbers": [number for number, _ in fields]})
            return True

    async def _empty(self, collection_id: CollectionId, number: int) -> None:
        key = {"collection_id": collection_id, "number": number}
        async with self._pool.transaction() as connection:
            if not await collection_lock.alone(connection, collection_id):
                return
            await connection.execute(SQL.stop_keeping, key)
        while True:
            async with self._pool.transaction() as connection:
                removed = (await connection.execute(SQL.empty, {**key, "limit": EMPTIED})).rowcount
                if removed == 0:
                    await connection.execute(SQL.forget, key)
                    return
