"""Embedder versions: their rows, and how their tables and HNSW indexes stand."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.errors import DiskFull, UndefinedTable
from psycopg.rows import TupleRow

from service.domain import (
    Chunking,
    CollectionId,
    EmbedderSpec,
    EmbedderVersion,
    Fingerprint,
    Identity,
    SpaceStatus,
    VersionNumber,
    VersionState,
)
from service.errors import VersionNotFound
from service.store import records, spaces, statements
from service.store.pool import Connection, Pool

_logger = logging.getLogger(__name__)

SQL = statements.load("versions")

COUNTED_ROWS = 20_000
"""Up to here rows are counted (a few milliseconds); beyond, an estimate that is off by some percent is good enough."""

_MIN_BUILD_BYTES = 64 * 2**20
_GRAPH_BYTES_PER_ROW = 800
"""What pgvector keeps of a row beside its vector while it builds with m = 16: neighbours, their distances, headers."""


class PostgresVersions:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def of(self, collection_id: CollectionId) -> tuple[EmbedderVersion, ...]:
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(SQL.of, {"collection_id": collection_id})).fetchall()
        return tuple(map(_version, rows))

    async def written(self) -> tuple[EmbedderVersion, ...]:
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(SQL.written)).fetchall()
        return tuple(map(_version, rows))

    async def status(self, version: EmbedderVersion) -> SpaceStatus:
        """Counted where the table is small, estimated where it is large. VersionNotFound where it is gone."""
        async with self._pool.connection() as connection:
            return await space_status(connection, version.collection_id, version.number)

    async def build_index(self, version: EmbedderVersion) -> bool:
        """True: there is a valid index now. False: another process builds it, or vectors of this length have none.

        Takes minutes for millions of rows, beside reading and writing. TimedOut where it was cancelled (the collection
        is being deleted); what an unfinished build leaves is dropped by the next one.
        """
        if version.dimensions > spaces.MAX_INDEXED_DIMENSIONS:
            return False
        names = spaces.space_of(version)
        async with self._pool.apart() as connection:
            # The lock ends with the connection.
            row = await (await connection.execute(SQL.try_build_lock, {"index": names.index})).fetchone()
            if row is None or not row[0]:
                return False
            status = await space_status(connection, version.collection_id, version.number)
            if status.indexed:
                return True
            await self._grant_memory(connection, status.rows, version.dimensions)
            await connection.execute(spaces.drop_index(version))
            try:
                await connection.execute(spaces.create_index(version))
            except DiskFull:
                _logger.warning("no room for a parallel build of %s: building in one process", names.index)
                await connection.execute(spaces.drop_index(version))
                await connection.execute(SQL.build_alone)
                await connection.execute(spaces.create_index(version))
            except UndefinedTable as error:
                raise VersionNotFound from error
            await connection.execute(spaces.analyze(version))
        return True

    async def _grant_memory(self, connection: Connection, rows: int, dimensions: int) -> None:
        """As much as the graph takes and no more, for a parallel build allocates all of it at once.

        A graph that does not fit is finished on disk, an order of magnitude slower.
        """
        needed = int(1.1 * rows * (2 * dimensions + _GRAPH_BYTES_PER_ROW))
        row = await (await connection.execute(SQL.build_memory)).fetchone()
        assert row is not None
        granted, cached = (1024 * int(value) for value in row)
        memory = max(_MIN_BUILD_BYTES, min(needed, max(granted, cached // 4)))
        await connection.execute(SQL.build_session, {"memory": f"{memory // 1024}kB"})


async def space_status(connection: Connection, collection_id: CollectionId, number: VersionNumber) -> SpaceStatus:
    """As PostgresVersions.status, on a connection that is already there."""
    names = spaces.space(collection_id, number)
    values = {"table": names.table, "index": names.index}
    row = await (await connection.execute(SQL.physical, values)).fetchone()
    if row is None:
        raise VersionNotFound(f"The embedder version {number} has no table.")
    estimated_rows, indexed, firsts = row
    if estimated_rows > COUNTED_ROWS and firsts:
        return SpaceStatus(rows=round(estimated_rows), indexed=indexed, chunks_per_document=1 / firsts)
    count = sql.SQL("SELECT count(*), count(*) FILTER (WHERE chunk = 0) FROM {}").format(names.table_identifier)
    try:
        row = await (await connection.execute(count)).fetchone()
    except UndefinedTable as error:
        raise VersionNotFound(f"The embedder version {number} has no table.") from error
    assert row is not None
    chunks, documents = row
    return SpaceStatus(rows=chunks, indexed=indexed, chunks_per_document=chunks / documents if documents else 1.0)


async def insert(
    connection: Connection,
    collection_id: CollectionId,
    number: VersionNumber,
    *,
    state: VersionState,
    spec: EmbedderSpec,
    chunking: Chunking,
    identity: Identity,
    canary: Mapping[str, tuple[float, ...]],
    now: datetime,
) -> None:
    """Register a version and make its table, inside the caller's transaction."""
    values: dict[str, Any] = {
        "collection_id": collection_id,
        "number": number,
        "state": state.value,
        "spec": records.spec_to_json(spec),
        "chunking": records.chunking_to_json(chunking),
        "identity": records.identity_to_json(identity),
        "fingerprint": identity.fingerprint,
        "canary": records.canary_to_json(canary),
        "now": now,
    }
    await connection.execute(SQL.insert, values)
    for statement in spaces.create_table(collection_id, number, identity.dimensions):
        await connection.execute(statement)


def _version(row: TupleRow) -> EmbedderVersion:
    collection_id, number, state, spec, chunking, identity, fingerprint, canary, created_at = row
    return EmbedderVersion(
        collection_id=CollectionId(collection_id),
        number=VersionNumber(number),
        state=VersionState(state),
        spec=records.spec_from_json(spec),
        chunking=records.chunking_from_json(chunking),
        identity=records.identity_from_json(identity),
        fingerprint=Fingerprint(fingerprint),
        canary=records.canary_from_json(canary),
        created_at=created_at,
    )
