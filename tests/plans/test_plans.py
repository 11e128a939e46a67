"""How PostgreSQL runs each hot query, on tables large enough for its planner to care.

The adapters run as they do in service; their statements are explained on the way, in the transaction and with the
settings that they run under.
"""

import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import psycopg
import pytest

from service.core.change_feed import Position
from service.core.collections import IndexSettings
from service.core.filters import parse
from service.core.ids import DocumentId
from service.core.ports.vectors import VectorQuery
from service.core.search import Candidate, DensePlan
from service.core.versions import EmbedderVersion, VersionState
from service.store.embedded.server import EmbeddedServer
from service.store.postgres.connection.pool import Connection, Pool, open_pool
from service.store.postgres.documents import PostgresDocuments
from service.store.postgres.filters import filter_matches
from service.store.postgres.filters.indexed_fields import IndexedFields
from service.store.postgres.maintenance import purge_tombstones
from service.store.postgres.vectors.vector_tables import create_index, vector_table_of
from service.store.postgres.versions.backfills import PostgresBackfills
from tests.conftest import create_database, run_apart, url_of
from tests.filling import add_external
from tests.storages import sealed
from tests.world import LEASE, NOW, World, build, doc, encoded, later

pytestmark = pytest.mark.database

ROWS = 6_000
DIMENSIONS = 16
IDS = [DocumentId(f"d{number:05d}") for number in range(20)]
DECLARED = {
    "passing declared equal": {"rank": 7},
    "passing declared range": {"rank": {"$lt": 50}},
    "passing declared between": {"rank": {"$gte": 100, "$lt": 150}},
    "passing declared values": {"tags": {"$in": [3, 4]}},
    "passing declared and asked": {"rank": {"$lt": 50}, "kind": {"$exists": False}},
}


@dataclass
class Plan:
    """What EXPLAIN says of one statement."""

    tree: dict[str, Any]
    nodes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = list(_nodes(self.tree))

    @property
    def indexes(self) -> set[str]:
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    def scanned(self, table: str) -> bool:
        """Whether the table is read from one end to the other."""
        return any(node["Node Type"] == "Seq Scan" and node["Relation Name"] == table for node in self.nodes)

    def sorts(self) -> bool:
        return any("Sort" in node["Node Type"] for node in self.nodes)


def _nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield tree
    for inner in tree.get("Plans", ()):
        yield from _nodes(inner)


class Plans:
    """Plans by what was asked for. `under` names what runs inside it; its statements are told apart by their names."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Plan] = {}
        self.current = ""

    def __getitem__(self, key: tuple[str, str]) -> Plan:
        return self.found[key]

    def cursors(self) -> type[psycopg.AsyncCursor[Any]]:
        """Cursors that explain each statement before they run it."""
        plans = self

        class Explaining(psycopg.AsyncCursor[Any]):
            async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
                text = query if isinstance(query, str) else query.as_string(self.connection)
                if plans.current and text.startswith("/* ") and not text.startswith("/* vectors.set_scan"):
                    name = text[3:].split(" */", 1)[0]
                    explained = psycopg.AsyncCursor(self.connection)
                    await explained.execute(f"EXPLAIN (FORMAT JSON) {text}".encode(), params, prepare=False)
                    ((tree,),) = await explained.fetchall()
                    plans.found[plans.current, name] = Plan(tree[0]["Plan"])
                return await super().execute(query, params, **options)

        return Explaining


async def collect(url: str, plans: Plans) -> None:
    """Fill the tables and run everything hot once."""
    pool = await open_pool(url, size=2, statement_timeout_seconds=60, application_name="plans")
    async with pool:
        world = await build(pool, dimensions=DIMENSIONS)
        await fill(world)
        plain = Pool.connection
        cursors = plans.cursors()

        @asynccontextmanager
        async def explaining(self: Pool, timeout: float | None = None) -> AsyncIterator[Connection]:
            async with plain(self, timeout) as connection:
                connection.cursor_factory = cursors
                yield connection

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Pool, "connection", explaining)
            await run_everything(world, plans)
            await run_other_spaces(world, plans)


async def fill(world: World) -> None:
    """Documents with vectors, every third waiting again with new content, some deleted; two fields declared."""
    wanted = dataclasses.replace(world.collection.settings, indexed=("rank", "tags"))
    world.collection = await world.collections.update(world.collection, wanted)
    assert world.pool is not None
    await IndexedFields(world.pool).maintain(NOW)
    generator = np.random.default_rng(3)
    for start in range(0, ROWS, 1_000):
        batch = [
            doc(f"d{number:05d}", "some words " * 20, year=2000 + number % 25, rank=number, tags=[number, -number])
            for number in range(start, start + 1_000)
        ]
        await world.put(*batch, now=later(start))
        claimed = await world.claim(limit=1_000, now=later(start))
        vectors = generator.normal(size=(len(claimed), 1, DIMENSIONS)).astype(np.float32)
        await world.store(*(encoded(one, rows) for one, rows in zip(claimed, vectors, strict=True)))
    await world.put(*(doc(f"d{number:05d}", "new words") for number in range(0, ROWS, 3)), now=later(ROWS))
    (poison, *_) = await world.claim(limit=1, now=later(ROWS))
    await world.queue.record_failure([poison.job], "poison", 1, NOW, NOW)
    await world.delete(*(f"d{number:05d}" for number in range(ROWS - 50, ROWS)), now=later(1))
    assert world.pool is not None
    async with world.pool.connection() as connection:
        await connection.execute(create_index(world.version))
        # As if clients had written one by one: an index over few transactions would be skipped through.
        await connection.execute("UPDATE changes SET xid = (substr(document_id, 2)::integer + 3)::text::xid8")
        await connection.execute("ANALYZE")


async def run_everything(world: World, plans: Plans) -> None:
    number, version = world.collection.id, world.version
    query = np.full(DIMENSIONS, 0.25, np.float32)
    where = parse({"year": {"$gte": 2010}})

    for kind in ("exact", "hnsw", "hnsw_iterative"):
        plan = DensePlan(kind=kind, ef_search=100, selectivity=0.5)
        plans.current = kind
        nearest = await world.vectors.nearest(VectorQuery(version, query, 50, plan))
        plans.current = f"{kind} where"
        await world.vectors.nearest(VectorQuery(version, query, 50, plan, where=where))
        plans.current = f"{kind} within"
        await world.vectors.nearest(VectorQuery(version, query, 50, plan, within=IDS))
    plans.current = "hnsw far"
    await world.vectors.nearest(VectorQuery(version, query, 1_000, DensePlan(kind="hnsw", ef_search=1_000)))
    plans.current = "hnsw_iterative far where"
    several = parse({"year": {"$gte": 2010, "$lte": 2020}, "kind": {"$exists": False}})
    far = DensePlan(kind="hnsw_iterative", ef_search=100, selectivity=0.4)
    await world.vectors.nearest(VectorQuery(version, query, 1_000, far, where=several))
    plans.current = "score"
    await world.vectors.score(version, query, IDS)
    plans.current = "score chunks"
    await world.vectors.score(version, query, IDS, 10)
    plans.current = "directions"
    await world.vectors.directions(version, IDS)
    plans.current = "get vectors"
    await world.vectors.get(version, [(id_, 0) for id_ in IDS])

    plans.current = "passages"
    candidates = [Candidate(document_id=id_, content_revision=1, score=0.0) for id_ in IDS]
    await world.documents.passages(number, nearest, None, 100)
    plans.current = "passages where"
    await world.documents.passages(number, candidates, where, 100)
    plans.current = "page"
    await world.documents.page(number, IDS[3], 50, None)
    plans.current = "passing_among"
    await world.documents.filter_ids(number, IDS, where)
    plans.current = "passing equal"
    await world.documents.match_filter(number, parse({"year": 2003, "kind": {"$exists": False}}), 1_000)
    plans.current = "passing among values"
    await world.documents.match_filter(number, parse({"year": {"$in": [2003, 2004]}}), 1_000)
    for name, raw in DECLARED.items():
        plans.current = name
        await world.documents.match_filter(number, parse(raw), 1_000)
    plans.current = "passing again"
    await world.documents.match_filter(number, parse(DECLARED["passing declared equal"]), 1_000)
    plans.current = "passing of many"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filter_matches, "COUNTED_DOCUMENTS", 1_000)
        await PostgresDocuments(world.documents._pool).match_filter(number, where, 10)  # type: ignore[attr-defined]
    plans.current = "get"
    await world.documents.get(number, IDS)
    plans.current = "put"
    await world.put(*(doc(id_, "again") for id_ in IDS), now=later(2 * ROWS))
    plans.current = "delete"
    await world.delete(*IDS[:5], now=later(2 * ROWS))

    plans.current = "claim of the backfill"
    second = await fill_second(world)
    assert len(await world.queue.claim([second], 100, "w", later(3 * ROWS), LEASE, "backfill")) == 100
    plans.current = "claim"
    claimed = await world.claim(limit=100, now=later(3 * ROWS))
    jobs = [one.job for one in claimed]
    assert len(jobs) == 100
    plans.current = "extend"
    await world.queue.extend(jobs, later(4 * ROWS))
    plans.current = "charge"
    await world.queue.record_failure(jobs[:5], "once", 3, later(3 * ROWS), later(4 * ROWS))
    plans.current = "release"
    await world.queue.release(jobs[:5], later(3 * ROWS) + timedelta(seconds=1))
    plans.current = "write"
    await world.store(*(encoded(one, np.ones((1, DIMENSIONS), np.float32)) for one in claimed[5:]))
    plans.current = "unfinished"
    await world.queue.unfinished(number, version.number, IDS)
    plans.current = "set aside"
    await world.queue.dead_lettered(number, version.number, IDS)
    plans.current = "failed"
    await world.queue.failed(number, None, 10)

    plans.current = "after"
    page = await world.changes.after(number, Position(xid=1), 100, NOW)
    assert len(page.changes) == 100
    plans.current = "position_of"
    await world.changes.position_of(number, IDS)
    plans.current = "purge"
    assert world.pool is not None
    await purge_tombstones(world.pool, NOW)

    plans.current = "among others"
    await fill_another(world)
    await world.queue.status(number, version.number, NOW)
    await PostgresBackfills(world.pool).progress(second, NOW)


async def fill_another(world: World) -> None:
    """Another collection, where more waits than in this one."""
    assert world.pool is not None
    other = await build(world.pool, dimensions=DIMENSIONS)
    for start in range(0, 2 * ROWS, 1_000):
        await other.put(*(doc(f"d{number:05d}") for number in range(start, start + 1_000)))
    async with world.pool.connection() as connection:
        await connection.execute("VACUUM ANALYZE jobs, documents")


async def fill_second(world: World) -> EmbedderVersion:
    """A second version, half enqueued."""
    assert world.pool is not None
    version = await world.add_version(2, VersionState.BACKFILLING)
    backfills = PostgresBackfills(world.pool)
    await backfills.advance(version, later(ROWS), ROWS // 3)
    async with world.pool.connection() as connection:
        await connection.execute("ANALYZE jobs")
    await backfills.advance(version, later(ROWS), ROWS // 2)
    return version


async def run_other_spaces(world: World, plans: Plans) -> None:
    """What is asked of an index of bits, of samples, and of versions whose vectors clients bring."""
    where, query = parse({"year": {"$gte": 2010}}), np.full(DIMENSIONS, 0.25, np.float32)
    binary = await world.add_version(BINARY, VersionState.FAILED, index=IndexSettings(storage="binary"))
    table = vector_table_of(binary).table
    assert world.pool is not None
    async with world.pool.dedicated() as connection:
        copied = (
            f"INSERT INTO {table} SELECT collection_id, document_id, chunk, {BINARY}, content_revision, starts, ends, "
            f"{sealed(world.collection.id, BINARY)}, embedding FROM {VECTORS}"
        )
        await connection.execute(copied.encode())
        await connection.execute(create_index(binary))
        await connection.execute(f"ANALYZE {table}".encode())
    for kind in ("hnsw", "hnsw_iterative"):
        plan = DensePlan(kind=kind, ef_search=100, selectivity=0.5)
        plans.current = f"binary {kind}"
        await world.vectors.nearest(VectorQuery(binary, query, 50, plan))
        plans.current = f"binary {kind} where"
        await world.vectors.nearest(VectorQuery(binary, query, 50, plan, where=where))
    plans.current = "sample"
    await world.vectors.sample(binary, 100)
    external = await add_external(world, EXTERNAL_NUMBER, VersionState.READY)
    batch = [dataclasses.replace(doc(id_, "again"), vector=(1.0,) * DIMENSIONS) for id_ in IDS]
    for again in ("bring", "bring again"):
        plans.current = again
        await world.documents.put(world.collection.id, batch, later(5 * ROWS), vectors_of=external)


@pytest.fixture(scope="module")
def plans(server: EmbeddedServer, template: str) -> Plans:
    create_database(server, "plans", template)
    found = Plans()
    run_apart(collect(url_of(server, "plans"), found))
    return found


VECTORS, HNSW, VECTORS_KEY = "vectors_1_1", "vectors_1_1_hnsw", "vectors_1_1_pkey"
BINARY, EXTERNAL_NUMBER = 8, 9


@pytest.mark.parametrize("asked", ["passing equal", "passing among values"])
def test_an_equality_is_found_by_the_index_over_metadata(plans: Plans, asked: str) -> None:
    plan = plans[asked, "filter_matches.by_metadata"]
    assert "documents_metadata" in plan.indexes
    assert not plan.scanned("documents")


@pytest.mark.parametrize("asked", ["passing declared equal", "passing declared range", "passing declared values"])
def test_declared_fields_name_documents_by_the_key_of_their_values_alone(plans: Plans, asked: str) -> None:
    plan = plans[asked, "filter_matches.by_values"]
    assert plan.indexes == {"indexed_values_pkey"}
    assert "Index Only Scan" in {node["Node Type"] for node in plan.nodes}


def test_of_a_range_between_two_bounds_only_documents_with_several_values_are_asked(plans: Plans) -> None:
    plan = plans["passing declared between", "filter_matches.by_both"]
    assert plan.indexes == {"indexed_values_pkey", "indexed_values_several", "documents_pkey"}
    assert not plan.scanned("indexed_values")
    assert not plan.scanned("documents")


def test_a_declared_field_leaves_few_documents_to_be_asked(plans: Plans) -> None:
    plan = plans["passing declared and asked", "filter_matches.by_values_and_metadata"]
    assert plan.indexes == {"indexed_values_pkey", "documents_pkey"}
    assert not plan.scanned("documents")


def test_a_filter_that_comes_again_is_asked_of_what_changed(plans: Plans) -> None:
    plan = plans["passing again", "filter_matches.changed"]
    assert "changes_order" in plan.indexes
    assert not plan.scanned("changes")
    assert not plan.scanned("documents")


def test_the_share_of_many_documents_is_told_by_a_sample(plans: Plans) -> None:
    assert "Sample Scan" in {node["Node Type"] for node in plans["passing of many", "filter_matches.sampled"].nodes}


@pytest.mark.parametrize("asked", ["put", "delete"])
def test_the_values_of_declared_fields_are_kept_by_key(plans: Plans, asked: str) -> None:
    plan = plans[asked, "indexed_fields.keep"]
    assert "indexed_values_document" in plan.indexes
    assert not plan.scanned("indexed_values")
    assert not plan.scanned("documents")


@pytest.mark.parametrize("asked", ["hnsw", "hnsw_iterative", "hnsw far"])
def test_an_indexed_search_walks_the_hnsw_index(plans: Plans, asked: str) -> None:
    plan = plans[asked, "vectors.nearest_indexed"]
    assert plan.indexes == {HNSW}
    assert not plan.scanned(VECTORS)


@pytest.mark.parametrize("kind", ["hnsw", "hnsw_iterative"])
def test_an_index_of_bits_is_walked_and_what_it_gives_is_scored(plans: Plans, kind: str) -> None:
    index = f"vectors_1_{BINARY}_hnsw"
    assert plans[f"binary {kind}", "vectors.nearest_rescored"].indexes == {index}
    filtered = plans[f"binary {kind} where", "vectors.nearest_rescored"]
    assert filtered.indexes == {index, "documents_pkey"}
    for plan in (filtered, plans[f"binary {kind}", "vectors.nearest_rescored"]):
        assert not plan.scanned(f"vectors_1_{BINARY}")


def test_a_sample_is_drawn_by_pages(plans: Plans) -> None:
    assert "Sample Scan" in {node["Node Type"] for node in plans["sample", "vectors.sample"].nodes}


@pytest.mark.parametrize("asked", ["bring", "bring again"])
def test_what_clients_bring_ends_its_jobs_by_key(plans: Plans, asked: str) -> None:
    plan = plans[asked, "client_vectors.end_jobs"]
    assert plan.indexes == {"jobs_pkey"}
    assert not plan.scanned("jobs")


@pytest.mark.parametrize("asked", ["hnsw where", "hnsw_iterative where", "hnsw_iterative far where"])
def test_a_filtered_indexed_search_looks_its_documents_up_on_the_way(plans: Plans, asked: str) -> None:
    plan = plans[asked, "vectors.nearest_indexed"]
    assert plan.indexes == {HNSW, "documents_pkey"}
    assert not plan.scanned("documents")


@pytest.mark.parametrize("asked", ["exact", "exact where", "exact within", "hnsw within", "hnsw_iterative within"])
def test_an_exact_search_never_uses_the_hnsw_index(plans: Plans, asked: str) -> None:
    assert HNSW not in plans[asked, "vectors.nearest_exact"].indexes


def test_an_exact_search_reads_the_table_once(plans: Plans) -> None:
    assert plans["exact", "vectors.nearest_exact"].scanned(VECTORS)


@pytest.mark.parametrize(
    ("asked", "statement"),
    [
        ("exact within", "vectors.nearest_exact"),
        ("hnsw within", "vectors.nearest_exact"),
        ("score", "vectors.score"),
        ("score chunks", "vectors.score"),
        ("get vectors", "vectors.get"),
        ("write", "vectors.remove"),
        ("delete", "vectors.remove"),
    ],
)
def test_named_documents_are_found_by_the_key_of_the_space(plans: Plans, asked: str, statement: str) -> None:
    plan = plans[asked, statement]
    assert plan.indexes == {VECTORS_KEY}
    assert not plan.scanned(VECTORS)


def test_examples_are_read_by_key(plans: Plans) -> None:
    plan = plans["directions", "vectors.directions"]
    assert plan.indexes == {VECTORS_KEY, "documents_pkey"}
    assert not plan.scanned(VECTORS)
    assert not plan.scanned("documents")


@pytest.mark.parametrize(
    ("asked", "statement"),
    [
        ("passages", "documents.passages"),
        ("passages where", "documents.passages"),
        ("page", "documents.page"),
        ("passing_among", "documents.filter_ids"),
        ("get", "documents.get"),
        ("delete", "documents.delete"),
        ("claim", "queue.documents"),
    ],
)
def test_named_documents_are_found_by_their_key(plans: Plans, asked: str, statement: str) -> None:
    plan = plans[asked, statement]
    assert "documents_pkey" in plan.indexes
    assert not plan.scanned("documents")


def test_a_page_comes_in_the_order_of_its_key(plans: Plans) -> None:
    assert not plans["page", "documents.page"].sorts()


@pytest.mark.parametrize("statement", ["queue.status", "backfills.progress"])
def test_how_one_version_stands_is_told_without_looking_at_others(plans: Plans, statement: str) -> None:
    plan = plans["among others", statement]
    assert "jobs_pkey" in plan.indexes
    assert not plan.scanned("jobs")
    assert not plan.scanned("documents")


@pytest.mark.parametrize("asked", ["claim", "claim of the backfill"])
def test_a_claim_walks_its_lane_of_the_index_of_what_can_be_claimed(plans: Plans, asked: str) -> None:
    plan = plans[asked, "queue.claim"]
    assert plan.indexes == {"jobs_claimable", "jobs_pkey"}
    assert not plan.scanned("jobs")
    (walk,) = (node for node in plan.nodes if node.get("Index Name") == "jobs_claimable")
    assert "priority >=" in walk["Index Cond"]


def test_a_portion_of_a_backfill_is_found_by_keys(plans: Plans) -> None:
    portion = plans["claim of the backfill", "backfills.portion"]
    assert portion.indexes == {"documents_pkey"}
    assert not portion.sorts()
    enqueue = plans["claim of the backfill", "backfills.enqueue"]
    assert "documents_pkey" in enqueue.indexes
    assert not enqueue.scanned("documents")


@pytest.mark.parametrize(
    ("asked", "statement"),
    [
        ("extend", "queue.extend"),
        ("charge", "queue.record_failure"),
        ("release", "queue.release"),
        ("write", "queue.finish"),
        ("delete", "queue.delete_jobs"),
        ("unfinished", "queue.unfinished"),
    ],
)
def test_named_jobs_are_found_by_their_key(plans: Plans, asked: str, statement: str) -> None:
    plan = plans[asked, statement]
    assert plan.indexes == {"jobs_pkey"}
    assert not plan.scanned("jobs")


def test_what_was_set_aside_has_an_index_of_its_own(plans: Plans) -> None:
    assert plans["failed", "queue.failed"].indexes == {"jobs_set_aside"}
    assert plans["set aside", "queue.dead_lettered"].indexes == {"jobs_set_aside"}


def test_the_feed_is_read_in_its_order(plans: Plans) -> None:
    plan = plans["after", "change_feed.after"]
    assert plan.indexes - {"collections_pkey"} == {"changes_order", "documents_pkey"}
    assert not plan.scanned("changes")
    assert not plan.scanned("documents")


def test_the_place_of_documents_in_the_feed_is_found_by_key(plans: Plans) -> None:
    assert plans["position_of", "change_feed.position_of"].indexes == {"changes_pkey"}


def test_a_purge_looks_at_tombstones_alone(plans: Plans) -> None:
    plan = plans["purge", "maintenance.purge"]
    assert "documents_deleted" in plan.indexes
    assert not plan.scanned("documents")
    assert not plan.scanned("changes")
