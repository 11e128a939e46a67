"""The bytes that `azimuth plan` computes beside those of real tables."""

from dataclasses import replace

import pytest

from service.cli import capacity
from service.core.collections import IndexKind, IndexSettings, Storage
from service.store.postgres.connection.pool import Pool
from service.store.postgres.vectors import vector_tables
from tests.storages import STORAGES
from tests.world import build, doc

pytestmark = pytest.mark.slow
ROWS = 1_000


@pytest.mark.parametrize("dimensions", [384, 1_024])
@pytest.mark.parametrize(("storage", "kind"), [*((storage, "hnsw") for storage in STORAGES), ("halfvec", "ivfflat")])
async def test_tables_and_indexes_are_as_large_as_computed(
    pool: Pool, dimensions: int, storage: Storage, kind: IndexKind
) -> None:
    postgres = await build(pool)
    identity = replace(postgres.version.identity, dimensions=dimensions)
    version = replace(postgres.version, identity=identity, index=IndexSettings(storage=storage, kind=kind))
    names, type_ = vector_tables.vector_table_of(version), vector_tables.layout_of(version).type
    async with postgres.database.transaction() as connection:
        await connection.execute(vector_tables.drop_table(version.collection_id, version.number))
        for statement in vector_tables.create_table(version.collection_id, version.number, dimensions, storage):
            await connection.execute(statement)
    # What is not sealed does for its size.
    await postgres.execute(f"ALTER TABLE {names.table} DROP CONSTRAINT sealed")
    await postgres.execute(
        f"""
        INSERT INTO {names.table}
        SELECT {version.collection_id}, lpad(n::text, 16, 'd'), 0, {version.number}, 1, 0, 700, '\\x0011223344556677',
               (SELECT array_agg(random() - .5) FROM generate_series(1, {dimensions}) WHERE n > 0)::real[]::{type_}
        FROM generate_series(1, {ROWS}) AS n
        """
    )
    async with postgres.database.dedicated() as connection:
        await connection.execute(vector_tables.create_index(version))
    ((table, index),) = await postgres.rows(
        f"SELECT pg_relation_size('{names.table}'), pg_relation_size('{names.index}')"
    )
    load = capacity.Load(chunks=1e6, qps=1, dimensions=dimensions, storage=storage, kind=kind)
    assert capacity.table_bytes(load) / 1e6 == pytest.approx(table / ROWS, rel=0.05)
    assert capacity.index_bytes(load) / 1e6 == pytest.approx(index / ROWS, rel=0.1)


async def test_documents_are_as_large_as_computed(pool: Pool) -> None:
    postgres = await build(pool)
    for part in range(10):
        await postgres.put(*(doc(f"{part * 100 + at:016d}", "words of a text " * 44) for at in range(100)))
    await postgres.execute("VACUUM documents, changes")
    ((size,),) = await postgres.rows("SELECT pg_total_relation_size('documents') + pg_total_relation_size('changes')")
    load = capacity.Load(chunks=ROWS, qps=1, chunks_per_document=1, characters=704)
    assert capacity.disk_bytes(load)["documents"] == pytest.approx(size, rel=0.2)
