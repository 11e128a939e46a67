"""The contract of the port `Indexes`, for the fake and for PostgreSQL; and what only a real index shows."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from service.core.errors import VersionNotFound
from service.core.index_health import IndexState
from service.core.ports.indexes import Indexes
from service.core.versions import EmbedderVersion
from service.store.postgres.connection.pool import Pool
from service.store.postgres.store import Store
from service.store.postgres.vectors import vector_tables
from service.store.postgres.vectors.index_health import PostgresIndexes
from service.store.postgres.versions.versions import PostgresVersions
from tests.contract.test_collections import value
from tests.contract.test_recalls import ef_setting
from tests.contract.test_versions import fill, first_version
from tests.world import Adapters


async def index_of(indexes: Indexes, version: EmbedderVersion) -> IndexState:
    index = (await indexes.health(version)).index
    assert index is not None
    return index


async def test_without_an_index_its_state_is_unknown(store: Adapters) -> None:
    version = await first_version(store)
    health = await store.indexes.health(version)
    assert (health.rows, health.dead_rows, health.unindexed_rows, health.index) == (0, 0, 0, None)
    assert health.indexable
    assert health.cache_bytes > 0


async def test_a_rebuilt_index_is_another_build(store: Adapters) -> None:
    version = await first_version(store)
    await store.versions.build_index(version)
    before = await index_of(store.indexes, version)
    assert (before.valid, before.building) == (True, False)
    assert await index_of(store.indexes, version) == before
    async with store.indexes.rebuild_lock(version) as ours:
        assert ours
        await store.indexes.rebuild(version)
    after = await index_of(store.indexes, version)
    assert (after.name, after.valid) == (before.name, True)
    assert after.build != before.build


async def test_one_at_a_time_rebuilds_and_one_sets_ef_search_beside_it(store: Adapters) -> None:
    version = await first_version(store)
    async with store.indexes.rebuild_lock(version) as ours, store.indexes.ef_search_lock(version) as also_ours:
        assert (ours, also_ours) == (True, True)
        async with store.indexes.rebuild_lock(version) as second, store.indexes.ef_search_lock(version) as third:
            assert (second, third) == (False, False)
    async with store.indexes.rebuild_lock(version) as again, store.indexes.ef_search_lock(version) as also_again:
        assert (again, also_again) == (True, True)


async def test_a_version_that_is_gone_is_not_found(store: Adapters) -> None:
    version = await first_version(store)
    await store.collections.delete(version.collection_id)
    with pytest.raises(VersionNotFound):
        await store.indexes.health(version)
    with pytest.raises(VersionNotFound):
        await store.indexes.rebuild(version)


async def test_the_status_of_a_version_has_its_ef_settings(store: Adapters) -> None:
    version = await first_version(store)
    assert (await store.versions.status(version)).ef_settings == {}
    for setting in (ef_setting(ef_search=149), ef_setting("wide", ef_search=186), ef_setting(version=2, ef_search=76)):
        await store.recalls.put_ef_setting(version.collection_id, setting, None)
    assert (await store.versions.status(version)).ef_settings == {"all": 149, "wide": 186}


@dataclass
class Real:
    pool: Pool
    version: EmbedderVersion
    indexes: PostgresIndexes

    @property
    def table(self) -> str:
        return vector_tables.vector_table_of(self.version).table

    async def run(self, statement: str) -> None:
        async with self.pool.dedicated() as connection:
            await connection.execute(statement.encode())

    async def until(self, what: str, wanted: Any) -> None:
        """Statistics come some moments late."""
        deadline = time.monotonic() + 15
        while getattr(await self.indexes.health(self.version), what) != wanted:
            assert time.monotonic() < deadline, await self.indexes.health(self.version)
            await self.run("SELECT pg_stat_force_next_flush()")
            await asyncio.sleep(0.05)


@pytest.fixture
async def real(pool: Pool) -> Real:
    return Real(pool, await first_version(Store(pool)), PostgresIndexes(pool))


@pytest.mark.database
async def test_dead_rows_are_counted_until_a_vacuum_takes_them_out(real: Real) -> None:
    await real.run(f"ALTER TABLE {real.table} SET (autovacuum_enabled = off)")
    await fill(real.pool, real.version, documents=200, chunks=1)
    await PostgresVersions(real.pool).build_index(real.version)
    await real.run(f"DELETE FROM {real.table} WHERE document_id < 'd15'")
    dead = 200 - int(await value(real.pool, f"SELECT count(*) FROM {real.table}"))
    assert dead > 0
    await real.until("dead_rows", dead)
    health = await real.indexes.health(real.version)
    assert health.rows == 200 - dead
    assert health.index is not None
    assert min(health.index.bytes, health.table_bytes) > 0
    await real.until("written", 200)
    await real.run(f"VACUUM {real.table}")
    await real.until("dead_rows", 0)


@pytest.mark.database
async def test_an_invalid_index_is_recognised(real: Real) -> None:
    await fill(real.pool, real.version, documents=10, chunks=1)
    names = vector_tables.vector_table_of(real.version)
    with pytest.raises(psycopg.errors.UniqueViolation):
        await real.run(f"CREATE UNIQUE INDEX CONCURRENTLY {names.index} ON {names.table} (ends)")
    index = await index_of(real.indexes, real.version)
    assert (index.valid, index.building) == (False, False)


@pytest.mark.database
async def test_what_no_index_can_hold_is_looked_for_where_the_table_would_take_it(real: Real) -> None:
    await fill(real.pool, real.version, documents=10, chunks=1)
    await real.run(f"ALTER TABLE {real.table} DROP CONSTRAINT {real.table}_embedding_check")
    await real.run(f"ALTER TABLE {real.table} DROP CONSTRAINT sealed")
    assert (await real.indexes.health(real.version)).unindexed_rows == 0
    await real.run(f"UPDATE {real.table} SET embedding = '[0,0,0,0]' WHERE document_id = 'd3'")
    assert (await real.indexes.health(real.version)).unindexed_rows == 1
    await real.run(f"ALTER TABLE {real.table} ALTER COLUMN embedding DROP NOT NULL")
    await real.run(f"UPDATE {real.table} SET embedding = NULL WHERE document_id = 'd4'")
    assert (await real.indexes.health(real.version)).unindexed_rows == 2


@pytest.mark.database
async def test_what_a_rebuild_left_behind_is_dropped_by_the_next(real: Real) -> None:
    await fill(real.pool, real.version, documents=10, chunks=1)
    await PostgresVersions(real.pool).build_index(real.version)
    leftover = f"{vector_tables.vector_table_of(real.version).index}_ccnew"
    with pytest.raises(psycopg.errors.UniqueViolation):
        await real.run(f"CREATE UNIQUE INDEX CONCURRENTLY {leftover} ON {real.table} (ends)")
    await real.indexes.rebuild(real.version)
    assert await value(real.pool, "SELECT to_regclass(%s) IS NULL", leftover)
    assert (await index_of(real.indexes, real.version)).valid
