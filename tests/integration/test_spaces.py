"""Two spaces never meet: what PostgreSQL itself refuses, whatever statement is sent to it.

Two versions of as many dimensions are the dangerous case, for nothing about their vectors tells them apart. What does
is the seal of each row (`store/spaces.py`) beside the numbers that it carries.
"""

import asyncio
import dataclasses
import re
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from loadtests.space import clustered
from service.core.collections import EXTERNAL, EmbedderSpec, IndexSettings, Storage
from service.core.ids import CollectionName
from service.core.ports.vectors import VectorQuery
from service.core.search import DensePlan
from service.core.versions import AuditEntry, EmbedderVersion, VersionState
from service.search.filter_planner import DEFAULT_EF_SEARCH
from service.store.postgres.connection.pool import Pool
from service.store.postgres.schema import migrations
from service.store.postgres.vectors import vector_tables, vectors
from tests.second_version import drain
from tests.storages import STORAGES, stored_as
from tests.world import LEASE, NOW, World, build, doc, encoded, unit

pytestmark = pytest.mark.database

EXACT = DensePlan(kind="exact")
ENTRY = AuditEntry(at=NOW, actor="test", action="registered")


@pytest.fixture
async def world(pool: Pool) -> World:
    """Version 1 with the documents a and b."""
    built = await build(pool)
    await built.put_and_store({"a": unit(1, 0, 0, 0)[None], "b": unit(0, 1, 0, 0)[None]})
    return built


@pytest.fixture
async def other(world: World) -> EmbedderVersion:
    """Version 2 with the documents a and c: as many dimensions, other vectors."""
    version = await world.add_version(2, VersionState.READY)
    await world.put(doc("a", "again"), doc("c"))
    await drain(world, version)
    assert set(await world.stored_chunks(version)) == {("a", 0), ("c", 0)}
    return version


async def contents(world: World) -> list[Any]:
    return [await world.rows(f"SELECT t::text FROM vectors_1_{number} AS t ORDER BY 1") for number in (1, 2)]


FOREIGN = {
    "rows as they are": "INSERT INTO {own} SELECT * FROM {other}",
    "one row as it is": "INSERT INTO {own} SELECT * FROM {other} WHERE document_id = 'c'",
    "a row with a new number": """
        INSERT INTO {own}
        SELECT collection_id, document_id, chunk, 1, content_revision, starts, ends, seal, embedding
        FROM {other} WHERE document_id = 'c'
    """,
    "a row with the seal of another vector": """
        INSERT INTO {own}
        SELECT o.collection_id, 'c', o.chunk, 1, o.content_revision, o.starts, o.ends, o.seal, n.embedding
        FROM {own} AS o, {other} AS n WHERE o.document_id = 'a' AND n.document_id = 'c'
    """,
    "a row without a seal": """
        INSERT INTO {own}
        SELECT collection_id, document_id, chunk, 1, content_revision, starts, ends, NULL, embedding
        FROM {other} WHERE document_id = 'c'
    """,
    "an upsert": """
        INSERT INTO {own} SELECT * FROM {other} WHERE document_id = 'a'
        ON CONFLICT (collection_id, document_id, chunk) DO UPDATE SET embedding = excluded.embedding
    """,
    "an upsert with a new number": """
        INSERT INTO {own}
        SELECT collection_id, document_id, chunk, 1, content_revision, starts, ends, seal, embedding
        FROM {other} WHERE document_id = 'a'
        ON CONFLICT (collection_id, document_id, chunk) DO UPDATE SET
            seal = excluded.seal, embedding = excluded.embedding
    """,
    "an update of the number": "UPDATE {own} SET embedder_version = 2",
    "an update to no number": "UPDATE {own} SET embedder_version = NULL",
    "an update of the collection": "UPDATE {own} SET collection_id = collection_id + 1",
    "an update from the other, numbers and all": """
        UPDATE {own} AS o SET embedder_version = n.embedder_version, seal = n.seal, embedding = n.embedding
        FROM {other} AS n WHERE o.document_id = n.document_id
    """,
    "an update of the vector alone": """
        UPDATE {own} AS o SET embedding = n.embedding FROM {other} AS n WHERE o.document_id = n.document_id
    """,
    "an update of the vector with its seal": """
        UPDATE {own} AS o SET seal = n.seal, embedding = n.embedding
        FROM {other} AS n WHERE o.document_id = n.document_id
    """,
}


@pytest.mark.parametrize("statement", FOREIGN.values(), ids=FOREIGN)
async def test_no_statement_carries_a_vector_over(world: World, other: EmbedderVersion, statement: str) -> None:
    before = await contents(world)
    with pytest.raises(psycopg.IntegrityError):
        await world.execute(statement.format(own="vectors_1_1", other="vectors_1_2"))
    assert await contents(world) == before


async def test_nor_does_a_copy(world: World, other: EmbedderVersion) -> None:
    before = await contents(world)
    query = "SELECT collection_id, document_id, chunk, {}, content_revision, starts, ends, seal, embedding"
    for number in ("embedder_version", "1"):
        async with world.database.connection() as connection, connection.cursor() as cursor:
            source = f"COPY ({query.format(number)} FROM vectors_1_2 WHERE document_id = 'c') TO STDOUT (FORMAT binary)"
            async with cursor.copy(source.encode()) as copied:
                blocks = [bytes(block) async for block in copied]
            with pytest.raises(psycopg.IntegrityError):
                await copy_in(cursor, "vectors_1_1", blocks)
    assert await contents(world) == before


async def copy_in(cursor: psycopg.AsyncCursor[Any], table: str, blocks: list[bytes]) -> None:
    async with cursor.copy(f"COPY {table} FROM STDIN (FORMAT binary)".encode()) as copy:
        for block in blocks:
            await copy.write(block)


async def test_the_same_copy_into_its_own_space_is_taken(world: World, other: EmbedderVersion) -> None:
    """What the tests above see refused is refused for its origin, and for nothing else."""
    before = await contents(world)
    await world.execute("CREATE TABLE kept AS SELECT * FROM vectors_1_2")
    await world.execute("DELETE FROM vectors_1_2")
    await world.execute("INSERT INTO vectors_1_2 SELECT * FROM kept")
    await world.execute(
        "UPDATE vectors_1_2 AS v SET seal = k.seal, embedding = k.embedding FROM kept AS k "
        "WHERE v.document_id = k.document_id"
    )
    assert await contents(world) == before


async def test_a_row_says_of_which_version_its_job_was(
    world: World, other: EmbedderVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were a worker's batch ever handed to the wrong version, the table would refuse it and the job would stay."""
    await world.put(doc("d"))
    (job,) = await world.queue.claim([other], 10, "w1", NOW, LEASE)
    monkeypatch.setattr(vectors, "_space", lambda version: (version.collection_id, other.number))
    before = await contents(world)
    with pytest.raises(psycopg.errors.CheckViolation):
        await world.vectors.write(world.version, [encoded(job)])
    assert await contents(world) == before
    monkeypatch.undo()
    assert await world.vectors.write(other, [encoded(job)]) == {"d"}


async def register(world: World, index: IndexSettings = IndexSettings(), **changes: Any) -> EmbedderVersion:  # noqa: B008 frozen
    version = dataclasses.replace(world.version, **changes)
    entry = dataclasses.replace(ENTRY, details={})
    return await world.versions.register(
        world.collection, version.spec, version.chunking, index, version.identity, version.canary, entry
    )


async def test_every_table_of_vectors_has_all_checks(pool: Pool) -> None:
    """Asked of the catalogue, after versions of every kind were made in every way."""
    world = await build(pool)
    second = await build(pool, dimensions=2_001)
    external = EmbedderSpec(model=EXTERNAL, dimensions=4, identity="theirs")
    for storage in STORAGES:
        await register(world, IndexSettings(storage=storage))
    await register(world, spec=external)
    await register(world, identity=dataclasses.replace(world.version.identity, dimensions=3))
    await register(second, IndexSettings(m=8, ef_construction=32, storage="vector"))
    tables = await world.rows(
        """
        SELECT c.relname, array_agg(pg_get_constraintdef(k.oid) ORDER BY k.oid),
               (SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attnotnull)
        FROM pg_class AS c JOIN pg_constraint AS k ON k.conrelid = c.oid
        WHERE c.relkind = 'r' AND c.relname ~ '^vectors_' AND k.contype = 'c' AND k.convalidated
        GROUP BY c.oid
        """
    )
    assert len(tables) == len(await world.versions.of(world.collection.id)) + 2 == len(STORAGES) + 5
    for name, checks, nullable in tables:
        named = re.fullmatch(r"vectors_(\d+)_(\d+)", name)
        assert named, name
        collection, number = named.groups()
        definitions = "\n".join(checks)
        assert f"CHECK ((collection_id = {collection}))" in definitions, name
        assert f"CHECK ((embedder_version = {number}))" in definitions, name
        label = f"{collection}/{number}".encode().hex()
        assert re.search(rf"CHECK \(\(seal = .*sha256\(.*_send\(embedding\).*{label}.*\)", definitions), name
        assert re.search(r"CHECK \(\(+(l2_norm|vector_norm)\(embedding\) >= .* AND .* <= ", definitions), name
        assert nullable == 0, name


async def test_numbers_are_never_given_out_again(pool: Pool) -> None:
    """Else what speaks of a version that is gone (a job, a cache, a metric) would speak of another one."""
    world = await build(pool)
    numbers = []
    for _ in range(3):
        version = await register(world)
        numbers.append(version.number)
        await world.versions.retire(version, dataclasses.replace(ENTRY, action="retired", version=version.number))
    assert numbers == [2, 3, 4]
    remaining = await world.rows("SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^vectors_'")
    assert remaining == [("vectors_1_1",)]
    at_once = await asyncio.gather(*(register(world) for _ in range(4)))
    assert sorted(version.number for version in at_once) == [5, 6, 7, 8]
    await world.collections.delete(world.collection.id)
    settings, version = world.collection.settings, world.version
    again = await world.collections.create(CollectionName("c0"), settings, version.identity, version.canary, NOW)
    assert again.id > world.collection.id


async def test_the_vectors_of_an_older_database_get_their_seals(pool: Pool) -> None:
    """The rows and their index stay, and what is foreign is refused from then on."""
    (seals,) = (migration for migration in migrations.read() if migration.name == "seals")
    world = await build(pool)
    await world.put_and_store({"a": unit(1, 2, 3, 4)[None], "b": unit(0, 1, 0, 0)[None]})
    before = await contents_of_first(world)
    await world.execute("ALTER TABLE vectors_1_1 DROP COLUMN seal")
    await pool.execute(vector_tables.create_index(world.version))
    await pool.execute(seals.text.encode())
    assert await contents_of_first(world) == before
    assert (await world.versions.status(world.version)).indexed
    with pytest.raises(psycopg.errors.CheckViolation):
        await world.execute("UPDATE vectors_1_1 SET embedding = '[4,3,2,1]' WHERE document_id = 'a'")
    await world.put(doc("a", "again"))
    await world.drain()
    assert await world.stored_chunks() == {("a", 0): 2, ("b", 0): 1}


async def contents_of_first(world: World) -> list[Any]:
    return await world.rows("SELECT document_id, chunk, seal, embedding::text FROM vectors_1_1 ORDER BY 1, 2")


CANDIDATES = 100
RECALL = 0.9


@pytest.mark.parametrize("storage", STORAGES)
async def test_each_storage_finds_what_an_exact_scan_finds(pool: Pool, storage: Storage) -> None:
    """As a search asks: for 100 candidates of which the best 10 are looked at, with the `ef_search` of default."""
    dimensions, count, asked = 128, 3_000, 50
    world = await stored_as(await build(pool, dimensions=dimensions), storage)
    made = clustered(count + asked, dimensions, seed=5)
    for start in range(0, count, 1_000):
        names = [f"d{number:04d}" for number in range(start, start + 1_000)]
        await world.put(*map(doc, names))
        work = await world.claim(limit=1_000)
        await world.store(*(encoded(one, made[int(one.job.document_id[1:])][None]) for one in work))
    await pool.execute(vector_tables.create_index(world.version))
    await pool.execute(vector_tables.analyze(world.version))
    plan = DensePlan(kind="hnsw", ef_search=DEFAULT_EF_SEARCH)
    common = 0
    for query in made[count:]:
        truth = await world.vectors.nearest(VectorQuery(world.version, query, 10, EXACT))
        found = await world.vectors.nearest(VectorQuery(world.version, query, CANDIDATES, plan))
        assert len(found) == CANDIDATES
        common += len({one.document_id for one in truth} & {one.document_id for one in found[:10]})
    assert common / (10 * asked) >= RECALL


@pytest.mark.parametrize(("storage", "borders"), [("binary", [0.0]), ("scalar", [-0.6745, 0.0, 0.6745])])
async def test_as_many_bits_differ_as_there_are_levels_between_components(
    pool: Pool, storage: Storage, borders: list[float]
) -> None:
    version = (await stored_as(await build(pool, dimensions=64), storage)).version
    asked = {name: vector_tables.indexed(version, sql.Placeholder(name)) for name in ("one", "other")}
    count = sql.SQL("SELECT bit_count({one} # {other})").format(**asked)
    components = np.array([-0.12, -0.04, 0.04, 0.12], np.float32)  # one of each level: a standard deviation is 1 / 8
    for pair in np.random.default_rng(6).choice(components, (10, 2, 64)):
        one, other = np.searchsorted(np.array(borders) / 8, pair)
        values = {name: vector_tables.layout_of(version).value(row) for name, row in zip(asked, pair, strict=True)}
        async with pool.connection() as connection:
            assert await (await connection.execute(count, values)).fetchone() == (abs(one - other).sum(),)
