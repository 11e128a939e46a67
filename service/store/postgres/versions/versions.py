"""Embedder versions: their rows, and the state of their tables and HNSW indexes.

`version_transitions.py` changes them.
"""

import dataclasses
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

from psycopg import sql

from service.core.errors import VersionNotFound
from service.core.ids import CollectionId, VersionNumber
from service.core.versions import EmbedderVersion, SpaceStatus, VersionState
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.advisory_lock import transition_lock
from service.store.postgres.rows import version_of
from service.store.postgres.vectors import vector_index, vector_tables
from service.store.postgres.versions.version_transitions import COLUMNS, SELECT, VersionTransitions

SQL = sql_files.load("versions")

_OF, _IN_STATES, _WRITTEN = (sql.SQL(query).format(columns=COLUMNS) for query in (SQL.of, SQL.in_states, SQL.written))


class PostgresVersions(VersionTransitions):
    """Adapter of `ports.Versions`."""

    async def of(self, collection_id: CollectionId) -> tuple[EmbedderVersion, ...]:
        return tuple(map(version_of, await self._pool.fetch_all(_OF, {"collection_id": collection_id})))

    async def written(self) -> tuple[EmbedderVersion, ...]:
        return tuple(map(version_of, await self._pool.fetch_all(_WRITTEN)))

    async def in_states(self, states: Iterable[VersionState]) -> tuple[EmbedderVersion, ...]:
        values = {"states": [state.value for state in states]}
        return tuple(map(version_of, await self._pool.fetch_all(_IN_STATES, values)))

    async def get(self, collection_id: CollectionId, number: VersionNumber) -> EmbedderVersion:
        row = await self._pool.fetch_one(SELECT, {"collection_id": collection_id, "number": number})
        if row is None:
            raise VersionNotFound(f"There is no embedder version {number}.")
        return version_of(row)

    def transition_lock(self, version: EmbedderVersion, wait_seconds: float = 0.0) -> AbstractAsyncContextManager[bool]:
        return transition_lock(self._pool, version, wait_seconds)

    def calibration_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        return transition_lock(self._pool, version, purpose=" learning")

    async def status(self, version: EmbedderVersion) -> SpaceStatus:
        async with self._pool.connection() as connection:
            status = await vector_index.space_status(connection, version.collection_id, version.number)
        return dataclasses.replace(status, indexable=vector_index.indexable(version))

    async def build_index(self, version: EmbedderVersion) -> bool:
        """True: there is a valid index now. False: another process builds it, or vectors of this length have none.

        Takes minutes for millions of rows, beside reading and writing. TimedOut where it was cancelled (the version is
        being retired or the collection deleted); what an unfinished build leaves is dropped by the next one.
        """
        if not vector_index.indexable(version):
            return False
        async with vector_index.build_lock(self._pool, version) as locked, self._pool.dedicated() as connection:
            if not locked:
                return False
            status = await vector_index.space_status(connection, version.collection_id, version.number)
            if status.indexed:
                return True
            await vector_index.set_build_memory(connection, version, status.rows)
            with vector_tables.missing_table(version.number):
                await vector_index.build(connection, version, status.rows)
                await connection.execute(vector_tables.analyze(version))
        return True
