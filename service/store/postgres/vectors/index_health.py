"""The health of HNSW indexes, and their rebuilding beside searches."""

from contextlib import AbstractAsyncContextManager

from psycopg import sql
from psycopg.errors import UndefinedObject, UndefinedTable

from service.core.errors import VersionNotFound
from service.core.index_health import IndexHealth, IndexState
from service.core.versions import EmbedderVersion
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.advisory_lock import transition_lock
from service.store.postgres.connection.pool import Adapter
from service.store.postgres.vectors import vector_index, vector_tables
from service.store.postgres.vectors.index_kinds import kind_of

SQL = sql_files.load("index_health")


class PostgresIndexes(Adapter):
    """Adapter of `ports.Indexes`."""

    async def health(self, version: EmbedderVersion) -> IndexHealth:
        """Reads the catalogue and its statistics, which cost the same for any size."""
        names = vector_tables.vector_table_of(version)
        async with self._pool.connection() as connection:
            status = await vector_index.space_status(connection, version.collection_id, version.number)
            values = {"table": names.table, "index": names.index}
            row = await connection.fetch_one(SQL.health, values)
            if row is None or row[2] is None:  # dropped meanwhile
                raise VersionNotFound(f"The embedder version {version.number} has no table.")
            dead, written, table_bytes, cache_bytes, oldest, guarded, building, valid, index_bytes, build = row
            unindexed = 0
            if not guarded:
                query = vector_tables.on_table(SQL.unindexed, version, length=vector_tables.layout_of(version).length)
                ((unindexed,),) = await connection.fetch_all(query)
        index = None
        if valid is not None:
            index = IndexState(name=names.index, valid=valid, bytes=index_bytes, building=building, build=build)
        return IndexHealth(
            rows=status.rows,
            dead_rows=dead,
            unindexed_rows=unindexed,
            written=written,
            index=index,
            indexable=vector_index.indexable(version),
            table_bytes=table_bytes,
            cache_bytes=cache_bytes,
            oldest_seconds=oldest,
            kind=version.index.kind,
        )

    def ef_search_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        return transition_lock(self._pool, version, purpose=" effort")

    def rebuild_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        """The lock of `PostgresVersions.build_index`."""
        return vector_index.build_lock(self._pool, version)

    async def rebuild(self, version: EmbedderVersion) -> None:
        """Invalid indexes of an earlier rebuild that was interrupted are dropped first."""
        names = vector_tables.vector_table_of(version)
        async with self._pool.dedicated() as connection:
            values = {"table": names.table, "index": names.index}
            for (name,) in await connection.fetch_all(SQL.leftovers, values):
                await connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(name)))
            status = await vector_index.space_status(connection, version.collection_id, version.number)
            if kind_of(version).lists is not None:  # their number follows the rows; a graph needs no lock for this
                await connection.execute(vector_tables.set_index(version, status.rows))
            await vector_index.set_build_memory(connection, version, status.rows)
            try:
                await connection.execute(vector_tables.rebuild_index(version))
                await connection.execute(vector_tables.analyze(version))
            except (UndefinedTable, UndefinedObject) as error:
                raise VersionNotFound(f"The embedder version {version.number} has no index.") from error
