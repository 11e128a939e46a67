"""The index of a version: its state, and how it is built beside reading and writing."""

import logging
from contextlib import AbstractAsyncContextManager

from psycopg import sql
from psycopg.errors import DiskFull

from service.core.errors import VersionNotFound
from service.core.ids import CollectionId, VersionNumber
from service.core.versions import EmbedderVersion, SpaceStatus
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.advisory_lock import lock_in_transaction
from service.store.postgres.connection.pool import Connection, Pool
from service.store.postgres.vectors import vector_tables
from service.store.postgres.vectors.index_kinds import build_bytes, kind_of
from service.store.postgres.vectors.vector_tables import missing_table, vector_table, vector_table_of

_logger = logging.getLogger(__name__)

SQL = sql_files.load("vector_index")

COUNTED_ROWS = 20_000
"""Up to here rows are counted (a few milliseconds); beyond, an estimate that is off by some percent is good enough."""

_MIN_BUILD_BYTES = 64 * 2**20


def indexable(version: EmbedderVersion) -> bool:
    """Longer vectors have no index and are scanned exactly."""
    most = kind_of(version).max_dimensions or vector_tables.layout_of(version).max_indexed
    return version.dimensions <= most


async def space_status(connection: Connection, collection_id: CollectionId, number: VersionNumber) -> SpaceStatus:
    """Rows are counted where the table is small, estimated where it is large. VersionNotFound where it is gone."""
    names = vector_table(collection_id, number)
    values = {"table": names.table, "index": names.index, "collection_id": collection_id, "number": number}
    row = await connection.fetch_one(SQL.space_status, values)
    # No estimate: the table was dropped since the statement began, so that its size is not known any more.
    if row is None or row[0] is None:
        raise VersionNotFound(f"The embedder version {number} has no table.")
    estimated_rows, indexed, firsts, ef_settings = row
    if estimated_rows > COUNTED_ROWS and firsts:
        rows = round(estimated_rows)
        return SpaceStatus(rows=rows, indexed=indexed, chunks_per_document=1 / firsts, ef_settings=ef_settings)
    count = sql.SQL("SELECT count(*), count(*) FILTER (WHERE chunk = 0) FROM {}").format(names.table_identifier)
    with missing_table(number):
        ((chunks, documents),) = await connection.fetch_all(count)
    chunks_per_document = chunks / documents if documents else 1.0
    return SpaceStatus(rows=chunks, indexed=indexed, chunks_per_document=chunks_per_document, ef_settings=ef_settings)


def build_lock(pool: Pool, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
    """True for the one process that may build the index of this version."""
    return lock_in_transaction(pool, f"index {vector_table_of(version).index}")


async def set_build_memory(connection: Connection, version: EmbedderVersion, rows: int) -> None:
    """As much as the build needs and no more, for a parallel build allocates all of it at once.

    A graph that does not fit is finished on disk, an order of magnitude slower; clusters that do not fit are refused.
    """
    needed = build_bytes(version, rows, vector_tables.layout_of(version).bits)
    ((granted, cached),) = await connection.fetch_all(SQL.memory)
    most = needed if version.index.kind == "ivfflat" else max(1024 * int(granted), 1024 * int(cached) // 4)
    memory = max(_MIN_BUILD_BYTES, min(needed, most))
    await connection.execute(SQL.build_session, {"memory": f"{memory // 1024}kB"})


async def build(connection: Connection, version: EmbedderVersion, rows: int) -> None:
    """Build the index anew, for so many rows; what an unfinished build left is dropped first."""
    await connection.execute(vector_tables.drop_index(version))
    create = vector_tables.create_index(version, rows)
    try:
        await connection.execute(create)
    except DiskFull:
        _logger.warning("no room for a parallel build on %s: building in one process", vector_table_of(version).table)
        await connection.execute(vector_tables.drop_index(version))
        await connection.execute(SQL.no_parallel_build)
        await connection.execute(create)
