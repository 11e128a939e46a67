"""How PostgreSQL runs each hot query, on tables large enough for its planner to care.

The adapters run as they do in service; their statements are explained on the way, in the transaction and with the
settings that they run under.
"""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import psycopg
import pytest

from service.core.change_feed import Position
from service.core.collections import DeclaredField, IndexSettings, Storage
from service.core.filters import Filter, parse, typed
from service.core.ids import DocumentId
from service.core.ports.vectors import VectorQuery
from service.core.result_options import SortKey
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
from tests.second_version import add_external
from tests.storages import sealed
from tests.world import LEASE, NOW, World, build, doc, encoded, later

pytestmark = pytest.mark.database

T = TypeVar("T")

ROWS = 6_000
DIMENSIONS = 16
IDS = [DocumentId(f"d{number:05d}") for number in range(20)]
AT = DeclaredField(field="at", type="datetime")
MIDNIGHT = datetime(2024, 1, 1)
FILTERS = {
    "passing equal": {"year": 2003, "kind": {"$exists": False}},
    "passing among values": {"year": {"$in": [2003, 2004]}},
    "passing declared equal": {"rank": 7},
    "passing declared range": {"rank": {"$lt": 50}},
    "passing declared between": {"rank": {"$gte": 100, "$lt": 150}},
    "passing declared values": {"tags": {"$in": [3, 4]}},
    "passing declared instants": {"at": {"$gte": "2024-01-01T02:00+02:00", "$lt": "2024-01-01T00:30"}},
    "passing equal with dots": {"b.year": 2003, "kind": {"$exists": False}},
    "passing declared and asked": {"rank": {"$lt": 50}, "kind": {"$exists": False}},
}


class Plan:
    """What EXPLAIN says of one statement."""

    def __init__(self, tree: dict[str, Any]) -> None:
        self.nodes = list(_nodes(tree))

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
    """Plans by the step that ran (`during`) and the name of the statement."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Plan] = {}
        self.current = ""

    def __getitem__(self, key: tuple[str, str]) -> Plan:
        return self.found[key]

    async def during(self, step: str, work: Awaitable[T]) -> T:
        self.current = step
        return await work

    def cursors(self) -> type[psycopg.AsyncCursor[Any]]:
        """Cursors that explain each statement before they run it."""
        plans = self

        class Explaining(psycopg.AsyncCursor[Any]):
            async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
                text = query if isinstance(query, str) else query.as_string(self.connection)
                name = text[3:].split(" */", 1)[0] if text.startswith("/* ") else ""
                # The settings of a scan and the definition of a table have no plan.
                if plans.current and name and name != "vectors.set_scan" and not name.startswith("vector_tables."):
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


def pool_of(world: World) -> Pool:
    assert world.pool is not None
    return world.pool


async def fill(world: World) -> None:
    """Documents with vectors, every third waiting again with new content, some deleted; two fields declared."""
    wanted = dataclasses.replace(world.collection.settings, indexed=("rank", "tags", AT))
    world.collection = await world.collections.update(world.collection, wanted)
    await IndexedFields(pool_of(world)).maintain(NOW)
    generator = np.random.default_rng(3)
    for start in range(0, ROWS, 1_000):
        batch = [
            doc(
                f"d{number:05d}",
                "some words " * 20,
                year=2000 + number % 25,
                rank=number,
                tags=[number, -number],
                at=f"{MIDNIGHT + timedelta(minutes=number)}",
            )
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
    async with pool_of(world).connection() as connection:
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
        nearest = await plans.during(kind, world.vectors.nearest(VectorQuery(version, query, 50, plan)))
        await plans.during(f"{kind} where", world.vectors.nearest(VectorQuery(version, query, 50, plan, where=where)))
        await plans.during(f"{kind} within", world.vectors.nearest(VectorQuery(version, query, 50, plan, within=IDS)))
    far = VectorQuery(version, query, 1_000, DensePlan(kind="hnsw", ef_search=1_000))
    await plans.during("hnsw far", world.vectors.nearest(far))
    several = parse({"year": {"$gte": 2010, "$lte": 2020}, "kind": {"$exists": False}})
    iterative = DensePlan(kind="hnsw_iterative", ef_search=100, selectivity=0.4)
    far = dataclasses.replace(far, plan=iterative, where=several)
    await plans.during("hnsw_iterative far where", world.vectors.nearest(far))
    await plans.during("score", world.vectors.score(version, query, IDS))
    await plans.during("score chunks", world.vectors.score(version, query, IDS, 10))
    await plans.during("directions", world.vectors.directions(version, IDS))
    await plans.during("get vectors", world.vectors.get(version, [(id_, 0) for id_ in IDS]))

    candidates = [Candidate(document_id=id_, content_revision=1, score=0.0) for id_ in IDS]
    await plans.during("passages", world.documents.passages(number, nearest, None, 100))
    await plans.during("passages where", world.documents.passages(number, candidates, where, 100))
    await plans.during("texts", world.documents.texts(number, dict.fromkeys(IDS, 1), 10_000))
    await plans.during("page", world.documents.page(number, IDS[3], 50, None))
    await plans.during("passing_among", world.documents.filter_ids(number, IDS, where))
    for step, raw in (*FILTERS.items(), ("passing again", FILTERS["passing declared equal"])):
        await plans.during(step, world.documents.match_filter(number, typed_filter(raw), 1_000))
    plans.current = "passing of many"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filter_matches, "COUNTED_DOCUMENTS", 1_000)
        await PostgresDocuments(world.documents._pool).match_filter(number, where, 10)  # type: ignore[attr-defined]
    for step, within in (("list", None), ("sort", IDS)):
        order = [SortKey(field="rank", descending=within is not None), SortKey(field="at")]
        await plans.during(step, world.documents.in_order(number, order, None, 0, 10, within))
    await plans.during("metadata", world.documents.metadata(number, IDS))
    await plans.during("get", world.documents.get(number, IDS))
    await plans.during("put", world.put(*(doc(id_, "again") for id_ in IDS), now=later(2 * ROWS)))
    await plans.during("delete", world.delete(*IDS[:5], now=later(2 * ROWS)))

    second = await plans.during("claim of the backfill", fill_second(world))
    assert len(await world.queue.claim([second], 100, "w", later(3 * ROWS), LEASE, "backfill")) == 100
    claimed = await plans.during("claim", world.claim(limit=100, now=later(3 * ROWS)))
    jobs = [one.job for one in claimed]
    assert len(jobs) == 100
    await plans.during("extend", world.queue.extend(jobs, later(4 * ROWS)))
    await plans.during("charge", world.queue.record_failure(jobs[:5], "once", 3, later(3 * ROWS), later(4 * ROWS)))
    await plans.during("release", world.queue.release(jobs[:5], later(3 * ROWS) + timedelta(seconds=1)))
    work = [encoded(one, np.ones((1, DIMENSIONS), np.float32)) for one in claimed[5:]]
    await plans.during("write", world.store(*work))
    await plans.during("unfinished", world.queue.unfinished(number, version.number, IDS))
    await plans.during("set aside", world.queue.dead_lettered(number, version.number, IDS))
    await plans.during("failed", world.queue.failed(number, None, 10))

    page = await plans.during("after", world.changes.after(number, Position(xid=1), 100, NOW))
    assert len(page.changes) == 100
    await plans.during("position_of", world.changes.position_of(number, IDS))
    await plans.during("purge", purge_tombstones(pool_of(world), NOW))

    await plans.during("among others", fill_another(world))
    await world.queue.status(number, version.number, NOW)
    await PostgresBackfills(pool_of(world)).progress(second, NOW)


def typed_filter(raw: Any) -> Filter:
    return typed(parse(raw), {"at": "datetime"})


async def fill_another(world: World) -> None:
    """Another collection, where more waits than in this one."""
    other = await build(pool_of(world), dimensions=DIMENSIONS)
    for start in range(0, 2 * ROWS, 1_000):
        await other.put(*(doc(f"d{number:05d}") for number in range(start, start + 1_000)))
    await pool_of(world).execute("VACUUM ANALYZE jobs, documents")


async def fill_second(world: World) -> EmbedderVersion:
    """A second version, half enqueued."""
    version = await world.add_version(2, VersionState.BACKFILLING)
    backfills = PostgresBackfills(pool_of(world))
    await backfills.advance(version, later(ROWS), ROWS // 3)
    await pool_of(world).execute("ANALYZE jobs")
    await backfills.advance(version, later(ROWS), ROWS // 2)
    return version


async def run_other_spaces(world: World, plans: Plans) -> None:
    """What is asked of an index of bits, of samples, and of versions whose vectors clients bring."""
    where, query = parse({"year": {"$gte": 2010}}), np.full(DIMENSIONS, 0.25, np.float32)
    for storage, number in OF_BITS.items():
        rough = await world.add_version(number, VersionState.FAILED, index=IndexSettings(storage=storage))
        table = vector_table_of(rough).table
        async with pool_of(world).dedicated() as connection:
            copied = (
                f"INSERT INTO {table} SELECT collection_id, document_id, chunk, {number}, content_revision, starts, "
                f"ends, {sealed(world.collection.id, number)}, embedding FROM {VECTORS}"
            )
            await connection.execute(copied.encode())
            await connection.execute(create_index(rough))
            await connection.execute(f"ANALYZE {table}".encode())
        for kind in ("hnsw", "hnsw_iterative"):
            plan = DensePlan(kind=kind, ef_search=100, selectivity=0.5)
            for name, narrowed in (("", None), (" where", where)):
                asked = VectorQuery(rough, query, 50, plan, where=narrowed)
                await plans.during(f"{storage} {kind}{name}", world.vectors.nearest(asked))
        await plans.during("sample", world.vectors.sample(rough, 100))
    external = await add_external(world, EXTERNAL_NUMBER, VersionState.READY)
    batch = [dataclasses.replace(doc(id_, "again"), vector=(1.0,) * DIMENSIONS) for id_ in IDS]
    for again in ("bring", "bring again"):
        await plans.during(again, world.documents.put(world.collection.id, batch, later(5 * ROWS), vectors_of=external))


@pytest.fixture(scope="module")
def plans(server: EmbeddedServer, template: str) -> Plans:
    create_database(server, "plans", template)
    found = Plans()
    run_apart(collect(url_of(server, "plans"), found))
    return found


VECTORS, HNSW, VECTORS_KEY = "vectors_1_1", "vectors_1_1_hnsw", "vectors_1_1_pkey"
OF_BITS: dict[Storage, int] = {"binary": 7, "scalar": 8}
EXTERNAL_NUMBER = 9


EXACTLY = [
    # Documents by the values of declared fields, and nothing else; or by values, and then by their own key.
    ("passing declared equal", "filter_matches.by_values", {"indexed_values_pkey"}, ()),
    ("passing declared range", "filter_matches.by_values", {"indexed_values_pkey"}, ()),
    ("passing declared values", "filter_matches.by_values", {"indexed_values_pkey"}, ()),
    (
        "passing declared between",
        "filter_matches.by_both",
        {"indexed_values_pkey", "indexed_values_several", "documents_pkey"},
        ("indexed_values", "documents"),
    ),
    (
        "passing declared and asked",
        "filter_matches.by_values_and_metadata",
        {"indexed_values_pkey", "documents_pkey"},
        ("documents",),
    ),
    # Along the HNSW index, and filtered documents by their key on the way.
    *((step, "vectors.nearest_indexed", {HNSW}, (VECTORS,)) for step in ("hnsw", "hnsw_iterative", "hnsw far")),
    *(
        (step, "vectors.nearest_indexed", {HNSW, "documents_pkey"}, ("documents",))
        for step in ("hnsw where", "hnsw_iterative where", "hnsw_iterative far where")
    ),
    # Along an index of bits, whose rows are then scored.
    *(
        (
            f"{storage} {kind}{narrowed}",
            "vectors.nearest_rescored",
            {f"vectors_1_{number}_hnsw", *keys},
            (f"vectors_1_{number}",),
        )
        for storage, number in OF_BITS.items()
        for kind in ("hnsw", "hnsw_iterative")
        for narrowed, keys in (("", ()), (" where", ("documents_pkey",)))
    ),
    # Chunks of named documents by the key of the space.
    ("exact within", "vectors.nearest_exact", {VECTORS_KEY}, (VECTORS,)),
    ("hnsw within", "vectors.nearest_exact", {VECTORS_KEY}, (VECTORS,)),
    ("score", "vectors.score", {VECTORS_KEY}, (VECTORS,)),
    ("score chunks", "vectors.score", {VECTORS_KEY}, (VECTORS,)),
    ("get vectors", "vectors.get", {VECTORS_KEY}, (VECTORS,)),
    ("write", "vectors.remove", {VECTORS_KEY}, (VECTORS,)),
    ("delete", "vectors.remove", {VECTORS_KEY}, (VECTORS,)),
    ("directions", "vectors.directions", {VECTORS_KEY, "documents_pkey"}, (VECTORS, "documents")),
    # Jobs by their key, of a lane by what can be claimed, of failures by an index of their own.
    ("bring", "client_vectors.end_jobs", {"jobs_pkey"}, ("jobs",)),
    ("bring again", "client_vectors.end_jobs", {"jobs_pkey"}, ("jobs",)),
    ("extend", "queue.extend", {"jobs_pkey"}, ("jobs",)),
    ("charge", "queue.record_failure", {"jobs_pkey"}, ("jobs",)),
    ("release", "queue.release", {"jobs_pkey"}, ("jobs",)),
    ("write", "queue.finish", {"jobs_pkey"}, ("jobs",)),
    ("delete", "queue.delete_jobs", {"jobs_pkey"}, ("jobs",)),
    ("unfinished", "queue.unfinished", {"jobs_pkey"}, ("jobs",)),
    ("claim", "queue.claim", {"jobs_claimable_by_collection", "jobs_pkey"}, ("jobs",)),
    ("claim of the backfill", "queue.claim", {"jobs_claimable_by_collection", "jobs_pkey"}, ("jobs",)),
    ("failed", "queue.failed", {"jobs_set_aside"}, ()),
    ("set aside", "queue.dead_lettered", {"jobs_set_aside"}, ()),
    # A backfill and the feed in the order of their keys.
    ("claim of the backfill", "backfills.portion", {"documents_pkey"}, ()),
    ("position_of", "change_feed.position_of", {"changes_pkey"}, ()),
]
"""Step, statement, the indexes that it uses and no others, and tables that it must not read from end to end."""

AMONG = [
    ("passing equal", "filter_matches.by_metadata", "documents_metadata", ("documents",)),
    ("passing equal with dots", "filter_matches.by_metadata", "documents_metadata", ("documents",)),
    ("passing declared instants", "filter_matches.by_both", "indexed_values_pkey", ("indexed_values", "documents")),
    ("put", "indexed_fields.of_other_types", "documents_pkey", ("documents",)),
    ("passing among values", "filter_matches.by_metadata", "documents_metadata", ("documents",)),
    ("passing again", "filter_matches.changed", "changes_order", ("changes", "documents")),
    ("put", "indexed_fields.keep", "indexed_values_document", ("indexed_values", "documents")),
    ("delete", "indexed_fields.keep", "indexed_values_document", ("indexed_values", "documents")),
    ("passages", "documents.passages", "documents_pkey", ("documents",)),
    ("passages where", "documents.passages", "documents_pkey", ("documents",)),
    ("texts", "documents.texts", "documents_pkey", ("documents",)),
    ("page", "documents.page", "documents_pkey", ("documents",)),
    ("passing_among", "documents.filter_ids", "documents_pkey", ("documents",)),
    ("get", "documents.get", "documents_pkey", ("documents",)),
    ("delete", "documents.delete", "documents_pkey", ("documents",)),
    ("claim", "queue.documents", "documents_pkey", ("documents",)),
    ("metadata", "documents.metadata", "documents_pkey", ("documents",)),
    # A page of a list walks the values in their order; sorted hits are looked up by their ids.
    ("list", "sorting.one_after_the_other", "indexed_values_pkey", ("indexed_values",)),
    ("sort", "sorting.one_after_the_other", "documents_pkey", ("indexed_values", "documents")),
    # The state of one version without reading the jobs of others.
    ("among others", "queue.status", "jobs_pkey", ("jobs", "documents")),
    ("among others", "backfills.progress", "jobs_pkey", ("jobs", "documents")),
    ("claim of the backfill", "backfills.enqueue", "documents_pkey", ("documents",)),
    ("purge", "maintenance.purge", "documents_deleted", ("documents",)),
]
"""Step, statement, one of the indexes that it uses, and tables that it must not read from end to end."""


@pytest.mark.parametrize(("step", "statement", "indexes", "tables"), EXACTLY)
def test_these_indexes_and_no_others(
    plans: Plans, step: str, statement: str, indexes: set[str], tables: tuple[str, ...]
) -> None:
    plan = plans[step, statement]
    assert plan.indexes == indexes
    assert not any(plan.scanned(table) for table in tables)


@pytest.mark.parametrize(("step", "statement", "index", "tables"), AMONG)
def test_this_index_among_others(plans: Plans, step: str, statement: str, index: str, tables: tuple[str, ...]) -> None:
    plan = plans[step, statement]
    assert index in plan.indexes
    assert not any(plan.scanned(table) for table in tables)


@pytest.mark.parametrize(
    ("step", "statement", "node"),
    [
        ("passing declared equal", "filter_matches.by_values", "Index Only Scan"),
        ("passing declared range", "filter_matches.by_values", "Index Only Scan"),
        ("passing declared values", "filter_matches.by_values", "Index Only Scan"),
        ("passing of many", "filter_matches.sampled", "Sample Scan"),
        ("sample", "vectors.sample", "Sample Scan"),
    ],
)
def test_kinds_of_scans(plans: Plans, step: str, statement: str, node: str) -> None:
    assert node in {one["Node Type"] for one in plans[step, statement].nodes}


@pytest.mark.parametrize("step", ["exact", "exact where", "exact within", "hnsw within", "hnsw_iterative within"])
def test_an_exact_search_never_uses_the_hnsw_index(plans: Plans, step: str) -> None:
    assert HNSW not in plans[step, "vectors.nearest_exact"].indexes


def test_an_exact_search_reads_the_table_once(plans: Plans) -> None:
    assert plans["exact", "vectors.nearest_exact"].scanned(VECTORS)


@pytest.mark.parametrize(
    ("step", "statement"), [("page", "documents.page"), ("claim of the backfill", "backfills.portion")]
)
def test_what_comes_in_the_order_of_its_key_is_not_sorted(plans: Plans, step: str, statement: str) -> None:
    assert not plans[step, statement].sorts()


@pytest.mark.parametrize("step", ["claim", "claim of the backfill"])
def test_a_claim_walks_its_lane_of_the_index_of_what_can_be_claimed(plans: Plans, step: str) -> None:
    (walk,) = (
        node for node in plans[step, "queue.claim"].nodes if node.get("Index Name", "").startswith("jobs_claimable")
    )
    assert "priority >=" in walk["Index Cond"]


def test_the_feed_is_read_in_its_order(plans: Plans) -> None:
    plan = plans["after", "change_feed.after"]
    assert plan.indexes - {"collections_pkey"} == {"changes_order", "documents_pkey"}
    assert not plan.scanned("changes")
    assert not plan.scanned("documents")
