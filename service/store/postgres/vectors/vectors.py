"""The spaces in PostgreSQL: one table of vectors for each embedder version.

The planner never chooses how a search runs: an exact scan orders by an expression that no index can serve, and an
indexed one disables sorting for its own transaction, so that only the index can give the order.

An index of one bit per dimension only selects rows. They are scored by their vectors in the same statement, so that
scores are exact cosines whatever the storage.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
from psycopg import sql
from psycopg.rows import TupleRow

from service.core.concurrency import gather_limited
from service.core.filters import Filter
from service.core.ids import CollectionId, DocumentId, Vector, VersionNumber
from service.core.jobs import EncodedDocument
from service.core.limits import MAX_EF_SEARCH
from service.core.ports.vectors import VectorQuery
from service.core.search import Candidate, DensePlan
from service.core.vector_math import direction
from service.core.versions import EmbedderVersion, VectorSample
from service.store.postgres import queue
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Adapter, Connection, Pool, Values, retrying
from service.store.postgres.filters.filter_sql import Predicate, predicate
from service.store.postgres.rows import text_array
from service.store.postgres.vectors import vector_index
from service.store.postgres.vectors.index_kinds import kind_of
from service.store.postgres.vectors.vector_tables import (
    StorageLayout,
    indexed,
    layout_of,
    missing_table,
    on_table,
    seal,
    vector_table,
    vector_table_of,
)

SQL = sql_files.load("vectors")

_MAX_SCAN_TUPLES = 400_000
"""Rows that an iterative scan reads at most, where the plan sets no lower limit."""
_SCAN_MEMORY = 16
"""Multiple of work_mem for an iterative scan: room for as many rows as it may read."""

_RESCORED = 4
"""An index of bits returns so many times the rows that are wanted, or `ef_search` where that is more, to be scored by
their vectors: 400 give of 100 the share 0.87 (binary) and 0.97 (scalar) with 20,000 chunks of MiniLM
(`loadtests/storages.py`), and a million need up to 1,600 (docs/performance/large.md)."""

_MIN_SPLIT = 20_000
"""From so many ids on two connections scan a half each: one takes 37 ms for 50,000. Parallel workers of the server
would each read all the ids, and take twice as long as one."""

_SAMPLED_PAGES = 10
"""Rows of a page were written together. So many times the size of a sample are read for it, page by page."""

_as_candidate = partial(tuple.__new__, Candidate)
"""As `Candidate._make`, in a third of the time: the statements have its fields as columns."""

_COPY_TYPES = ("int8", "text", "int4", "int4", "int8", "int8", "int8", "bytea")


class PostgresVectors(Adapter):
    """Adapter of `ports.VectorStore`."""

    def __init__(self, pool: Pool, *, parallel: bool = True) -> None:
        """`parallel=False`: no scan uses a second connection, and with it a second processor of the server."""
        super().__init__(pool)
        self._parallel = parallel

    async def write(self, version: EmbedderVersion, encoded: Sequence[EncodedDocument]) -> frozenset[DocumentId]:
        """A job of another version is skipped too.

        Each row carries the version and the seal of its job, and the table rejects those that are not its own.
        """
        own = [one for one in encoded if (one.job.collection_id, one.job.version) == _space(version)]
        copy, remove = on_table(SQL.copy, version), on_table(SQL.remove, version)
        layout = layout_of(version)

        async def commit() -> frozenset[DocumentId]:
            async with self._pool.transaction() as connection:
                finished = await queue.finish(connection, [one.job for one in own])
                stored = frozenset(job.document_id for job in finished)
                if stored:
                    await connection.execute(remove, {"collection_id": version.collection_id, "ids": list(stored)})
                    async with connection.cursor() as cursor, cursor.copy(copy) as rows:
                        rows.set_types((*_COPY_TYPES, layout.type))
                        # By jobs and not by documents, which may have been claimed again meanwhile.
                        for row in chain.from_iterable(_rows(one, layout) for one in own if one.job in finished):
                            await rows.write_row(row)
                return stored

        with missing_table(version.number):
            return await retrying(commit) if own else frozenset()

    async def nearest(self, query: VectorQuery) -> tuple[Candidate, ...]:
        """Ids are always scanned exactly. `ef_search` None: as large as `limit`.

        The index returns at most `ef_search` rows, fewer where a filter without iteration drops some; an index of bits
        returns as many as wanted.
        """
        within = query.within
        if query.limit <= 0 or (within is not None and not within) or query.plan.kind == "none":
            return ()
        if within is None or len(within) < _MIN_SPLIT or not self._parallel:
            return await self._nearest(query)
        middle = len(within) // 2
        queries = [replace(query, within=half, where=None) for half in (within[:middle], within[middle:])]
        halves = await gather_limited([partial(self._nearest, half) for half in queries], limit=2)
        return tuple(islice(heapq.merge(*halves, key=lambda one: -one.score), query.limit))

    async def _nearest(self, query: VectorQuery) -> tuple[Candidate, ...]:
        version, plan, limit = query.version, query.plan, query.limit
        restriction = _restriction(query.within, query.where)
        by_index = plan.kind in ("hnsw", "hnsw_iterative") and query.within is None
        statement = _nearest_statement(query, by_index, restriction.expression)
        values = {
            **restriction.values,
            "collection_id": version.collection_id,
            "vector": layout_of(version).value(query.vector),
            "limit": limit,
            "rescored": _rescored(plan, limit),
        }
        if not by_index:
            return _candidates(await self._fetch(version, statement, values, restriction.lookups))
        async with self._pool.filtering(restriction.lookups) as connection:
            # One round trip, and one implicit transaction: a pipeline is one up to its end, and so are the settings.
            cursor = connection.cursor(binary=True)
            with missing_table(version.number):
                async with connection.pipeline():
                    await connection.execute(kind_of(version).set_scan, _scan_settings(version, plan, limit))
                    await cursor.execute(statement, values, prepare=False)
            return _candidates(await cursor.fetchall())

    async def score(
        self, version: EmbedderVersion, vector: Vector | None, ids: Sequence[DocumentId], chunks: int = 1
    ) -> tuple[Candidate, ...]:
        if not ids:
            return ()
        values = {
            "collection_id": version.collection_id,
            "vector": None if vector is None else layout_of(version).value(vector),
            "ids": text_array(list(dict.fromkeys(ids))),
            "chunks": chunks,
        }
        return _candidates(await self._fetch(version, on_table(SQL.score, version), values))

    async def directions(self, version: EmbedderVersion, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Vector]:
        """The server computes the means: a book has thousands of chunks."""
        values = {"collection_id": version.collection_id, "ids": list(ids)}
        rows = await self._fetch(version, on_table(SQL.directions, version), values)
        means = {id_: direction(mean.to_numpy()) for id_, mean in rows}
        return {id_: mean for id_, mean in means.items() if mean is not None}

    async def get(
        self, version: EmbedderVersion, chunks: Sequence[tuple[DocumentId, int]], revisions: Sequence[int] | None = None
    ) -> Mapping[tuple[DocumentId, int], Vector]:
        """Normalised again, for half precision changes the length a little."""
        values = {
            "collection_id": version.collection_id,
            "ids": [id_ for id_, _ in chunks],
            "chunks": [chunk for _, chunk in chunks],
            "revisions": [None] * len(chunks) if revisions is None else list(revisions),
        }
        rows = await self._fetch(version, on_table(SQL.get, version), values)
        return {(id_, chunk): _unit(stored) for id_, chunk, stored in rows}

    async def chunks(self, version: EmbedderVersion, ids: Sequence[DocumentId]) -> tuple[tuple[Candidate, Vector], ...]:
        values = {"collection_id": version.collection_id, "ids": text_array(ids)}
        rows = await self._fetch(version, on_table(SQL.chunks, version), values)
        return tuple((_as_candidate(row[:-1]), row[-1].to_numpy().astype(np.float32)) for row in rows)

    async def sample(self, version: EmbedderVersion, size: int) -> VectorSample:
        """Whole pages are drawn, so that a large table costs no more than a small one.

        Their number follows from an estimate of the rows; where that was too high, more are drawn.
        """
        query = on_table(SQL.sample, version)
        async with self._pool.connection() as connection:
            status = await vector_index.space_status(connection, version.collection_id, version.number)
        percent = min(100.0, 100.0 * _SAMPLED_PAGES * size / max(1, status.rows))
        while len(rows := await self._fetch(version, query, {"percent": percent, "size": size})) < size:
            if percent == 100.0:
                break
            percent = min(100.0, 4 * percent)
        vectors = [_unit(row[-1]) for row in rows]
        return VectorSample(
            chunks=tuple((row[0], row[3]) for row in rows),
            vectors=np.stack(vectors) if vectors else np.empty((0, version.dimensions), np.float32),
            places=_candidates([row[:-1] for row in rows]),
        )

    async def _fetch(
        self, version: EmbedderVersion, query: sql.Composed, values: Values, lookups: int = 0
    ) -> list[TupleRow]:
        """Rows in binary format. VersionNotFound where the table was dropped meanwhile. `lookups`: of a filter."""
        with missing_table(version.number):
            async with self._pool.filtering(lookups) as connection:
                cursor = connection.cursor(binary=True)
                return await (await cursor.execute(query, values, prepare=False)).fetchall()


async def remove(connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId]) -> None:
    """Remove the vectors of these documents from every space of the collection."""
    cursor = await connection.execute(SQL.tables, {"collection_id": collection_id})
    for (number,) in await cursor.fetchall():
        table = vector_table(collection_id, VersionNumber(number)).table_identifier
        query = sql.SQL(SQL.remove).format(vectors=table)
        await connection.execute(query, {"collection_id": collection_id, "ids": list(ids)})


def _rows(encoded: EncodedDocument, layout: StorageLayout) -> Iterator[tuple[Any, ...]]:
    """The rows of one document, in the order of the statement `copy`."""
    job = encoded.job
    for chunk, vector in zip(encoded.chunks, encoded.vectors, strict=True):
        value = layout.value(vector)
        yield (
            job.collection_id,
            job.document_id,
            chunk.number,
            job.version,
            job.content_revision,
            chunk.start,
            chunk.end,
            seal(job.collection_id, job.version, value),
            value,
        )


def _restriction(within: Sequence[DocumentId] | None, where: Filter | None) -> Predicate:
    """The part of a statement that restricts it to some documents."""
    if within is not None:
        return Predicate(sql.SQL(SQL.only_ids), {"ids": text_array(within)})
    if where is None:
        return Predicate(sql.SQL(""), {})
    condition = predicate(where)
    return replace(condition, expression=sql.SQL(SQL.only_matching).format(where=condition.expression))


def _nearest_statement(query: VectorQuery, by_index: bool, restriction: sql.Composable) -> sql.Composed:
    version = query.version
    if not by_index:
        statement = SQL.nearest_documents if query.by_document else SQL.nearest_exact
        return on_table(statement, version, only=restriction)
    if layout_of(version).code is not None:
        stored, asked = (indexed(version, sql.SQL(value)) for value in ("v.embedding", "%(vector)s"))
        return on_table(SQL.nearest_rescored, version, only=restriction, stored=stored, asked=asked)
    return on_table(SQL.nearest_indexed, version, only=restriction)


def _scan_settings(version: EmbedderVersion, plan: DensePlan, limit: int) -> dict[str, str | int]:
    """Kept within what pgvector accepts: for other values it would only warn and ignore them.

    Over bits every scan is as wide as the rows that are to be scored by their vectors, and goes on where it gave fewer:
    one wide scan takes three quarters of the time of four narrow ones, and finds as much.
    """
    rescored = layout_of(version).code is not None
    tuples = _MAX_SCAN_TUPLES
    if plan.max_scan_tuples is not None:
        tuples = min(tuples, max(1, plan.max_scan_tuples) * (_RESCORED if rescored else 1))
    return {
        "index": vector_table_of(version).index,
        "ef_search": min(MAX_EF_SEARCH, _rescored(plan, limit)) if rescored else _ef_search(plan, limit),
        "iterative_scan": "relaxed_order" if rescored or plan.kind == "hnsw_iterative" else "off",
        "max_scan_tuples": str(tuples),
        "scan_mem_multiplier": str(_SCAN_MEMORY),
    }


def _rescored(plan: DensePlan, limit: int) -> int:
    """Under a filter `ef_search` is wider already, by what the filter drops, and these are rows that pass."""
    wide = _ef_search(plan, limit)
    return max(_RESCORED * limit, wide if plan.selectivity is not None else _RESCORED * wide)


def _ef_search(plan: DensePlan, limit: int) -> int:
    return min(MAX_EF_SEARCH, max(1, plan.ef_search or limit))


def _space(version: EmbedderVersion) -> tuple[CollectionId, VersionNumber]:
    return version.collection_id, version.number


def _candidates(rows: Sequence[Sequence[Any]]) -> tuple[Candidate, ...]:
    return tuple(map(_as_candidate, rows))


def _unit(stored: Any) -> Vector:
    vector = stored.to_numpy().astype(np.float32)
    unit: Vector = vector / np.linalg.norm(vector)
    return unit
