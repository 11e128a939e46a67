"""The contract of the port `Versions`, for the fake and for PostgreSQL; and how a real index is built."""

import asyncio
from dataclasses import replace
from typing import cast

import psycopg
import pytest

from service.core.errors import VersionNotFound
from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.versions import EmbedderVersion, SpaceStatus, VersionState
from service.store.postgres.collections import PostgresCollections
from service.store.postgres.connection.pool import Connection, Pool
from service.store.postgres.store import Store
from service.store.postgres.vectors import vector_tables
from service.store.postgres.vectors.vector_index import COUNTED_ROWS, space_status
from service.store.postgres.versions.versions import PostgresVersions
from tests.contract.test_collections import CANARY, IDENTITY, NOW, SETTINGS, create, open_snapshot, until, value
from tests.storages import sealed
from tests.world import Adapters


async def test_the_first_version_is_active_and_read_back_as_it_was_given(store: Adapters) -> None:
    collection = await create(store.collections, "papers")
    assert await store.versions.of(collection.id) == (
        EmbedderVersion(
            collection_id=collection.id,
            number=VersionNumber(1),
            state=VersionState.ACTIVE,
            spec=SETTINGS.embedder,
            chunking=SETTINGS.chunking,
            identity=IDENTITY,
            fingerprint=IDENTITY.fingerprint,
            canary=CANARY,
            created_at=NOW,
        ),
    )


async def test_versions_of_all_collections_are_written(store: Adapters) -> None:
    first, second = await create(store.collections, "one"), await create(store.collections, "two")
    assert [version.collection_id for version in await store.versions.written()] == [first.id, second.id]
    await store.collections.delete(first.id)
    assert [version.collection_id for version in await store.versions.written()] == [second.id]
    assert await store.versions.of(first.id) == ()


async def test_versions_are_told_by_their_states(store: Adapters) -> None:
    first, second = await create(store.collections, "one"), await create(store.collections, "two")
    active = await store.versions.in_states({VersionState.ACTIVE, VersionState.READY})
    assert [(version.collection_id, version.number) for version in active] == [(first.id, 1), (second.id, 1)]
    assert await store.versions.in_states({VersionState.READY, VersionState.FAILED}) == ()


async def first_version(store: Adapters) -> EmbedderVersion:
    """Of a new collection."""
    collection = await create(store.collections, "papers")
    return await store.versions.get(collection.id, VersionNumber(1))


async def test_a_built_index_is_reported_and_building_again_changes_nothing(store: Adapters) -> None:
    version = await first_version(store)
    for _ in range(2):
        assert await store.versions.build_index(version)
        assert (await store.versions.status(version)).indexed


async def test_a_space_that_is_gone_is_not_found(store: Adapters) -> None:
    version = await first_version(store)
    await store.collections.delete(version.collection_id)
    with pytest.raises(VersionNotFound):
        await store.versions.status(version)
    with pytest.raises(VersionNotFound):
        await store.versions.build_index(version)


@pytest.fixture
async def version(pool: Pool) -> EmbedderVersion:
    return await first_version(Store(pool))


async def fill(pool: Pool, version: EmbedderVersion, documents: int, chunks: int, since: int = 0) -> None:
    """Seeded vectors: so many chunks for each document."""
    query = f"""
        INSERT INTO {vector_tables.vector_table_of(version).table}
        SELECT %(id)s, 'd' || n, chunk, %(number)s, 1, 0, 4, {sealed(version.collection_id)}, embedding
        FROM generate_series(%(since)s + 1, %(since)s + %(documents)s) AS n, generate_series(1, %(chunks)s) AS c,
             LATERAL (SELECT c - 1 AS chunk),
             LATERAL (
                SELECT ARRAY[1 + sin(n), cos(n * 7), sin(n + chunk), cos(chunk)]::real[]::vector::halfvec AS embedding
             )
    """
    values = {"id": version.collection_id, "number": version.number, "documents": documents, "chunks": chunks}
    await pool.execute(query, {**values, "since": since})


async def test_a_space_that_goes_while_it_is_looked_at_is_not_found() -> None:
    """Its row of the catalogue is still seen, and its size is NULL: too short a moment to be met on purpose."""

    class Dropped:
        async def fetch_one(self, *_: object) -> tuple[None, bool, None, dict[str, int]]:
            return None, False, None, {}

    with pytest.raises(VersionNotFound):
        await space_status(cast(Connection, Dropped()), CollectionId(1), VersionNumber(2))


@pytest.mark.database
async def test_a_small_space_is_counted(pool: Pool, version: EmbedderVersion) -> None:
    await fill(pool, version, documents=100, chunks=1)
    await fill(pool, version, documents=100, chunks=4, since=100)
    status = await PostgresVersions(pool).status(version)
    assert status == SpaceStatus(rows=500, indexed=False, chunks_per_document=2.5)


@pytest.mark.database
async def test_a_large_space_is_estimated_once_it_was_analysed(pool: Pool, version: EmbedderVersion) -> None:
    documents = COUNTED_ROWS
    await fill(pool, version, documents=documents, chunks=3)
    await pool.execute(vector_tables.analyze(version))
    await pool.execute(f"DELETE FROM {vector_tables.vector_table_of(version).table} WHERE document_id = 'd1'")
    status = await PostgresVersions(pool).status(version)
    # There are 3 rows fewer by now: it was not counted.
    assert status.rows == 3 * documents
    assert status.chunks_per_document == pytest.approx(3.0, rel=0.05)


@pytest.mark.database
async def test_an_invalid_leftover_is_not_an_index_and_is_built_anew(pool: Pool, version: EmbedderVersion) -> None:
    await fill(pool, version, documents=50, chunks=1)
    versions = PostgresVersions(pool)
    names = vector_tables.vector_table_of(version)
    # A unique index over equal values fails after it entered the catalogue: CONCURRENTLY leaves it there, invalid.
    async with pool.connection() as connection:
        with pytest.raises(psycopg.errors.UniqueViolation):
            await connection.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {names.index} ON {names.table} (ends)")
    assert not (await versions.status(version)).indexed
    assert await versions.build_index(version)
    assert (await versions.status(version)).indexed
    assert "USING hnsw" in await value(pool, "SELECT pg_get_indexdef(%s::regclass)", names.index)


@pytest.mark.database
async def test_one_builds_and_another_is_told_so(pool: Pool, version: EmbedderVersion) -> None:
    await fill(pool, version, documents=50, chunks=1)
    versions = PostgresVersions(pool)
    async with open_snapshot(pool):
        first = asyncio.create_task(versions.build_index(version))
        await until(pool, "SELECT count(*) FROM pg_stat_progress_create_index")
        assert not await versions.build_index(version)
        assert not (await versions.status(version)).indexed
    assert await first
    assert (await versions.status(version)).indexed


async def with_dimensions(pool: Pool, dimensions: int) -> EmbedderVersion:
    identity = replace(IDENTITY, dimensions=dimensions)
    collection = await PostgresCollections(pool).create(CollectionName("some"), SETTINGS, identity, CANARY, NOW)
    return await PostgresVersions(pool).get(collection.id, VersionNumber(1))


@pytest.mark.database
async def test_vectors_too_long_for_hnsw_are_stored_and_have_no_index(pool: Pool) -> None:
    version, versions = await with_dimensions(pool, 4_001), PostgresVersions(pool)
    await pool.execute(
        f"INSERT INTO {vector_tables.vector_table_of(version).table} "
        f"SELECT %s, %s, 0, 1, 1, 0, 1, {sealed(version.collection_id)}, embedding "
        "FROM (SELECT array_fill(0.5, %s)::halfvec AS embedding)",
        (version.collection_id, "i" * 500, [version.dimensions]),
    )
    assert not await versions.build_index(version)
    status = await versions.status(version)
    assert (status.rows, status.indexable) == (1, False)


@pytest.mark.database
@pytest.mark.parametrize("dimensions", [1, 384, 3_000, 3_001, 4_000])
async def test_every_length_of_vector_fits_beside_a_long_id(pool: Pool, dimensions: int) -> None:
    version = await with_dimensions(pool, dimensions)
    table = vector_tables.vector_table_of(version).table
    await pool.execute(
        f"INSERT INTO {table} SELECT %s, %s || n, 0, 1, 1, 0, 1, {sealed(version.collection_id)}, embedding "
        "FROM generate_series(1, 20) AS n, LATERAL (SELECT "
        "(SELECT array_agg(random()) FROM generate_series(1, %s + 0 * n))::real[]::vector::halfvec AS embedding)",
        (version.collection_id, "\U0001f9ed" * 400, dimensions),
    )
    assert await PostgresVersions(pool).build_index(version)
