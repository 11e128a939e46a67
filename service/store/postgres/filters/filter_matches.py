"""Which documents pass a filter: how many about, and where they are few enough, which.

First a sample tells the share. Then, where it is worth it, the documents are named: along the values of declared
fields, along the index over all metadata where an equality is demanded, or by looking at each.

What was named is remembered together with the horizon of the look: the transaction below which everything had been
seen. The next time only what changed at or beyond the horizon is asked anew, for the change feed knows each of them
(`changes.py`). So the answer is exact at every moment, and a filter that comes again costs one look at an index.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from service.core.collections import FieldState
from service.core.filters import Filter
from service.core.ids import CollectionId, DocumentId
from service.core.search import FilterMatch
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection, Pool
from service.store.postgres.filters import indexed_fields
from service.store.postgres.filters.field_ranges import FieldRange, RangedFilter, answered
from service.store.postgres.filters.filter_sql import indexed_predicate, predicate

SQL = sql_files.load("filter_matches")

COUNTED_DOCUMENTS = 10_000
"""Collections of up to so many documents are counted for every filter (a few milliseconds) and never sampled."""
TRUSTED_SECONDS = 30.0
"""How long the size of a larger collection, or the share that a sample told, is good for: a ratio that nobody needs
exactly."""
FIELDS_SECONDS = 1.0
"""How long fields are believed to be ready; far less than `indexed.KEPT`."""

SAMPLED_DOCUMENTS = 2_000
SAMPLED_PAGES = 1_000
"""Most that a sample reads, also where the collection is one small one of many."""
TELLING = 50
"""Passing documents in a sample that make a share of it: it is then right to a quarter or so."""
MARGIN = 2.0
"""Documents are named unless a sample says that they are more than so many times those that are worth it."""

CHANGED = 500
"""Documents that are asked anew at most; more, and all are named again."""
REMEMBERED_IDS = 1_000_000
"""Ids in memory, of all filters together: about 70 MB."""

_PROBED = 2_000
_WIDE_KEY = 0.25
"""Share of the documents beyond which a key that still leaves them to be asked one by one helps nobody."""


@dataclass(frozen=True, slots=True)
class _Named:
    """`ids` in byte order, as the index of a space has them: of 50,000 a scan then takes two thirds of the time."""

    ids: tuple[DocumentId, ...]
    horizon: str


@dataclass(frozen=True, slots=True)
class _Share:
    """What is believed until a moment: `share` as a sample told it, and that more than so many pass."""

    until: float
    share: float | None
    more_than: int = -1


@dataclass(frozen=True, slots=True)
class _Size:
    documents: int
    all_documents: float
    all_pages: int


class FilterMatches:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._named: OrderedDict[tuple[CollectionId, str], _Named] = OrderedDict()
        self._held = 0
        self._shares: dict[tuple[CollectionId, str], _Share] = {}
        self._sizes: dict[CollectionId, tuple[float, _Size]] = {}
        self._fields: dict[CollectionId, tuple[float, Mapping[str, int]]] = {}

    async def of(self, collection_id: CollectionId, where: Filter, cap: int) -> FilterMatch:
        """As `ports.Documents.passing`."""
        key = (collection_id, repr(where))  # not `where` itself: to Python 1, 1.0 and True are the same
        async with self._pool.connection() as connection:
            size = await self._size(connection, collection_id)
            named = await self._brought_up_to_date(connection, key, where)
            if named is None:
                known = await self._share(connection, key, where, size)
                about = round((known.share or 0.0) * size.documents)
                if known.more_than < cap and about <= MARGIN * cap:
                    named = await self._name(connection, key, where, cap, size)
                if named is None:
                    self._shares[key] = replace(known, more_than=max(cap, known.more_than))
                    count = max(cap + 1, about)
                    return FilterMatch(ids=None, count=count, total=max(size.documents, count))
        count = len(named.ids)
        return FilterMatch(ids=named.ids if count <= cap else None, count=count, total=max(count, size.documents))

    # ------------------------------------------------------------ how many about

    async def _size(self, connection: Connection, collection_id: CollectionId) -> _Size:
        known = self._sizes.get(collection_id)
        if known is not None and time.monotonic() < known[0] + TRUSTED_SECONDS:
            return known[1]
        cursor = await connection.execute(SQL.totals, {"collection_id": collection_id})
        ((documents, all_documents, all_pages),) = await cursor.fetchall()
        size = _Size(documents, all_documents, all_pages)
        self._sizes.pop(collection_id, None)
        if documents > COUNTED_DOCUMENTS:
            self._sizes[collection_id] = (time.monotonic(), size)
        return size

    async def _share(self, connection: Connection, key: tuple[CollectionId, str], where: Filter, size: _Size) -> _Share:
        """Of the documents that pass; not told where they are few, or the collection is too small to ask a sample."""
        now = time.monotonic()
        self._shares = {one: known for one, known in self._shares.items() if known.until > now}
        if key in self._shares:
            return self._shares[key]
        untold = _Share(now + TRUSTED_SECONDS, None)
        if size.documents <= COUNTED_DOCUMENTS:
            return untold
        pages = min(SAMPLED_PAGES, size.all_pages * SAMPLED_DOCUMENTS / max(size.documents, 1))
        asked = predicate(where)
        values = {"collection_id": key[0], "percent": min(100.0, 100.0 * pages / max(size.all_pages, 1))}
        query = sql.SQL(SQL.sampled).format(where=asked.expression)
        cursor = await connection.execute(query, {**asked.values, **values}, prepare=False)
        ((seen, passed),) = await cursor.fetchall()
        return replace(untold, share=passed / seen) if passed >= TELLING else untold

    # ------------------------------------------------------------ which

    async def _name(
        self, connection: Connection, key: tuple[CollectionId, str], where: Filter, cap: int, size: _Size
    ) -> _Named | None:
        """All that pass; None where they are more than `cap`."""
        ready = await self._ready(connection, key[0])
        ((horizon,),) = await (await connection.execute(SQL.horizon)).fetchall()
        query, values = await self._naming(connection, key[0], where, answered(where, ready), size)
        arguments = {**values, "collection_id": key[0], "limit": cap + 1}
        cursor = await connection.execute(query, arguments, prepare=False)
        rows = await cursor.fetchall()
        # A document has as many rows as it has values in a range: only a full page leaves some unread.
        named = _Named(tuple(sorted({row[0] for row in rows})), horizon)
        if len(rows) > cap:
            return None
        self._remember(key, named)
        return named

    async def _naming(
        self, connection: Connection, collection_id: CollectionId, where: Filter, found: RangedFilter, size: _Size
    ) -> tuple[sql.Composed, Mapping[str, Any]]:
        """The cheapest statement that names them."""
        asked = predicate(where)
        if found.whole:
            (key,) = found.keys
            if not key.narrowed:
                return sql.SQL(SQL.by_values).format(named=_ranged(key)), key.values
            query = sql.SQL(SQL.by_both).format(
                named=sql.SQL(SQL.ranged_alone).format(key=key.expression),
                several=sql.SQL(SQL.several),
                where=asked.expression,
            )
            return query, {**asked.values, **key.values}
        narrowest = await self._narrowest(connection, collection_id, found.keys, size)
        if narrowest is not None:
            query = sql.SQL(SQL.by_values_and_metadata).format(named=_candidates(narrowest), where=asked.expression)
            return query, {**asked.values, **narrowest.values}
        asked = indexed_predicate(where)
        return sql.SQL(SQL.by_metadata).format(where=asked.expression), asked.values

    async def _narrowest(
        self, connection: Connection, collection_id: CollectionId, keys: Sequence[FieldRange], size: _Size
    ) -> FieldRange | None:
        """The key that leaves the fewest documents to be asked one by one; None where each leaves too many."""
        counts = []
        for key in keys:
            query = sql.SQL(SQL.counted).format(named=_candidates(key))
            limit = max(_PROBED, round(_WIDE_KEY * size.documents))
            arguments = {**key.values, "collection_id": collection_id, "limit": limit}
            ((count,),) = await (await connection.execute(query, arguments, prepare=False)).fetchall()
            if count < limit:
                counts.append((count, key))
        return min(counts, key=lambda one: one[0])[1] if counts else None

    async def _ready(self, connection: Connection, collection_id: CollectionId) -> Mapping[str, int]:
        until, fields = self._fields.get(collection_id, (0.0, {}))
        if time.monotonic() >= until:
            declared = await indexed_fields.declared(connection, collection_id)
            fields = {field.name: number for number, field in declared if field.state is FieldState.READY}
            self._fields[collection_id] = (time.monotonic() + FIELDS_SECONDS, fields)
        return fields

    # ------------------------------------------------------------ what is remembered

    async def _brought_up_to_date(
        self, connection: Connection, key: tuple[CollectionId, str], where: Filter
    ) -> _Named | None:
        """What was named once, as it is now; None where it was not, or where too much changed since."""
        known = self._named.get(key)
        if known is None:
            return None
        asked = predicate(where)
        query = sql.SQL(SQL.changed).format(where=asked.expression)
        arguments = {**asked.values, "collection_id": key[0], "since": known.horizon, "limit": CHANGED}
        rows = await (await connection.execute(query, arguments, prepare=False)).fetchall()
        if not rows or rows[0][1] or len(rows) >= CHANGED:
            self._forget(key)
            return None
        changed = {id_: passes for _, _, id_, passes in rows if id_ is not None}
        if not changed:
            self._named.move_to_end(key, last=True)
            return known
        kept = [id_ for id_ in known.ids if id_ not in changed]
        named = _Named(tuple(sorted((*kept, *(id_ for id_, passes in changed.items() if passes)))), rows[0][0])
        self._remember(key, named)
        return named

    def _remember(self, key: tuple[CollectionId, str], named: _Named) -> None:
        self._forget(key)
        self._named[key] = named
        self._held += 1 + len(named.ids)
        while self._held > REMEMBERED_IDS:
            self._forget(next(iter(self._named)))

    def _forget(self, key: tuple[CollectionId, str]) -> None:
        gone = self._named.pop(key, None)
        if gone is not None:
            self._held -= 1 + len(gone.ids)


def _ranged(key: FieldRange) -> sql.Composed:
    return sql.SQL(SQL.ranged).format(key=key.expression)


def _candidates(key: FieldRange) -> sql.Composed:
    """Everything that may pass as far as the key tells."""
    if not key.narrowed:
        return sql.SQL("SELECT DISTINCT r.document_id FROM ({}) AS r").format(_ranged(key))
    alone = sql.SQL(SQL.ranged_alone).format(key=key.expression)
    return sql.SQL("{} UNION ALL {}").format(alone, sql.SQL(SQL.several))
