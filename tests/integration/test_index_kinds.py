"""Kinds of index beside HNSW, in PostgreSQL: those that the server has, and what is said of others."""

from typing import get_args

import numpy as np
import pytest

from loadtests.space import clustered
from service.core.collections import INDEXED_STORAGES, IndexKind, IndexSettings
from service.core.errors import Invalid
from service.core.filters import parse
from service.core.ids import Vectors
from service.core.ports.vectors import VectorQuery
from service.core.search import DensePlan
from service.core.versions import VersionState
from service.store.postgres.connection.pool import Pool
from service.store.postgres.vectors import vector_tables
from service.store.postgres.vectors.index_health import PostgresIndexes
from tests.storages import stored_as
from tests.world import World, build, doc, encoded

pytestmark = pytest.mark.database

ROWS, DIMENSIONS, ASKED = 2_000, 32, 30
KINDS: tuple[IndexKind, ...] = get_args(IndexKind)


async def filled(pool: Pool, kind: IndexKind) -> tuple[World, Vectors]:
    """A version with its index, and queries. Skipped where the server has no such index."""
    world = await build(pool, dimensions=DIMENSIONS)
    if not await world.rows(f"SELECT FROM pg_am WHERE amname = '{kind}'"):
        pytest.skip(f"this server has no {kind}")
    world = await stored_as(world, INDEXED_STORAGES[kind][0], kind)
    made = clustered(ROWS + ASKED, DIMENSIONS, seed=3)
    for start in range(0, ROWS, 1_000):
        await world.put(*(doc(f"d{number:04d}", even=number % 2 == 0) for number in range(start, start + 1_000)))
        work = await world.claim(limit=1_000)
        await world.store(*(encoded(one, made[int(one.job.document_id[1:])][None]) for one in work))
    assert await world.versions.build_index(world.version)
    await pool.execute(b"ANALYZE documents")
    return world, made[ROWS:]


@pytest.mark.parametrize("kind", KINDS)
async def test_more_effort_finds_more_and_a_filter_is_kept(pool: Pool, kind: IndexKind) -> None:
    world, queries = await filled(pool, kind)
    where = parse({"even": True})

    async def recall(plan: DensePlan, filtered: bool = False) -> float:
        common = 0
        for query in queries:
            asked = VectorQuery(world.version, query, 10, DensePlan(kind="exact"), where=where if filtered else None)
            truth = {one.document_id for one in await world.vectors.nearest(asked)}
            found = await world.vectors.nearest(VectorQuery(world.version, query, 10, plan, where=asked.where))
            assert sorted(found, key=lambda one: -one.score) == list(found)
            common += len(truth & {one.document_id for one in found})
        return common / (10 * len(queries))

    found = [await recall(DensePlan(kind="hnsw", ef_search=effort)) for effort in (10, 100, 1_000)]
    assert found == sorted(found)
    assert found[-1] >= 0.99
    assert kind != "ivfflat" or found[0] < 1  # one list: the index answers, and not a scan of the table
    assert await recall(DensePlan(kind="hnsw", ef_search=1_000, selectivity=0.5), filtered=True) >= 0.99
    iterative = DensePlan(kind="hnsw_iterative", ef_search=100, selectivity=0.5, max_scan_tuples=ROWS)
    assert await recall(iterative, filtered=True) >= 0.9


async def test_a_rebuilt_index_has_lists_for_the_rows_that_there_are(pool: Pool) -> None:
    world, queries = await filled(pool, "ivfflat")
    await world.execute(f"DELETE FROM {vector_tables.vector_table_of(world.version).table} WHERE document_id > 'd0399'")
    await world.execute("VACUUM ANALYZE vectors_1_1")
    await PostgresIndexes(pool).rebuild(world.version)
    assert await world.rows("SELECT reloptions FROM pg_class WHERE relname = 'vectors_1_1_hnsw'") == [(["lists=20"],)]
    plan = DensePlan(kind="hnsw", ef_search=1_000)
    assert len(await world.vectors.nearest(VectorQuery(world.version, queries[0], 400, plan))) == 400


@pytest.mark.parametrize("kind", ["vchordrq", "diskann"])
async def test_a_kind_that_the_server_lacks_is_refused_with_those_that_it_has(pool: Pool, kind: IndexKind) -> None:
    world = await build(pool)
    if await world.rows(f"SELECT FROM pg_am WHERE amname = '{kind}'"):
        pytest.skip(f"this server has {kind}")
    index = IndexSettings(kind=kind, storage="vector")
    with pytest.raises(Invalid, match=f"{kind} is not in this database, which has hnsw, ivfflat: install"):
        await world.add_version(2, VersionState.BACKFILLING, index=index)
    assert not np.any(await world.rows("SELECT to_regclass('vectors_1_2') IS NOT NULL"))
