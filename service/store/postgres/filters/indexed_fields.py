"""The declared fields of a collection: their values are in a narrow table with an order, kept by every write.

A field is declared by the settings of its collection, in the same transaction and with the collection locked
(`collection_lock.py`): every write that commits later keeps its values. Earlier documents are filled in portions, each
in a transaction that locks its documents first, so that it reads no older metadata than a concurrent write. The
progress is stored with it: whatever is killed, another process continues from there. Only a ready field serves filters.

Processes cache for a moment which fields are ready. So the values of a dropped field are kept for a while longer
(`KEPT`), and are removed when no process can still believe in it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg import sql

from service.core.collections import FieldState, IndexedField
from service.core.errors import Invalid
from service.core.ids import CollectionId, DocumentId
from service.core.metadata import DATETIME, FieldType, FieldTypes, type_error
from service.store.postgres.connection import collection_lock, sql_files
from service.store.postgres.connection.pool import Adapter, Connection, retrying
from service.store.postgres.filters.filter_sql import INSTANT, accessors

SQL = sql_files.load("indexed_fields")

PREFIX = 64
"""Code points of a text that are stored: with a document id they must fit an index entry of 2,700 bytes."""

FILL_BATCH = 500
"""Documents that are filled in one transaction: writes of the same documents wait for its 30 ms or so."""
DELETE_BATCH = 5_000

KEPT = timedelta(seconds=60)
"""How long writers keep the values of a field that was dropped."""


async def declare(
    connection: Connection, collection_id: CollectionId, types: FieldTypes, now: datetime, *, empty: bool = False
) -> None:
    """Make these the declared fields. The caller has locked the collection; `empty`: there is nothing to fill.

    Invalid names the first documents that have a value of another type.
    """
    values = {"collection_id": collection_id, "names": list(types), "types": list(types.values()), "now": now}
    await connection.execute(SQL.undeclare, values)
    for name, kind in await connection.fetch_all(SQL.declare, {**values, "state": "ready" if empty else "building"}):
        if kind and not empty:
            await _check_type(connection, {"collection_id": collection_id, "ids": None}, name, kind)


async def _check_type(connection: Connection, of: Mapping[str, Any], name: str, kind: FieldType) -> None:
    """Invalid names the first documents of a collection (`ids`: of these) with a value that is not of the type."""
    query = sql.SQL(SQL.of_other_types).format(instant=INSTANT)
    values = {**of, "paths": _paths(name), "type": kind, "datetime": DATETIME}
    # Planned for these values: whether there are ids decides where it begins.
    if rows := await connection.fetch_all(query, values, prepare=False):
        errors = "; ".join(f"document {id_}: {type_error(value, kind)}" for id_, value in rows)
        raise Invalid.at("documents" if of["ids"] else "indexed", f"{name}: {errors}")


async def keep(connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId]) -> None:
    """Update the values of documents that this transaction wrote or deleted; it holds the collection.

    Invalid where a field got a type since the documents were validated, and they have a value of another.
    """
    fields = await connection.fetch_all(SQL.kept, {"collection_id": collection_id})
    for _, name, kind, dropped in fields:
        if kind and not dropped:
            await _check_type(connection, {"collection_id": collection_id, "ids": list(ids)}, name, kind)
    if fields:
        await _keep(connection, collection_id, ids, [field[:3] for field in fields])


async def _keep(
    connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId], fields: Sequence[Sequence[Any]]
) -> None:
    """`fields`: number, name and type of each."""
    paths = [(number, path, kind == "datetime") for number, name, kind in fields for path in _paths(name)]
    values = {
        "collection_id": collection_id,
        "ids": list(ids),
        "fields": [one[0] for one in paths],
        "paths": [one[1] for one in paths],
        "instants": [one[2] for one in paths],
        "prefix": PREFIX,
        "datetime": DATETIME,
    }
    await connection.execute(sql.SQL(SQL.keep).format(instant=INSTANT), values)


def _paths(name: str) -> list[str]:
    """An array stands for its elements, one level deep; in lax mode anything else is an array of itself."""
    return [f"lax ${path}[*]" for path in accessors(name.split("."))]


async def declared(connection: Connection, collection_id: CollectionId) -> tuple[tuple[int, IndexedField], ...]:
    """The fields with their numbers."""
    rows = await connection.fetch_all(SQL.fields, {"collection_id": collection_id})
    return tuple((one, IndexedField(name=name, state=FieldState(state), type=kind)) for one, name, state, kind in rows)


async def remove(connection: Connection, collection_id: CollectionId) -> None:
    """All values of a collection that is deleted; a foreign key deletes its fields."""
    await connection.execute(SQL.delete_values, {"collection_id": collection_id})


class IndexedFields(Adapter):
    """Fills the values of declared fields and deletes those of dropped ones."""

    async def maintain(self, now: datetime) -> None:
        """Fill what was declared and empty what was dropped. Any number of processes may do this at once."""
        rows = await self._pool.fetch_all(SQL.pending, {"dropped_before": now - KEPT})
        for collection_id in dict.fromkeys(id_ for id_, _, state in rows if state == "building"):
            while await self.fill(collection_id):
                pass
        for collection_id, number, state in rows:
            if state != "building":
                await self._empty(collection_id, number)

    async def fill(self, collection_id: CollectionId, limit: int = FILL_BATCH) -> bool:
        """Fill the next documents, for all fields that are equally far. False where there is nothing to do here."""
        return await retrying(lambda: self._fill(collection_id, limit))

    async def _fill(self, collection_id: CollectionId, limit: int) -> bool:
        key = {"collection_id": collection_id}
        async with self._pool.transaction() as connection:
            if not await collection_lock.prevent_deletion(connection, collection_id):
                return False
            rows = await connection.fetch_all(SQL.lock_fields, key)
            if not rows:
                return False
            after = min(filled_to or "" for *_, filled_to in rows)
            fields = [field for *field, filled_to in rows if (filled_to or "") == after]
            portion = {**key, "after": after, "limit": limit}
            ids = [row[0] for row in await connection.fetch_all(SQL.portion, portion)]
            if ids:
                await connection.execute(SQL.lock_documents, {**key, "ids": ids})
                await _keep(connection, collection_id, ids, fields)
            values = {"filled_to": ids[-1] if ids else after, "state": "building" if len(ids) == limit else "ready"}
            await connection.execute(SQL.filled, {**key, **values, "numbers": [number for number, _, _ in fields]})
            return True

    async def _empty(self, collection_id: CollectionId, number: int) -> None:
        key = {"collection_id": collection_id, "number": number}
        async with self._pool.transaction() as connection:
            if not await collection_lock.lock_exclusively(connection, collection_id):
                return
            await connection.execute(SQL.stop_keeping, key)
        while True:
            async with self._pool.transaction() as connection:
                removed = (await connection.execute(SQL.empty, {**key, "limit": DELETE_BATCH})).rowcount
                if removed == 0:
                    await connection.execute(SQL.delete_field, key)
                    return
