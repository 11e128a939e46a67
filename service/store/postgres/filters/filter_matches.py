"""Which documents pass a filter: roughly how many, and where they are few enough, their ids.

First a sample estimates the share. Then, where it is worth it, the ids are selected: along the values of declared
fields, along the index over all metadata where the filter requires an equality, or by reading each document.

Selected ids are cached together with the horizon of the query: the transaction below which it had seen everything. The
next time only the documents that changed at or beyond the horizon are checked again, for the change feed lists each of
them (`change_feed.py`). So the answer is always exact, and a repeated filter costs one index lookup.
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from service.core.collections import FieldState
from service.core.filters import Filter
from service.core.ids import CollectionId, DocumentId
from service.core.search import FilterMatch
from service.spaces.sample_cache import SampleCache
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection, Pool
from service.store.postgres.filters import indexed_fields
from service.store.postgres.filters.field_ranges import FieldNumbers, FieldRange, RangedFilter, ranges_of
from service.store.postgres.filters.filter_sql import Predicate, indexed_predicate, predicate
from service.store.postgres.filters.simplify import simplified

SQL = sql_files.load("filter_matches")

MAX_COLLECTIONS = 10_000
"""Whose size and fields are remembered."""
COUNTED_DOCUMENTS = 10_000
"""Collections of up to so many documents are counted for every filter (a few milliseconds) and never sampled."""
TRUSTED_SECONDS = 30.0
"""How long the size of a larger collection, or a sampled share, is used: a ratio that need not be exact."""
FIELDS_SECONDS = 1.0
"""How long fields are believed to be ready; far less than `indexed_fields.KEPT`."""

LISTING_SECONDS = 5.0
"""What takes longer to list is searched along the index of vectors instead."""

SAMPLED_DOCUMENTS = 2_000
SAMPLED_PAGES = 1_000
"""The most that a sample reads, also where the collection is a small one among many."""
MIN_SAMPLE_MATCHES = 50
"""Passing documents that a sample must contain to give a share, which is then right to about a quarter."""
MARGIN = 2.0
"""Ids are selected unless a sample says that there are more than so many times the cap."""

MAX_CHANGED = 500
"""Documents that are checked again at most; where more changed, all ids are selected again."""
CACHED_IDS = 1_000_000
"""Ids in memory, of all filters together: about 70 MB."""

_MIN_COUNTED = 2_000
_WIDE_RANGE = 0.25
"""Share of the documents beyond which a range that leaves them to be checked one by one is no help."""

CacheKey = tuple[CollectionId, str]


@dataclass(frozen=True, slots=True)
class ListedIds:
    """`ids` in byte order, as the index of a space has them: a scan of 50,000 then takes two thirds of the time."""

    ids: tuple[DocumentId, ...]
    horizon: str


@dataclass(frozen=True, slots=True)
class _Estimate:
    """Valid until a moment: the `share` of a sample, and that more than `more_than` documents pass."""

    until: float
    share: float | None
    more_than: float = -1


@dataclass(frozen=True, slots=True)
class _Size:
    documents: int
    all_documents: float
    all_pages: int


class FilterMatches:
    """Finds and caches the documents that pass filters, for all collections."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._cache: dict[CacheKey, ListedIds] = {}  # the least recently used first
        self._cached_ids = 0
        self._estimates: dict[CacheKey, _Estimate] = {}
        self._sizes = SampleCache[CollectionId, _Size](seconds=TRUSTED_SECONDS, capacity=MAX_COLLECTIONS)
        self._fields = SampleCache[CollectionId, FieldNumbers](seconds=FIELDS_SECONDS, capacity=MAX_COLLECTIONS)

    async def find(
        self, collection_id: CollectionId, where: Filter, cap: int, seconds: float | None = None
    ) -> FilterMatch:
        """As `Documents.match_filter`."""
        condition = predicate(where)
        key = (collection_id, repr(simplified(where)))  # not a filter itself: to Python 1, 1.0 and True are the same
        async with self._pool.filtering(condition.lookups) as connection:
            size = await self._size(connection, collection_id)
            found = await self._cached(connection, key, condition)
            if found is None:
                estimate = await self._estimate(connection, key, condition, size)
                about = round((estimate.share or 0.0) * size.documents)
                more_than: float = cap
                if estimate.more_than < cap and about <= MARGIN * cap:
                    try:
                        async with asyncio.timeout(min(LISTING_SECONDS, seconds or math.inf)):
                            found = await self._select(connection, key, where, cap, size)
                    except TimeoutError:
                        more_than = math.inf
                if found is None:
                    self._estimates[key] = replace(estimate, more_than=max(more_than, estimate.more_than))
                    count = max(cap + 1, about)
                    return FilterMatch(ids=None, count=count, total=max(size.documents, count))
        count = len(found.ids)
        return FilterMatch(ids=found.ids if count <= cap else None, count=count, total=max(count, size.documents))

    async def listed(
        self, connection: Connection, collection_id: CollectionId, where: Filter, cap: int
    ) -> ListedIds | None:
        """All that pass, with the horizon of the statement that listed them; None where they are more than `cap`."""
        key = (collection_id, repr(simplified(where)))
        if (found := await self._cached(connection, key, predicate(where))) is not None:
            return found
        return await self._select(connection, key, where, cap, await self._size(connection, collection_id))

    async def _size(self, connection: Connection, collection_id: CollectionId) -> _Size:
        if (known := self._sizes.get(collection_id)) is not None:
            return known
        (row,) = await connection.fetch_all(SQL.totals, {"collection_id": collection_id})
        size = _Size(*row)
        if size.documents > COUNTED_DOCUMENTS:
            self._sizes.put(collection_id, size)
        return size

    async def _estimate(self, connection: Connection, key: CacheKey, condition: Predicate, size: _Size) -> _Estimate:
        """The share that passes; None where it is small, or the collection too small for a sample."""
        now = time.monotonic()
        self._estimates = {one: estimate for one, estimate in self._estimates.items() if estimate.until > now}
        unknown = _Estimate(now + TRUSTED_SECONDS, None)
        if key in self._estimates or size.documents <= COUNTED_DOCUMENTS:
            return self._estimates.get(key, unknown)
        pages = min(SAMPLED_PAGES, size.all_pages * SAMPLED_DOCUMENTS / max(size.documents, 1))
        values = {"collection_id": key[0], "percent": min(100.0, 100.0 * pages / max(size.all_pages, 1))}
        query = sql.SQL(SQL.sampled).format(where=condition.expression)
        ((sampled, passed),) = await connection.fetch_all(query, {**condition.values, **values}, prepare=False)
        return replace(unknown, share=passed / sampled) if passed >= MIN_SAMPLE_MATCHES else unknown

    async def _select(
        self, connection: Connection, key: CacheKey, where: Filter, cap: int, size: _Size
    ) -> ListedIds | None:
        """All that pass; None where they are more than `cap`."""
        ranged = ranges_of(simplified(where), await self._ready_fields(connection, key[0]))
        ((horizon,),) = await connection.fetch_all(SQL.horizon)
        query, values = await self._cheapest_query(connection, key[0], where, ranged, size)
        values = {**values, "collection_id": key[0], "limit": cap + 1}
        rows = await connection.fetch_all(query, values, prepare=False)
        # A document has as many rows as it has values in a range: only a full page leaves some unread.
        if len(rows) > cap:
            return None
        found = ListedIds(tuple(sorted({row[0] for row in rows})), horizon)
        self._remember(key, found)
        return found

    async def _cheapest_query(
        self, connection: Connection, collection_id: CollectionId, where: Filter, ranged: RangedFilter, size: _Size
    ) -> tuple[sql.Composed, Mapping[str, Any]]:
        condition = predicate(where)
        if ranged.complete:
            (key,) = ranged.ranges
            in_range = sql.SQL(SQL.single_value_in_range if key.narrowed else SQL.in_range).format(key=key.expression)
            if not key.narrowed:
                return sql.SQL(SQL.by_values).format(named=in_range), key.values
            several = sql.SQL(SQL.several)
            query = sql.SQL(SQL.by_both).format(named=in_range, several=several, where=condition.expression)
            return query, {**condition.values, **key.values}
        narrowest = await self._narrowest(connection, collection_id, ranged.ranges, size)
        if narrowest is not None:
            query = sql.SQL(SQL.by_values_and_metadata).format(named=_candidates(narrowest), where=condition.expression)
            return query, {**condition.values, **narrowest.values}
        condition = indexed_predicate(where)
        return sql.SQL(SQL.by_metadata).format(where=condition.expression), condition.values

    async def _narrowest(
        self, connection: Connection, collection_id: CollectionId, ranges: Sequence[FieldRange], size: _Size
    ) -> FieldRange | None:
        """The range that leaves the fewest documents to be checked one by one; None where each leaves too many."""
        limit = max(_MIN_COUNTED, round(_WIDE_RANGE * size.documents))
        counts = []
        for key in ranges:
            query = sql.SQL(SQL.counted).format(named=_candidates(key))
            values = {**key.values, "collection_id": collection_id, "limit": limit}
            ((count,),) = await connection.fetch_all(query, values, prepare=False)
            if count < limit:
                counts.append((count, key))
        return min(counts, key=lambda one: one[0])[1] if counts else None

    async def _ready_fields(self, connection: Connection, collection_id: CollectionId) -> FieldNumbers:
        if (fields := self._fields.get(collection_id)) is None:
            declared = await indexed_fields.declared(connection, collection_id)
            ready = [(number, field) for number, field in declared if field.state is FieldState.READY]
            fields = {(field.name, field.type == "datetime"): number for number, field in ready}
            self._fields.put(collection_id, fields)
        return fields

    async def _cached(self, connection: Connection, key: CacheKey, condition: Predicate) -> ListedIds | None:
        """Cached ids, brought up to date; None where there are none, or where too much changed since."""
        known = self._cache.get(key)
        if known is None:
            return None
        query = sql.SQL(SQL.changed).format(where=condition.expression)
        values = {**condition.values, "collection_id": key[0], "since": known.horizon, "limit": MAX_CHANGED}
        rows = await connection.fetch_all(query, values, prepare=False)
        if not rows or rows[0][1] or len(rows) >= MAX_CHANGED:
            self._forget(key)
            return None
        changed = {id_: passes for _, _, id_, passes in rows if id_ is not None}
        if changed:
            passing = {id_ for id_, passes in changed.items() if passes}
            known = ListedIds(tuple(sorted(passing.union(known.ids) - (changed.keys() - passing))), rows[0][0])
        self._remember(key, known)
        return known

    def _remember(self, key: CacheKey, found: ListedIds) -> None:
        self._forget(key)
        self._cache[key] = found
        self._cached_ids += 1 + len(found.ids)
        while self._cached_ids > CACHED_IDS:
            self._forget(next(iter(self._cache)))

    def _forget(self, key: CacheKey) -> None:
        if (removed := self._cache.pop(key, None)) is not None:
            self._cached_ids -= 1 + len(removed.ids)


def _candidates(key: FieldRange) -> sql.Composed:
    """Every document that the range does not exclude."""
    in_range = sql.SQL(SQL.single_value_in_range if key.narrowed else SQL.in_range).format(key=key.expression)
    if key.narrowed:
        return sql.SQL("{} UNION ALL {}").format(in_range, sql.SQL(SQL.several))
    return sql.SQL("SELECT DISTINCT r.document_id FROM ({}) AS r").format(in_range)
