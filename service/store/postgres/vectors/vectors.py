"""The spaces in PostgreSQL: one table of vectors for each embedder version. Adapter of `ports.Vectors`.

How a search runs is never left to the planner: an exact scan orders by an expression that no index can serve, and an
indexed one forbids sorting for its own transaction, so that only the index can give the order.

An index of one bit a dimension only says which rows are worth a look. They are scored by their vectors in the same
statement, so that scores are exact cosines whatever the storage.
"""

import heapq
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from psycopg import sql
from psycopg.errors import UndefinedTable

from service.core.concurrency import gather_limited
from service.core.errors import VersionNotFound
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
from service.store.postgres.connection.pool import Connection, Pool, retrying
from service.store.postgres.filters.filter_sql import predicate
from service.store.postgres.rows import text_array
from service.store.postgres.vectors.vector_tables import bits, layout_of, seal, vector_table, vector_table_of
from service.store.postgres.versions import versions

SQL = sql_files.load("vectors")

_MAX_SCAN_TUPLES = 400_000
"""Rows that an iterative scan may look at before it gives up, where the plan sets no other limit."""
_SCAN_MEMORY = 16
"""Times work_mem that an iterative scan may remember: room for as many rows as it may look at."""


_RESCORED = 4
"""An index of bits is asked for so many times the rows that are wanted, and for `ef_search` at least, to be scored by
their vectors. With 20,000 chunks of MiniLM and 100 candidates that gives a recall@10 of 0.99 (recall@100: 0.86) in 1.4
times the time of halfvec; twice as many would give recall@100 0.95 in 2.6 times (`loadtests/storages.py`)."""

_HALVED = 20_000
"""Named documents from which on two connections scan a half each: 50,000 take one 37 ms. Parallel workers of PostgreSQL
would each read all the names, and take twice as long as one."""

_SAMPLED_PAGES = 10
"""Neighbours on a page came in together. So many times the rows that a sample takes are read, page by page, for it."""

_COPIED = ("int8", "text", "int4", "int4", "int8", "int8", "int8", "bytea")


class PostgresVectors:
    def __init__(self, pool: Pool, *, alone: bool = False) -> None:
        """`alone`: no scan takes a second connection, whose processor others may want."""
        self._pool = pool
        self._alone = alone

    async def write(self, version: EmbedderVersion, encoded: Sequence[EncodedDocument]) -> frozenset[DocumentId]:
        """As the port says. A job of another version is skipped too.

        Each row carries the version and the seal of its job, and the table refuses those that are not its own.
        """
        own = [one for one in encoded if (one.job.collection_id, one.job.version) == _key(version)]
        copy = _statement(SQL.copy, version)
        remove = _statement(SQL.remove, version)
        layout = layout_of(version)

        async def commit() -> frozenset[DocumentId]:
            async with self._pool.transaction() as connection, _standing(version):
                ours = await queue.finish(connection, [one.job for one in own])
                stored = frozenset(job.document_id for job in ours)
                if not stored:
                    return stored
                await connection.execute(remove, {"collection_id": version.collection_id, "ids": list(stored)})
                async with connection.cursor() as cursor, cursor.copy(copy) as rows:
                    rows.set_types((*_COPIED, layout.type))
                    for one in own:
                        if one.job in ours:  # not by its document, which may have been claimed again meanwhile
                            for chunk, vector in zip(one.chunks, one.vectors, strict=True):
                                value = layout.value(vector)
                                await rows.write_row(
                                    (
                                        one.job.collection_id,
                                        one.job.document_id,
                                        chunk.number,
                                        one.job.version,
                                        one.job.content_revision,
                                        chunk.start,
                                        chunk.end,
                                        seal(one.job.collection_id, one.job.version, value),
                                        value,
                                    )
                                )
                return stored

        return await retrying(commit) if own else frozenset()

    async def nearest(self, query: VectorQuery) -> tuple[Candidate, ...]:
        """As the port says. Named documents are always scanned exactly. `ef_search` None: as many as `limit`.

        Along the index no more than `ef_search` rows come back, fewer where a filter without iteration drops some; over
        an index of bits as many as asked for.
        """
        within = query.within
        if query.limit <= 0 or (within is not None and not within) or query.plan.kind == "none":
            return ()
        if within is None or len(within) < _HALVED or self._alone:
            return await self._nearest(query)
        middle = len(within) // 2
        halves = await gather_limited(
            [
                partial(self._nearest, replace(query, within=half, where=None))
                for half in (within[:middle], within[middle:])
            ],
            limit=2,
        )
        return tuple(islice(heapq.merge(*halves, key=lambda one: -one.score), query.limit))

    async def _nearest(self, query: VectorQuery) -> tuple[Candidate, ...]:
        """On one connection."""
        version, plan, limit = query.version, query.plan, query.limit
        only, values = _only(query.within, query.where)
        indexed = plan.kind in ("hnsw", "hnsw_iterative") and query.within is None
        statement = _query(version, indexed, only)
        arguments = {
            **values,
            "collection_id": version.collection_id,
            "vector": layout_of(version).value(query.vector),
            "limit": limit,
            "rescored": _rescored(plan, limit),
        }
        async with self._pool.connection() as connection, _standing(version):
            cursor = connection.cursor(binary=True)
            if indexed:
                # One round trip for all of it: the settings end with the transaction.
                async with connection.pipeline(), connection.transaction():
                    await connection.execute(SQL.tune, _tuning(version, plan, limit))
                    await cursor.execute(statement, arguments, prepare=False)
            else:
                await cursor.execute(statement, arguments, prepare=False)
            return _candidates(await cursor.fetchall())

    async def score(
        self, version: EmbedderVersion, vector: Vector, ids: Sequence[DocumentId], chunks: int = 1
    ) -> tuple[Candidate, ...]:
        if not ids:
            return ()
        arguments = {
            "collection_id": version.collection_id,
            "vector": layout_of(version).value(vector),
            "ids": list(dict.fromkeys(ids)),
            "chunks": chunks,
        }
        async with self._pool.connection() as connection, _standing(version):
            cursor = connection.cursor(binary=True)
            await cursor.execute(_statement(SQL.score, version), arguments, prepare=False)
            return _candidates(await cursor.fetchall())

    async def directions(self, version: EmbedderVersion, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Vector]:
        """As the port says. The mean is made where the chunks are: a book has thousands."""
        arguments = {"collection_id": version.collection_id, "ids": list(ids)}
        async with self._pool.connection() as connection, _standing(version):
            cursor = connection.cursor(binary=True)
            await cursor.execute(_statement(SQL.directions, version), arguments, prepare=False)
            means = {id_: direction(mean.to_numpy()) for id_, mean in await cursor.fetchall()}
        return {id_: mean for id_, mean in means.items() if mean is not None}

    async def get(
        self,
        version: EmbedderVersion,
        chunks: Sequence[tuple[DocumentId, int]],
        revisions: Sequence[int] | None = None,
    ) -> Mapping[tuple[DocumentId, int], Vector]:
        """As the port says; of length 1 again, which half precision had blurred."""
        arguments = {
            "collection_id": version.collection_id,
            "ids": [id_ for id_, _ in chunks],
            "chunks": [chunk for _, chunk in chunks],
            "revisions": [None] * len(chunks) if revisions is None else list(revisions),
        }
        async with self._pool.connection() as connection, _standing(version):
            cursor = connection.cursor(binary=True)
            await cursor.execute(_statement(SQL.get, version), arguments, prepare=False)
            return {(id_, chunk): _unit(stored) for id_, chunk, stored in await cursor.fetchall()}

    async def sample(self, version: EmbedderVersion, size: int) -> VectorSample:
        """As the port says: whole pages are drawn, so that a large table costs no more than a small one.

        How many is told by an estimate of the rows; where it was too high, more are drawn.
        """
        query = _statement(SQL.sample, version)
        async with self._pool.connection() as connection, _standing(version):
            status = await versions.space_status(connection, version.collection_id, version.number)
            percent = 100.0 * _SAMPLED_PAGES * size / max(1, status.rows)
            while True:
                cursor = connection.cursor(binary=True)
                await cursor.execute(query, {"percent": min(100.0, percent), "size": size}, prepare=False)
                rows = await cursor.fetchall()
                if len(rows) >= size or percent >= 100.0:
                    break
                percent *= 4
        return VectorSample(
            chunks=tuple((row[0], row[3]) for row in rows),
            vectors=np.stack([_unit(row[-1]) for row in rows])
            if rows
            else np.empty((0, version.dimensions), np.float32),
            places=_candidates([row[:-1] for row in rows]),
        )


# ---------------------------------------------------------------- parts of other modules' transactions


async def remove(connection: Connection, collection_id: CollectionId, ids: Sequence[DocumentId]) -> None:
    """Remove the vectors of these documents from every space of the collection."""
    cursor = await connection.execute(SQL.tables, {"collection_id": collection_id})
    for (number,) in await cursor.fetchall():
        table = vector_table(collection_id, VersionNumber(number)).table_identifier
        query = sql.SQL(SQL.remove).format(vectors=table)
        await connection.execute(query, {"collection_id": collection_id, "ids": list(ids)})


@asynccontextmanager
async def _standing(version: EmbedderVersion) -> AsyncIterator[None]:
    """VersionNotFound where the table was dropped meanwhile."""
    try:
        yield
    except UndefinedTable as error:
        raise VersionNotFound(f"The embedder version {version.number} has no table.") from error


def _only(within: Sequence[DocumentId] | None, where: Filter | None) -> tuple[sql.Composable, Mapping[str, Any]]:
    """The part of a statement that keeps it to some documents, and the values for it."""
    if within is not None:
        return sql.SQL(SQL.only_named), {"ids": text_array(within)}
    if where is not None:
        asked = predicate(where)
        return sql.SQL(SQL.only_passing).format(where=asked.expression), asked.values
    return sql.SQL(""), {}


def _query(version: EmbedderVersion, indexed: bool, only: sql.Composable) -> sql.Composed:
    if not indexed:
        return _statement(SQL.nearest_exact, version, only=only)
    if version.index.storage == "binary":
        return _statement(SQL.nearest_rescored, version, only=only, bits=bits(version.dimensions))
    return _statement(SQL.nearest_indexed, version, only=only)


def _statement(query: Any, version: EmbedderVersion, **parts: sql.Composable) -> sql.Composed:
    return sql.SQL(query).format(vectors=vector_table_of(version).table_identifier, **parts)


def _tuning(version: EmbedderVersion, plan: DensePlan, limit: int) -> dict[str, str]:
    """Values for `tune`, kept within what pgvector takes: it would only warn about others and go on without.

    Over bits every scan goes on until there are enough rows to score by their vectors, whatever `ef_search` is.
    """
    binary = version.index.storage == "binary"
    tuples = _MAX_SCAN_TUPLES
    if plan.max_scan_tuples is not None:
        tuples = min(tuples, max(1, plan.max_scan_tuples) * (_RESCORED if binary else 1))
    return {
        "ef_search": str(_ef_search(plan, limit)),
        "iterative_scan": "relaxed_order" if binary or plan.kind == "hnsw_iterative" else "off",
        "max_scan_tuples": str(tuples),
        "scan_mem_multiplier": str(_SCAN_MEMORY),
    }


def _ef_search(plan: DensePlan, limit: int) -> int:
    return min(MAX_EF_SEARCH, max(1, plan.ef_search or limit))


def _rescored(plan: DensePlan, limit: int) -> int:
    return max(_RESCORED * limit, _ef_search(plan, limit))


def _candidates(rows: Sequence[Sequence[Any]]) -> tuple[Candidate, ...]:
    return tuple(
        [
            Candidate(document_id=id_, content_revision=revision, score=score, chunk=chunk, start=start, end=end)
            for id_, revision, score, chunk, start, end in rows
        ]
    )


def _key(version: EmbedderVersion) -> tuple[CollectionId, VersionNumber]:
    return version.collection_id, version.number


def _unit(stored: Any) -> Vector:
    vector = stored.to_numpy().astype(np.float32)
    unit: Vector = vector / np.linalg.norm(vector)
    return unit
