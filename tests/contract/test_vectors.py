"""The contract of the port `VectorStore`, for the fake and for PostgreSQL; and what a table rejects by itself."""

import asyncio
import dataclasses
from typing import Any, cast

import numpy as np
import psycopg
import pytest

from service.core.collections import Storage
from service.core.errors import VersionNotFound
from service.core.filters import parse
from service.core.ids import DocumentId
from service.core.ids import Vectors as VectorArray
from service.core.ports.vectors import VectorQuery
from service.core.search import DensePlan
from service.core.vector_math import cosine
from service.core.versions import VersionState
from service.store.postgres import documents
from service.store.postgres.connection.pool import Pool
from service.store.postgres.vectors import vectors
from service.store.postgres.vectors.vector_tables import create_index
from tests.storages import STORAGES, sealed, stored_as
from tests.world import NOW, World, build, doc, encoded, later, unit

EXACT = DensePlan(kind="exact")
PLANS = [EXACT, DensePlan(kind="hnsw", ef_search=100), DensePlan(kind="hnsw_iterative", ef_search=100)]
WIDE = 64
"""Dimensions of what is indexed: enough for their signs to tell something."""
RAMP = unit(*range(1, WIDE + 1))
X, Y, Z = unit(1, 0, 0, 0), unit(0, 1, 0, 0), unit(0, 0, 1, 0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every storage keeps the same promises. The table of one with bits is that of halfvec: only its index differs."""
    if "storage" in metafunc.fixturenames:
        searched = {"plan", "indexed"} & set(metafunc.fixturenames)
        metafunc.parametrize("storage", STORAGES if searched else STORAGES[:2])


@pytest.fixture
async def memory(storage: Storage) -> World:
    return await stored_as(await build(None), storage)


@pytest.fixture
async def postgres(pool: Pool, storage: Storage) -> World:
    return await stored_as(await build(pool), storage)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.database)])
def world(request: pytest.FixtureRequest, storage: Storage) -> World:
    return cast(World, request.getfixturevalue(request.param))


def rows(*vectors: Any) -> VectorArray:
    return np.stack(vectors)


def found(candidates: Any) -> list[tuple[str, int | None]]:
    return [(one.document_id, one.chunk) for one in candidates]


async def test_chunks_are_stored_with_their_place_and_revision(world: World) -> None:
    await world.put(doc("a", "first second"))
    (claimed,) = await world.claim()
    assert await world.store(encoded(claimed, rows(X, Y), ["first ", "second"])) == {"a"}
    best, other = await world.vectors.nearest(VectorQuery(world.version, unit(1, 0.5, 0, 0), 10, EXACT))
    assert (best.document_id, best.chunk, best.start, best.end, best.content_revision) == ("a", 0, 0, 6, 1)
    assert (other.chunk, other.start, other.end) == (1, 6, 12)
    assert best.score == pytest.approx(1 / 1.25**0.5, abs=1e-3)


async def test_all_chunks_come_in_order_as_they_are_stored(world: World) -> None:
    await world.put_and_store({"b": rows(Y, unit(1, 2, 3, 4)), "a": rows(Z), "c": rows(X)})
    ids = [DocumentId(id_) for id_ in ("b", "a", "nobody")]
    chunks = await world.vectors.chunks(world.version, ids)
    places = [(one.document_id, one.chunk, one.start, one.end, one.score) for one, _ in chunks]
    assert places == [("a", 0, 0, 10, 0.0), ("b", 0, 0, 10, 0.0), ("b", 1, 10, 20, 0.0)]
    precision = np.float32 if world.version.index.storage == "vector" else np.float16
    assert chunks[2][1].tolist() == unit(1, 2, 3, 4).astype(precision).astype(np.float32).tolist()


async def test_a_write_replaces_all_chunks_of_its_documents_alone(world: World) -> None:
    await world.put_and_store({"a": rows(X, Y, Z), "b": rows(Z)})
    await world.put(doc("a", "short"))
    await world.drain()
    assert await world.stored_chunks() == {("a", 0): 2, ("b", 0): 1}


async def test_a_document_may_have_no_chunks(world: World) -> None:
    await world.put_and_store({"a": rows(X)})
    await world.put(doc("a", "", title="a"))
    (claimed,) = await world.claim()
    nothing = encoded(claimed, np.empty((0, 4), np.float32), [])
    assert await world.store(nothing) == {"a"}
    assert await world.stored_chunks() == {}
    assert await world.claim() == ()


async def test_what_is_no_longer_ours_is_skipped_beside_what_is(world: World) -> None:
    await world.put(doc("kept"), doc("changed"), doc("gone"))
    claimed = await world.claim()
    await world.put(doc("changed", "newer"))
    await world.delete("gone")
    assert await world.store(*map(encoded, claimed)) == {"kept"}
    assert await world.stored_chunks() == {("kept", 0): 1}


async def test_versions_keep_apart(world: World) -> None:
    second = await world.add_version(2, VersionState.READY)
    await world.put_and_store({"a": rows(X)})
    assert await world.vectors.nearest(VectorQuery(second, X, 10, EXACT)) == ()
    assert await world.stored_chunks(second) == {}


async def test_a_job_of_another_version_stores_and_ends_nothing(world: World) -> None:
    """Not even where the rows would fit: both versions have as many dimensions, and the job is still leased."""
    second = await world.add_version(2, VersionState.READY)
    await world.put(doc("a"))
    (first_job,) = await world.claim()
    await world.store(encoded(first_job))
    (job,) = await world.queue.claim([second], 10, "w1", NOW, later(60) - NOW)
    assert await world.vectors.write(world.version, [encoded(job)]) == frozenset()
    nothing = encoded(job, np.empty((0, 4), np.float32), [])
    assert await world.vectors.write(world.version, [nothing]) == frozenset()
    assert await world.stored_chunks() == {("a", 0): 1}
    assert await world.queue.unfinished(world.collection.id, second.number, [DocumentId("a")]) == ("a",)


@pytest.mark.database
async def test_a_write_is_all_or_nothing(postgres: World) -> None:
    await postgres.put_and_store({"a": rows(X), "b": rows(X)})
    await postgres.put(doc("a", "new"), doc("b", "new"))
    claimed = await postgres.claim()
    broken = encoded(claimed[1], rows(np.zeros(4, np.float32)))
    with pytest.raises(psycopg.errors.CheckViolation):
        await postgres.store(encoded(claimed[0]), broken)
    assert await postgres.stored_chunks() == {("a", 0): 1, ("b", 0): 1}
    assert await postgres.store(*map(encoded, claimed)) == {"a", "b"}


@pytest.mark.database
@pytest.mark.parametrize(
    "vector",
    [[np.nan, 1, 0, 0], [np.inf, 0, 0, 0], [-np.inf, 0, 0, 0], [0] * 4, [1e-25, 0, 0, 0], [1e25, 0, 0, 0], [1, 0, 0]],
)
async def test_the_table_refuses_what_has_no_direction(postgres: World, vector: list[float]) -> None:
    await postgres.put(doc("a"))
    (claimed,) = await postgres.claim()
    with np.errstate(over="ignore"), pytest.raises((psycopg.DataError, psycopg.IntegrityError)):
        await postgres.store(encoded(claimed, np.array([vector], np.float32)))
    assert await postgres.stored_chunks() == {}


@pytest.mark.database
async def test_workers_that_hold_the_same_documents_in_other_orders_all_finish(
    postgres: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers, one of them late: locks are taken in the order of ids, and the late one stores nothing."""
    for adapter in (documents, vectors):
        monkeypatch.setattr(adapter, "retrying", lambda work: work())
    ids = [f"d{number:03d}" for number in range(100)]
    await postgres.put(*map(doc, ids))
    slow = await postgres.claim(worker="slow")
    fast = await postgres.claim(worker="fast", now=later(100))
    kept = await asyncio.gather(
        postgres.store(*map(encoded, slow)),
        postgres.store(*map(encoded, reversed(fast))),
        postgres.put(*(doc(name, x=1) for name in reversed(ids)), now=later(100)),
    )
    assert [len(one) for one in kept] == [0, 100, 100]
    assert len(await postgres.stored_chunks()) == 100


@pytest.fixture(params=PLANS, ids=lambda plan: plan.kind)
def plan(request: pytest.FixtureRequest) -> DensePlan:
    return cast(DensePlan, request.param)


@pytest.fixture
async def indexed(pool: Pool, storage: Storage) -> World:
    """Three hundred documents of two chunks each with an HNSW index over them; `even` is in the metadata."""
    world = await stored_as(await build(pool, dimensions=WIDE), storage)
    generator = np.random.default_rng(7)
    await world.put(*(doc(f"d{number:03d}", "0123456789", even=number % 2 == 0) for number in range(300)))
    work = []
    for one in await world.claim(limit=300):
        vectors = generator.normal(size=(2, WIDE)).astype(np.float32)
        work.append(encoded(one, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), ["01234", "56789"]))
    await world.store(*work)
    await pool.execute(create_index(world.version))
    await pool.execute(f"ANALYZE vectors_{world.collection.id}_1, documents".encode())
    return world


async def test_best_first_and_no_more_than_asked_for(world: World, plan: DensePlan) -> None:
    await world.put_and_store({"x": rows(X, Z), "xy": rows(unit(1, 1, 0, 0)), "y": rows(Y)})
    query = unit(1, 0.1, 0, 0)
    nearest = await world.vectors.nearest(VectorQuery(world.version, query, 3, plan))
    assert found(nearest) == [("x", 0), ("xy", 0), ("y", 0)]
    assert [one.score for one in nearest] == pytest.approx(
        [cosine(query, vector) for vector in (X, unit(1, 1, 0, 0), Y)], abs=1e-3
    )
    assert found(await world.vectors.nearest(VectorQuery(world.version, query, 1, plan))) == [("x", 0)]


async def test_an_empty_space_has_no_neighbours(world: World, plan: DensePlan) -> None:
    assert await world.vectors.nearest(VectorQuery(world.version, X, 10, plan)) == ()


async def test_within_the_named_documents(world: World, plan: DensePlan) -> None:
    await world.put_and_store({"x": rows(X, X), "xy": rows(unit(1, 1, 0, 0)), "y": rows(Y)})
    named = [DocumentId(name) for name in ("y", "xy", "missing")]
    nearest = await world.vectors.nearest(VectorQuery(world.version, X, 10, plan, within=named))
    assert found(nearest) == [("xy", 0), ("y", 0)]
    assert await world.vectors.nearest(VectorQuery(world.version, X, 10, plan, within=[])) == ()


async def test_many_named_documents_are_scanned_like_few(indexed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half by each of two connections; by one where processors are left to others."""
    named = [DocumentId(f"d{number:03d}") for number in range(0, 200, 2)]
    query = VectorQuery(indexed.version, RAMP, 10, EXACT, within=named)
    whole = await indexed.vectors.nearest(query)
    assert len(whole) == 10
    monkeypatch.setattr(vectors, "_MIN_SPLIT", 50)
    assert await indexed.vectors.nearest(query) == whole
    assert indexed.pool is not None
    monkeypatch.setattr(vectors, "gather_limited", None)  # nothing may call it
    assert await vectors.PostgresVectors(indexed.pool, parallel=False).nearest(query) == whole


@pytest.mark.parametrize("restricted", [{}, {"within": ["a", "b"]}, {"where": parse({"kind": "new"})}])
async def test_an_exact_scan_of_documents_gives_of_each_the_best_chunk(
    world: World, restricted: dict[str, Any]
) -> None:
    between = unit(2, 1, 0, 0)
    await world.put_and_store({"a": rows(X, between, Y), "b": rows(Y, unit(1, 2, 0, 0))}, kind="new")
    await world.put_and_store({"c": rows(Y, X)}, kind="old")
    query = VectorQuery(world.version, X, 2, EXACT, by_document=True, **restricted)
    expected = [("a", 0), ("b", 1)] if restricted else [("a", 0), ("c", 1)]
    assert found(await world.vectors.nearest(query)) == expected
    assert found(await world.vectors.nearest(dataclasses.replace(query, limit=1))) in ([("a", 0)], [("c", 1)])


async def test_where_documents_pass_as_they_are_now(world: World, plan: DensePlan) -> None:
    await world.put_and_store({"x": rows(X), "xy": rows(unit(1, 1, 0, 0)), "y": rows(Y)}, kind="old")
    await world.put(doc("y", "0123456789", kind="new"))
    where = parse({"kind": "old"})
    nearest = await world.vectors.nearest(VectorQuery(world.version, Y, 10, plan, where=where))
    assert found(nearest) == [("xy", 0), ("x", 0)]
    assert await world.vectors.nearest(VectorQuery(world.version, Y, 10, plan, where=parse({"kind": "?"}))) == ()


async def test_without_a_dense_leg_nothing_is_near(postgres: World) -> None:
    await postgres.put_and_store({"x": rows(X)})
    assert await postgres.vectors.nearest(VectorQuery(postgres.version, X, 10, DensePlan())) == ()


@pytest.mark.database
async def test_the_index_agrees_with_the_exact_scan(indexed: World) -> None:
    generator = np.random.default_rng(8)
    common = dict.fromkeys(PLANS, 0)
    for _ in range(10):
        query = unit(*generator.normal(size=WIDE))
        truth = await indexed.vectors.nearest(VectorQuery(indexed.version, query, 20, EXACT))
        for plan in PLANS:
            nearest = await indexed.vectors.nearest(VectorQuery(indexed.version, query, 20, plan))
            assert len(nearest) == 20
            assert [one.score for one in nearest] == sorted((one.score for one in nearest), reverse=True)
            common[plan] += len(set(found(truth)) & set(found(nearest)))
    # For bits nothing is harder than noise without any structure; `integration/test_spaces.py` measures their recall.
    assert min(common.values()) >= {"binary": 120, "scalar": 160}.get(indexed.version.index.storage, 180)


@pytest.mark.database
async def test_ef_search_bounds_what_the_index_gives_and_iteration_does_not(indexed: World) -> None:
    async def nearest(limit: int, plan: DensePlan) -> int:
        return len(await indexed.vectors.nearest(VectorQuery(indexed.version, RAMP, limit, plan)))

    assert 150 < await nearest(200, DensePlan(kind="hnsw")) <= 200
    few = await nearest(200, DensePlan(kind="hnsw", ef_search=10))
    # Bits rank roughly: there have to be enough rows to score, whatever was asked for.
    assert few > 150 if indexed.version.index.storage in ("binary", "scalar") else few <= 10
    assert await nearest(600, DensePlan(kind="hnsw_iterative", ef_search=10)) > 500


@pytest.mark.database
async def test_impossible_settings_are_brought_into_range(indexed: World) -> None:
    for ef_search in (-5, 0, 10_000):
        plan = DensePlan(kind="hnsw", ef_search=ef_search)
        assert await indexed.vectors.nearest(VectorQuery(indexed.version, RAMP, 5, plan))


@pytest.mark.database
async def test_filtered_along_the_index_is_as_good_as_filtered_exactly(indexed: World) -> None:
    query, where = RAMP[::-1], parse({"even": True})
    truth = await indexed.vectors.nearest(VectorQuery(indexed.version, query, 50, EXACT, where=where))
    plan = DensePlan(kind="hnsw_iterative", ef_search=40, selectivity=0.5)
    nearest = await indexed.vectors.nearest(VectorQuery(indexed.version, query, 50, plan, where=where))
    assert len(nearest) == 50
    assert all(int(one.document_id[1:]) % 2 == 0 for one in nearest)
    assert [one.score for one in nearest] == sorted((one.score for one in nearest), reverse=True)
    assert len(set(found(truth)) & set(found(nearest))) >= 45


@pytest.mark.database
async def test_settings_of_a_search_end_with_it(indexed: World) -> None:
    assert indexed.pool is not None
    plan = DensePlan(kind="hnsw_iterative", ef_search=7)
    await asyncio.gather(*(indexed.vectors.nearest(VectorQuery(indexed.version, RAMP, 5, plan)) for _ in range(8)))
    names = "hnsw.ef_search", "hnsw.iterative_scan", "enable_seqscan", "enable_sort"
    query = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)

    async def settings() -> Any:
        assert indexed.pool is not None
        async with indexed.pool.connection() as connection:
            await connection.execute("SELECT '[1]'::halfvec")  # a fresh connection learns the settings with the type
            return await (await connection.execute(query.encode())).fetchone()

    assert set(await asyncio.gather(*(settings() for _ in range(8)))) == {("40", "off", "on", "on")}


@pytest.mark.database
async def test_a_failed_search_leaves_its_connection_fit_for_use(indexed: World) -> None:
    for _ in range(10):
        with pytest.raises(psycopg.DataError, match=r"different (vector|halfvec|bit)"):
            await indexed.vectors.nearest(VectorQuery(indexed.version, X, 5, PLANS[1]))
    assert await indexed.vectors.nearest(VectorQuery(indexed.version, RAMP, 5, PLANS[1]))


@pytest.mark.database
async def test_a_space_that_was_dropped_is_a_version_not_found(indexed: World) -> None:
    await indexed.collections.delete(indexed.collection.id)
    ids = [DocumentId("d001")]
    for asked in (
        *(indexed.vectors.nearest(VectorQuery(indexed.version, RAMP, 5, plan)) for plan in PLANS),
        indexed.vectors.score(indexed.version, RAMP, ids),
        indexed.vectors.directions(indexed.version, ids),
        indexed.vectors.get(indexed.version, [(ids[0], 0)]),
        indexed.vectors.sample(indexed.version, 10),
    ):
        with pytest.raises(VersionNotFound):
            await asked


async def test_score_is_the_exact_cosine_of_the_best_chunk(world: World) -> None:
    await world.put_and_store({"a": rows(Y, unit(1, 0.2, 0, 0), Z), "b": rows(Y), "c": rows(X)})
    asked = [DocumentId(name) for name in ("b", "missing", "a")]
    a, b = sorted(await world.vectors.score(world.version, X, asked), key=lambda one: one.document_id)
    assert (a.document_id, a.chunk, a.start, b.document_id) == ("a", 1, 10, "b")
    assert a.score == pytest.approx(1 / 1.04**0.5, abs=1e-3)
    assert b.score == pytest.approx(0.0, abs=1e-6)
    assert await world.vectors.score(world.version, X, []) == ()


async def test_score_gives_as_many_chunks_of_each_document_as_asked_for(world: World) -> None:
    await world.put_and_store({"a": rows(Y, X, unit(1, 1, 0, 0)), "b": rows(Y), "c": rows(X)})
    asked = [DocumentId(name) for name in ("a", "b", "a", "missing")]
    for most, chunks in ((1, [1]), (2, [1, 2]), (9, [1, 2, 0])):
        scored = await world.vectors.score(world.version, X, asked, most)
        assert [one.chunk for one in scored if one.document_id == "a"] == chunks
        assert [one.chunk for one in scored if one.document_id == "b"] == [0]
        assert len(scored) == len(chunks) + 1
    first = await world.vectors.score(world.version, None, asked, 2)
    assert [(one.chunk, one.start, one.score) for one in first if one.document_id == "a"] == [(0, 0, 0.0), (1, 10, 0.0)]


async def test_the_direction_of_a_document_is_that_of_all_its_chunks(world: World) -> None:
    await world.put_and_store({"a": rows(X, Y), "b": rows(Z), "c": rows(X, unit(-1, 0, 0, 0))})
    asked = [DocumentId(name) for name in ("a", "b", "c", "missing")]
    found = await world.vectors.directions(world.version, asked)
    assert set(found) == {"a", "b"}, "the chunks of c cancel each other"
    np.testing.assert_allclose(found[DocumentId("a")], unit(1, 1, 0, 0), atol=1e-3)
    np.testing.assert_allclose(found[DocumentId("b")], Z, atol=1e-3)
    for vector in found.values():
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-6)
    assert await world.vectors.directions(world.version, []) == {}


async def test_what_was_changed_or_deleted_has_no_direction(world: World) -> None:
    await world.put_and_store({"a": rows(X), "b": rows(Y), "c": rows(Z)})
    await world.put(doc("a", "other words"), now=later(1))
    await world.put(doc("b", "0123456789", kind="only the metadata"), now=later(1))
    await world.delete("c", now=later(1))
    asked = [DocumentId(name) for name in ("a", "b", "c")]
    assert set(await world.vectors.directions(world.version, asked)) == {"b"}


async def test_score_and_nearest_agree(world: World) -> None:
    await world.put_and_store({"a": rows(unit(1, 2, 3, 4)), "b": rows(unit(4, 3, -2, 1))})
    query = unit(0.3, -0.2, 0.9, 0.1)
    nearest = await world.vectors.nearest(VectorQuery(world.version, query, 10, EXACT))
    scored = await world.vectors.score(world.version, query, [one.document_id for one in nearest])
    assert {(one.document_id, one.score) for one in scored} == {(one.document_id, one.score) for one in nearest}


async def test_vectors_are_read_back_with_length_one(world: World) -> None:
    vector = unit(0.123, -0.456, 0.789, 0.012)
    await world.put_and_store({"a": rows(X, vector), "b": rows(Y)})
    asked = [(DocumentId(name), chunk) for name, chunk in (("a", 1), ("b", 0), ("b", 1), ("c", 0))]
    read = await world.vectors.get(world.version, asked)
    assert set(read) == {("a", 1), ("b", 0)}
    back = read[DocumentId("a"), 1]
    assert back.dtype == np.float32
    assert np.linalg.norm(back) == pytest.approx(1.0, abs=1e-6)
    assert cosine(back, vector) > 0.99999


async def test_vectors_of_another_content_are_not_read_back(world: World) -> None:
    await world.put_and_store({"a": rows(X), "b": rows(Y)})
    asked = [(DocumentId("a"), 0), (DocumentId("b"), 0)]
    assert set(await world.vectors.get(world.version, asked, [1, 2])) == {("a", 0)}


async def test_a_sample_of_a_small_space_is_all_of_it(world: World) -> None:
    await world.put_and_store({"a": rows(X, Y), "b": rows(Z)})
    sample = await world.vectors.sample(world.version, 100)
    expected = {("a", 0): X.tolist(), ("a", 1): Y.tolist(), ("b", 0): Z.tolist()}
    assert dict(zip(sample.chunks, sample.vectors.tolist(), strict=True)) == expected
    assert sample.vectors.dtype == np.float32


async def test_a_sample_says_where_its_texts_are(world: World) -> None:
    await world.put_and_store({"a": np.eye(4, dtype=np.float32)[:3], "b": np.eye(4, dtype=np.float32)[:1]})
    sample = await world.vectors.sample(world.version, 100)
    assert [(place.document_id, place.chunk) for place in sample.places] == list(sample.chunks)
    read = await world.documents.passages(world.collection.id, sample.places, None, 5)
    found = {key: (one.text, one.start) for key, one in zip(sample.chunks, read, strict=True) if one is not None}
    starts = {("a", 0): 0, ("a", 1): 10, ("a", 2): 20, ("b", 0): 0}
    assert found == {key: ("0123456789", start) for key, start in starts.items()}


async def test_a_sample_of_nothing_is_empty_and_has_the_right_shape(world: World) -> None:
    sample = await world.vectors.sample(world.version, 100)
    assert sample.chunks == ()
    assert sample.vectors.shape == (0, 4)


async def test_a_sample_is_as_large_as_asked_for_and_another_each_time(world: World) -> None:
    await world.put_and_store({f"d{number:03d}": rows(unit(1, number, 2, 3)) for number in range(100)})
    samples = [await world.vectors.sample(world.version, 40) for _ in range(2)]
    assert all(len(set(sample.chunks)) == 40 for sample in samples)
    assert set(samples[0].chunks) != set(samples[1].chunks)
    for sample in samples:
        np.testing.assert_allclose(np.linalg.norm(sample.vectors, axis=1), 1.0, atol=1e-6)
        read = await world.vectors.get(world.version, sample.chunks)
        np.testing.assert_array_equal(sample.vectors, np.stack([read[key] for key in sample.chunks]))


@pytest.mark.database
async def test_a_sample_of_a_large_space_comes_from_all_over_it(pool: Pool) -> None:
    """Beyond what is counted: pages are drawn. Also where most of the rows that were estimated are gone."""
    world = await build(pool)
    table = f"vectors_{world.collection.id}_1"
    fill = (
        f"INSERT INTO {table} SELECT {world.collection.id}, 'd' || lpad(n::text, 6, '0'), 0, 1, 1, 0, 1, "
        f"{sealed(world.collection.id)}, embedding FROM generate_series(1, 50000) AS n, "
        "LATERAL (SELECT ('[1,2,3,' || n || ']')::halfvec AS embedding)"
    )
    await pool.execute(fill.encode())
    await pool.execute(f"ANALYZE {table}".encode())
    samples = [await world.vectors.sample(world.version, 500) for _ in range(16)]
    places = [[int(id_[1:]) for id_, _ in sample.chunks] for sample in samples]
    thirds = np.array([np.histogram(one, bins=[0.5, 16_667.5, 33_334.5, 50_000.5])[0] for one in places])
    assert (thirds.sum(axis=1) == 500).all()
    # Of about 670 pages each is drawn with probability 0.1, so a third gives 167 rows of a sample, with a standard
    # deviation of 30. Both bounds together fail less than once in a million runs.
    assert ((thirds > 10) & (thirds < 350)).all()
    assert (np.abs(thirds.mean(axis=0) - 500 / 3) < 47).all()
    await pool.execute(f"DELETE FROM {table} WHERE document_id > 'd000300'".encode())
    assert len((await world.vectors.sample(world.version, 500)).chunks) == 300
