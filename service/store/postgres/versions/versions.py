"""Embedder versions: their rows, and how their tables and HNSW indexes stand. Adapter of `ports.Versions`.

How they change is told in `transitions.py`.
"""

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager

from psycopg import sql
from psycopg.errors import DiskFull, UndefinedTable

from service.core.collections import Storage
from service.core.errors import VersionNotFound
from service.core.ids import CollectionId, VersionNumber
from service.core.versions import EmbedderVersion, SpaceStatus, VersionState
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.advisory_lock import transition_lock
from service.store.postgres.connection.pool import Connection
from service.store.postgres.rows import version_of
from service.store.postgres.vectors import vector_tables
from service.store.postgres.versions.version_transitions import COLUMNS, SELECT, VersionTransitions

_logger = logging.getLogger(__name__)

SQL = sql_files.load("versions")

COUNTED_ROWS = 20_000
"""Up to here rows are counted (a few milliseconds); beyond, an estimate that is off by some percent is good enough."""

_MIN_BUILD_BYTES = 64 * 2**20
_GRAPH_BYTES_PER_ROW, _GRAPH_BYTES_PER_LINK = 160, 40
"""What pgvector keeps of a row beside its vector while it builds: headers, neighbours and their distances."""
_BITS: Mapping[Storage, int] = {"halfvec": 16, "vector": 32, "binary": 1}
"""Of a dimension in the index."""

_OF = sql.SQL(SQL.of).format(columns=COLUMNS)
_IN_STATES = sql.SQL(SQL.in_states).format(columns=COLUMNS)
_WRITTEN = sql.SQL(SQL.written).format(columns=COLUMNS)


class PostgresVersions(VersionTransitions):
    async def of(self, collection_id: CollectionId) -> tuple[EmbedderVersion, ...]:
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_OF, {"collection_id": collection_id})).fetchall()
        return tuple(map(version_of, rows))

    async def written(self) -> tuple[EmbedderVersion, ...]:
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_WRITTEN)).fetchall()
        return tuple(map(version_of, rows))

    async def in_states(self, states: Iterable[VersionState]) -> tuple[EmbedderVersion, ...]:
        values = {"states": [state.value for state in states]}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_IN_STATES, values)).fetchall()
        return tuple(map(version_of, rows))

    async def get(self, collection_id: CollectionId, number: VersionNumber) -> EmbedderVersion:
        async with self._pool.connection() as connection:
            values = {"collection_id": collection_id, "number": number}
            row = await (await connection.execute(SELECT, values)).fetchone()
        if row is None:
            raise VersionNotFound(f"There is no embedder version {number}.")
        return version_of(row)

    def transition_lock(self, version: EmbedderVersion, wait_seconds: float = 0.0) -> AbstractAsyncContextManager[bool]:
        return transition_lock(self._pool, version, wait_seconds)

    def calibration_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        return transition_lock(self._pool, version, what=" learning")

    async def status(self, version: EmbedderVersion) -> SpaceStatus:
        """Counted where the table is small, estimated where it is large. VersionNotFound where it is gone."""
        async with self._pool.connection() as connection:
            status = await space_status(connection, version.collection_id, version.number)
        return dataclasses.replace(status, indexable=indexable(version))

    async def build_index(self, version: EmbedderVersion) -> bool:
        """True: there is a valid index now. False: another process builds it, or vectors of this length have none.

        Takes minutes for millions of rows, beside reading and writing. TimedOut where it was cancelled (the version is
        being retired or the collection deleted); what an unfinished build leaves is dropped by the next one.
        """
        if not indexable(version):
            return False
        async with self._pool.apart() as connection:
            if not await try_build_lock(connection, version):
                return False
            status = await space_status(connection, version.collection_id, version.number)
            if status.indexed:
                return True
            await grant_memory(connection, version, status.rows)
            try:
                await _create_index(connection, version)
                await connection.execute(vector_tables.analyze(version))
            except UndefinedTable as error:
                raise VersionNotFound from error
        return True


async def try_build_lock(connection: Connection, version: EmbedderVersion) -> bool:
    """True for the one process that may build the index of this version. It ends with the connection."""
    values = {"index": vector_tables.vector_table_of(version).index}
    return await (await connection.execute(SQL.try_build_lock, values)).fetchone() == (True,)


async def grant_memory(connection: Connection, version: EmbedderVersion, rows: int) -> None:
    """As much as the graph takes and no more, for a parallel build allocates all of it at once.

    A graph that does not fit is finished on disk, an order of magnitude slower.
    """
    vector = version.dimensions * _BITS[version.index.storage] / 8
    needed = int(1.1 * rows * (vector + _GRAPH_BYTES_PER_ROW + _GRAPH_BYTES_PER_LINK * version.index.m))
    row = await (await connection.execute(SQL.build_memory)).fetchone()
    assert row is not None
    granted, cached = (1024 * int(value) for value in row)
    memory = max(_MIN_BUILD_BYTES, min(needed, max(granted, cached // 4)))
    await connection.execute(SQL.build_session, {"memory": f"{memory // 1024}kB"})


async def _create_index(connection: Connection, version: EmbedderVersion) -> None:
    await connection.execute(vector_tables.drop_index(version))
    try:
        await connection.execute(vector_tables.create_index(version))
    except DiskFull:
        _logger.warning(
            "no room for a parallel build on %s: building in one process", vector_tables.vector_table_of(version).table
        )
        await connection.execute(vector_tables.drop_index(version))
        await connection.execute(SQL.build_alone)
        await connection.execute(vector_tables.create_index(version))


def indexable(version: EmbedderVersion) -> bool:
    return version.dimensions <= vector_tables.max_indexed_dimensions(version.index.storage)


async def space_status(connection: Connection, collection_id: CollectionId, number: VersionNumber) -> SpaceStatus:
    """As PostgresVersions.status, on a connection that is already there."""
    names = vector_tables.vector_table(collection_id, number)
    values = {"table": names.table, "index": names.index, "collection_id": collection_id, "number": number}
    row = await (await connection.execute(SQL.physical, values)).fetchone()
    if row is None:
        raise VersionNotFound(f"The embedder version {number} has no table.")
    estimated_rows, indexed, firsts, ef_settings = row
    if estimated_rows is None:  # dropped since the statement began, so that its size is not known any more
        raise VersionNotFound(f"The embedder version {number} has no table.")
    if estimated_rows > COUNTED_ROWS and firsts:
        rows = round(estimated_rows)
        return SpaceStatus(rows=rows, indexed=indexed, chunks_per_document=1 / firsts, ef_settings=ef_settings)
    count = sql.SQL("SELECT count(*), count(*) FILTER (WHERE chunk = 0) FROM {}").format(names.table_identifier)
    try:
        row = await (await connection.execute(count)).fetchone()
    except UndefinedTable as error:
        raise VersionNotFound(f"The embedder version {number} has no table.") from error
    assert row is not None
    chunks, documents = row
    each = chunks / documents if documents else 1.0
    return SpaceStatus(rows=chunks, indexed=indexed, chunks_per_document=each, ef_settings=ef_settings)
