"""How many documents have each value of some fields, under a filter.

PostgreSQL needs some 50 ms to count the values of one field in 100,000 documents. So the values of declared fields are
held in memory, by document, together with the horizon of the statement that read them: the transaction below which it
had seen everything. Each time only the documents that changed at or beyond the horizon are read again, in a statement
that also says whether they pass the filter. So counts are always exact, as the ids of filters are
(`filter_matches.py`).
Fields that are not declared, and collections with too many documents, are counted by PostgreSQL. The values are read
before a request needs them (`Facets.warm`), and a facet is computed anew only where something changed.
"""

import asyncio
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from psycopg import sql

from service.core.collections import Collection
from service.core.concurrency import off_loop
from service.core.errors import CollectionNotFound, Invalid
from service.core.facets import MAX_DISTINCT, Facet, FacetRequest
from service.core.filters import Filter
from service.core.ids import CollectionId, DocumentId
from service.core.lru import LruDict
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import ROWS_AT_ONCE, Connection, Pool
from service.store.postgres.facets.value_lists import NOTHING, ValueLists
from service.store.postgres.filters.filter_matches import FilterMatches
from service.store.postgres.filters.filter_sql import accessors, predicate
from service.store.postgres.filters.simplify import simplified

SQL, CHANGES = sql_files.load("facets"), sql_files.load("change_feed")

HELD_DOCUMENTS = 300_000
"""Of all collections together: about 150 bytes each, and 4 for each field."""
MAX_CHANGED, CHANGED_SHARE = 2_000, 1 / 16
"""Documents that are read again at most, in a large collection this share of it; where more changed, all are."""
_MASKS, _FACETS = 32, 256
"""Filters of one collection that are remembered, with a byte for each document; and facets."""


@dataclass(slots=True)
class _Mask:
    """Which rows pass a filter, as of a horizon."""

    rows: bytearray
    horizon: int


@dataclass(slots=True)
class _Columns:
    """The documents of a collection in rows; by field the number of the list of values in each row."""

    horizon: int
    rows: dict[DocumentId, int] = field(default_factory=dict)
    lists: dict[str, ValueLists] = field(default_factory=dict)
    codes: dict[str, "array[int]"] = field(default_factory=dict)
    living: bytearray = field(default_factory=bytearray)
    masks: LruDict[str, _Mask] = field(default_factory=lambda: LruDict(_MASKS))
    facets: LruDict[tuple[str, FacetRequest], Facet] = field(default_factory=lambda: LruDict(_FACETS))
    """By filter and request, since the last change."""

    def put(self, document_id: DocumentId, cells: Sequence[str]) -> int:
        """The row of a living document with these lists of values, in the order of the fields."""
        row = self.rows.setdefault(document_id, len(self.rows))
        if new := row == len(self.living):
            self.living.append(1)
        self.living[row] = 1
        for (name, codes), cell in zip(self.codes.items(), cells, strict=True):
            code = self.lists[name].number(cell)
            if new:
                codes.append(code)
            else:
                codes[row] = code
        return row

    def remove(self, document_id: DocumentId) -> None:
        if (row := self.rows.get(document_id)) is not None:
            self.put(document_id, [NOTHING] * len(self.codes))
            self.living[row] = 0

    def rows_of(self, ids: Iterable[DocumentId]) -> bytearray:
        """1 for the row of each of these documents, 0 for others."""
        rows = bytearray(len(self.living))
        for id_ in ids:
            if (row := self.rows.get(id_)) is not None:
                rows[row] = 1
        return rows

    @property
    def mostly_dead(self) -> bool:
        return self.living.count(0) > len(self.living) // 2


class Facets:
    """Counts for all collections. `filter_matches` lists the documents that pass a filter."""

    def __init__(self, pool: Pool, filter_matches: FilterMatches) -> None:
        self._pool, self._filter_matches = pool, filter_matches
        self._held: dict[CollectionId, _Columns] = {}  # the least recently used first
        self._locks: dict[CollectionId, asyncio.Lock] = {}
        self._warmed: dict[CollectionId, tuple[int | None, frozenset[str]]] = {}
        """The newest change and the fields of a collection when its values were last read ahead."""

    async def warm(self, collections: Sequence[Collection]) -> None:
        """Hold the values of declared fields as far as all of them fit; of idle collections nothing is read again."""
        newest = dict[CollectionId, int](await self._pool.fetch_all(CHANGES.newest))
        warmed, self._warmed = self._warmed, {}
        for one in collections:
            state = newest.get(one.id), frozenset(one.settings.field_types)
            if warmed.get(one.id) != state and state[1]:
                async with self._locks.setdefault(one.id, asyncio.Lock()):
                    others = sum(len(columns.rows) for id_, columns in self._held.items() if id_ != one.id)
                    requests = [FacetRequest(field=name) for name in one.settings.field_types]
                    with suppress(CollectionNotFound):  # it was deleted meanwhile
                        await self._count_held(one.id, requests, None, HELD_DOCUMENTS - others)
            self._warmed[one.id] = state

    async def count(
        self, collection: Collection, requests: Sequence[FacetRequest], where: Filter | None
    ) -> tuple[Facet, ...]:
        """As `Documents.facets`."""
        declared = set(collection.settings.field_types)
        held = [one for one in requests if one.field in declared]
        found: dict[str, Facet] = {}
        if held:
            async with self._locks.setdefault(collection.id, asyncio.Lock()):
                found = await self._count_held(collection.id, held, where, HELD_DOCUMENTS)
        for at, one in enumerate(requests):
            if one.field not in found:
                found[one.field] = await self._count_by_server(collection.id, at, one, where)
        return tuple(found[one.field] for one in requests)

    async def _count_held(
        self, collection_id: CollectionId, requests: Sequence[FacetRequest], where: Filter | None, most: int
    ) -> dict[str, Facet]:
        """Nothing where there are more documents than that."""
        async with self._pool.filtering(predicate(where).lookups) as connection:
            columns = self._held.pop(collection_id, None)
            names = {one.field for one in requests}
            if columns is None or not names <= columns.codes.keys() or columns.mostly_dead:
                columns = await self._load(
                    connection, collection_id, names.union(columns.codes if columns else ()), most
                )
            mask = None if columns is None else await self._mask(connection, collection_id, columns, where)
            if columns is None or not await self._refresh(connection, collection_id, columns, mask, where):
                columns = await self._load(connection, collection_id, names, most)
                mask = None if columns is None else await self._mask(connection, collection_id, columns, where)
            if columns is None or (where is not None and mask is None):
                return {}
        self._held[collection_id] = columns
        while sum(len(one.rows) for one in self._held.values()) > HELD_DOCUMENTS:
            self._forget(next(iter(self._held)))
        key = "" if where is None else repr(simplified(where))
        found = {one.field: columns.facets[key, one] for one in requests if (key, one) in columns.facets}
        if missing := [one for one in requests if one.field not in found]:
            for one, facet in zip(missing, await off_loop(0, _counted, columns, mask, missing), strict=True):
                found[one.field] = columns.facets[key, one] = facet
        return found

    def _forget(self, collection_id: CollectionId) -> None:
        del self._held[collection_id]
        if not self._locks[collection_id].locked():
            del self._locks[collection_id]

    async def _load(
        self, connection: Connection, collection_id: CollectionId, names: Iterable[str], most: int
    ) -> _Columns | None:
        """All documents; None where they are more than that."""
        counting = {"collection_id": collection_id, "limit": most + 1}
        ((count,),) = await connection.fetch_all(SQL.counted_documents, counting)
        if count > most:
            return None
        fields = sorted(names)
        ((horizon,),) = await connection.fetch_all(SQL.horizon)
        columns = _Columns(int(horizon))
        columns.lists = {name: ValueLists() for name in fields}
        columns.codes = {name: array("i") for name in fields}
        query = sql.SQL(SQL.all_values).format(cells=_cells(fields))
        cursor = await connection.execute(query, {**_paths(fields), "collection_id": collection_id}, prepare=False)
        while rows := await cursor.fetchmany(ROWS_AT_ONCE):
            for id_, *cells in rows:
                columns.put(id_, cells)
            await asyncio.sleep(0)
        return columns

    async def _mask(
        self, connection: Connection, collection_id: CollectionId, columns: _Columns, where: Filter | None
    ) -> _Mask | None:
        """Of a filter; None without one, or where too many documents pass to be listed."""
        if where is None:
            return None
        key = repr(simplified(where))
        if (mask := columns.masks.get(key)) is None:
            listed = await self._filter_matches.listed(connection, collection_id, where, HELD_DOCUMENTS)
            if listed is None:
                return None
            mask = _Mask(await off_loop(0, columns.rows_of, listed.ids), int(listed.horizon))
        columns.masks[key] = mask
        return mask

    async def _refresh(
        self,
        connection: Connection,
        collection_id: CollectionId,
        columns: _Columns,
        mask: _Mask | None,
        where: Filter | None,
    ) -> bool:
        """Read again what changed since columns and mask were read. False where that is too much."""
        condition = predicate(where)
        fields = list(columns.codes)
        names = sql.SQL(", ").join(sql.Identifier(f"c{at}") for at in range(len(fields)))
        query = sql.SQL(SQL.changed).format(where=condition.expression, cells=_cells(fields), names=names)
        limit = max(MAX_CHANGED, int(CHANGED_SHARE * len(columns.rows)))
        since = columns.horizon if mask is None else min(columns.horizon, mask.horizon)
        values = {
            **condition.values,
            **_paths(fields),
            "collection_id": collection_id,
            "since": str(since),
            "limit": limit,
        }
        rows = await connection.fetch_all(query, values, prepare=False)
        if not rows:
            raise CollectionNotFound
        if rows[0][1] or len(rows) >= limit:
            return False
        if rows[0][2] is not None:
            columns.facets.clear()
        changed = [(row, columns.put(row[2], row[4:])) for row in rows if row[3] is not None]
        for row in rows:
            if row[2] is not None and row[3] is None:
                columns.remove(row[2])
        columns.horizon = int(rows[0][0])
        if mask is not None:
            mask.horizon = columns.horizon
            mask.rows.extend(bytes(len(columns.living) - len(mask.rows)))
            for row, at in changed:
                mask.rows[at] = row[3]
        return True

    async def _count_by_server(
        self, collection_id: CollectionId, at: int, request: FacetRequest, where: Filter | None
    ) -> Facet:
        condition = predicate(where)
        query = sql.SQL(SQL.counted).format(where=condition.expression, cells=_cells([request.field]))
        paths = _paths([request.field])
        values = {**condition.values, **paths, "collection_id": collection_id, "limit": MAX_DISTINCT + 1}
        lookups = condition.lookups + len(paths)
        rows: list[Any] = await self._pool.fetch_all(query, values, prepare=False, lookups=lookups)
        if len(rows) > MAX_DISTINCT:
            raise Invalid.at(f"facets.{at}", f"{request.field} has more than {MAX_DISTINCT} different values")

        def facet() -> Facet:
            lists = ValueLists()
            for cell, _ in rows:
                lists.number(cell)
            return lists.facet(request, np.array([count for _, count in rows], np.int64))

        return await off_loop(len(rows) * 100, facet)


def _counted(columns: _Columns, mask: _Mask | None, requests: Sequence[FacetRequest]) -> list[Facet]:
    living = np.frombuffer(columns.living, np.bool_)
    rows = living if mask is None else living & np.frombuffer(mask.rows, np.bool_)
    every = bool(rows.all())
    found = []
    for one in requests:
        codes = np.frombuffer(columns.codes[one.field], np.int32)
        counts = np.bincount(codes if every else codes[rows], minlength=len(columns.lists[one.field]))
        found.append(columns.lists[one.field].facet(one, counts))
    return found


def _cells(fields: Sequence[str]) -> sql.Composed:
    """For each field the list of its values as text; a name with dots can be read in several ways."""
    cells = []
    for at, name in enumerate(fields):
        paths = range(len(accessors(name.split("."))))
        arrays = [sql.SQL("jsonb_path_query_array(d.metadata, {}::jsonpath)").format(_path(at, one)) for one in paths]
        joined = sql.SQL(" || ").join(arrays)
        cells.append(sql.SQL("({})::text AS {}").format(joined, sql.Identifier(f"c{at}")))
    return sql.SQL(", ").join(cells)


def _path(field: int, reading: int) -> sql.Placeholder:
    return sql.Placeholder(f"path_{field}_{reading}")


def _paths(fields: Sequence[str]) -> dict[str, str]:
    return {
        f"path_{at}_{reading}": f"lax ${path}[*]"
        for at, name in enumerate(fields)
        for reading, path in enumerate(accessors(name.split(".")))
    }
