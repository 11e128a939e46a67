"""The contract of the port `Collections`, for the fake and for PostgreSQL; and what only a database can show."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest

from service.core.change_feed import Position
from service.core.collections import (
    ChunkingSettings,
    Collection,
    CollectionCounts,
    CollectionSettings,
    EmbedderSpec,
    FusionSettings,
    Storage,
)
from service.core.errors import CollectionNotFound, Conflict, NotFound, TimedOut, VersionNotFound
from service.core.filters import And
from service.core.ids import CollectionId, CollectionName, DocumentId, VersionNumber
from service.core.ports.collections import Collections
from service.core.versions import AuditEntry, EmbedderIdentity
from service.store.postgres.collections import PostgresCollections
from service.store.postgres.connection.pool import Pool
from service.store.postgres.filters.indexed_fields import IndexedFields
from service.store.postgres.vectors import vector_tables
from service.store.postgres.versions.versions import PostgresVersions
from tests.storages import STORAGES, sealed, stored_as
from tests.world import Adapters, build, doc, later

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
IDENTITY = EmbedderIdentity(parts={"weights": "sha256:ab", "pooling": "mean"}, dimensions=4, max_tokens=256)
RENAMED = AuditEntry(at=NOW, actor="tests", action="renamed")
CANARY = {"a text": (0.5, 0.5, 0.5, 0.5), "another": (1.0, 0.0, 0.0, 0.0)}
SETTINGS = CollectionSettings(
    embedder=EmbedderSpec(model="some/model", revision="r1", query_prompt="query: ", dimensions=4),
    language="de",
    recall_target=0.9,
    chunking=ChunkingSettings(max_tokens=100, overlap_tokens=8),
    fusion=FusionSettings(method="rrf", k=10),
)


@pytest.fixture
def collections(store: Adapters) -> Collections:
    return store.collections


async def create(collections: Collections, name: str, settings: CollectionSettings = SETTINGS) -> Collection:
    return await collections.create(CollectionName(name), settings, IDENTITY, CANARY, NOW)


async def test_a_created_collection_is_read_back_as_it_was_given(collections: Collections) -> None:
    created = await create(collections, "papers")
    assert (created.name, created.settings, created.active_version) == ("papers", SETTINGS, 1)
    assert created.created_at == NOW
    assert await collections.by_name(CollectionName("papers")) == created
    assert await collections.get(created.id) == created


async def test_of_many_that_create_the_same_name_at_once_one_wins(collections: Collections) -> None:
    outcomes = await asyncio.gather(*(create(collections, "papers") for _ in range(6)), return_exceptions=True)
    won = [outcome for outcome in outcomes if isinstance(outcome, Collection)]
    assert len(won) == 1
    assert all(isinstance(outcome, Conflict) for outcome in outcomes if outcome not in won)
    assert await collections.all() == tuple(won)


async def test_all_are_listed_in_the_order_of_names(collections: Collections) -> None:
    assert await collections.all() == ()
    for name in ("b", "a-1", "a_1", "a"):
        await create(collections, name)
    assert [collection.name for collection in await collections.all()] == ["a", "a-1", "a_1", "b"]


async def test_an_unknown_name_is_not_found(collections: Collections) -> None:
    with pytest.raises(CollectionNotFound):
        await collections.get(CollectionId(404))
    with pytest.raises(CollectionNotFound):
        await collections.by_name(CollectionName("nothing"))


async def test_settings_are_replaced(collections: Collections) -> None:
    created = await create(collections, "papers")
    changed = CollectionSettings(embedder=SETTINGS.embedder, recall_target=0.99)
    updated = await collections.update(created, changed)
    assert updated.settings == changed
    assert await collections.by_name(created.name) == updated


async def test_what_is_gone_cannot_be_updated(collections: Collections) -> None:
    created = await create(collections, "papers")
    await collections.delete(created.id)
    with pytest.raises(CollectionNotFound):
        await collections.update(created, SETTINGS)
    await create(collections, "papers")
    with pytest.raises(CollectionNotFound):
        await collections.update(created, SETTINGS)


async def test_an_update_of_what_somebody_else_changed_is_refused(collections: Collections) -> None:
    seen = await create(collections, "papers")
    theirs = await collections.update(seen, replace(SETTINGS, language="fr"))
    with pytest.raises(Conflict):
        await collections.update(seen, replace(SETTINGS, recall_target=0.5))
    assert await collections.by_name(seen.name) == theirs


async def test_a_deleted_collection_is_gone_and_its_name_is_free(collections: Collections) -> None:
    old = await create(collections, "papers")
    kept = await create(collections, "kept")
    await collections.delete(old.id)
    await collections.delete(old.id)
    assert await collections.all() == (kept,)
    with pytest.raises(VersionNotFound):
        await collections.counts(old)
    again = await create(collections, "papers")
    assert again.id != old.id


async def test_an_empty_collection_counts_nothing(collections: Collections) -> None:
    created = await create(collections, "papers")
    assert await collections.counts(created) == CollectionCounts(documents=0, chunks=0, pending=0, failed=0)


FILL = """
    INSERT INTO documents (collection_id, document_id, title, text, metadata, content_hash, revision, content_revision,
                           created_at, updated_at, deleted_at)
    SELECT %(id)s, 'd' || n, '', 'text', '{}', '\\x00', 1, 1, %(now)s, %(now)s, CASE WHEN n > 7 THEN %(now)s END
    FROM generate_series(1, 10) AS n;
    INSERT INTO changes (collection_id, document_id, xid, changed_at)
    SELECT %(id)s, 'd' || n, pg_current_xact_id(), %(now)s FROM generate_series(1, 10) AS n;
    INSERT INTO jobs (collection_id, document_id, embedder_version, content_revision, priority, enqueued_at,
                      available_at, set_aside_at)
    SELECT %(id)s, 'd' || n, version, 1, 0, %(now)s, %(now)s, CASE WHEN n > 3 AND version = 1 THEN %(now)s END
    FROM generate_series(1, 5) AS n, generate_series(1, 2) AS version;
    INSERT INTO {table} (collection_id, document_id, chunk, embedder_version, content_revision, starts, ends, seal,
                         embedding)
    SELECT %(id)s, 'd' || n, chunk, 1, 1, 0, 4, {sealed}, embedding
    FROM generate_series(1, 4) AS n, generate_series(0, 2) AS chunk, (SELECT '[1,2,3,4]'::halfvec AS embedding)
"""


async def fill(pool: Pool, collection: Collection) -> None:
    """7 documents and 3 tombstones, 10 changes, 12 chunks; 3 pending and 2 set aside, in another version 5 pending."""
    table = vector_tables.vector_table(collection.id, collection.active_version).table
    async with pool.transaction() as connection:
        for statement in FILL.replace("{table}", table).replace("{sealed}", sealed(collection.id)).split(";"):
            await connection.execute(statement, {"id": collection.id, "now": NOW})


async def value(pool: Pool, query: str, *arguments: object) -> Any:
    row = await pool.fetch_one(query, arguments)
    return None if row is None else row[0]


async def until(pool: Pool, query: str) -> None:
    """Until the query gives something that is true."""
    async with asyncio.timeout(20):
        while not await value(pool, query):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def open_snapshot(pool: Pool) -> AsyncIterator[None]:
    """A reader whose end a concurrent index build waits for."""
    async with pool.transaction() as reader:
        await reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await reader.execute("SELECT count(*) FROM documents")
        yield


@pytest.mark.database
async def test_counts_are_of_documents_and_not_of_tombstones_or_of_other_versions(pool: Pool) -> None:
    collections = PostgresCollections(pool)
    collection, other = await create(collections, "papers"), await create(collections, "other")
    await fill(pool, collection)
    assert await collections.counts(collection) == CollectionCounts(documents=7, chunks=12, pending=3, failed=2)
    assert await collections.counts(other) == CollectionCounts(documents=0, chunks=0, pending=0, failed=0)


@pytest.mark.database
async def test_settings_that_an_older_program_wrote_can_be_changed(pool: Pool) -> None:
    collections = PostgresCollections(pool)
    created = await create(collections, "papers")
    await pool.execute("UPDATE collections SET settings = settings #- '{embedder,identity}'")
    changed = await collections.update(created, replace(SETTINGS, recall_target=0.5))
    assert changed.settings == replace(SETTINGS, recall_target=0.5)


@pytest.mark.database
async def test_nothing_of_a_deleted_collection_remains_and_all_of_the_others(pool: Pool) -> None:
    collections = PostgresCollections(pool)
    collection, other = await create(collections, "papers"), await create(collections, "other")
    await fill(pool, collection)
    await fill(pool, other)
    before = await collections.counts(other)
    await collections.delete(collection.id)
    for table in ("documents", "changes", "jobs", "embedder_versions", "audit"):
        assert await value(pool, f"SELECT count(*) FROM {table} WHERE collection_id = %s", collection.id) == 0
    table = vector_tables.vector_table(collection.id, VersionNumber(1)).table
    assert await value(pool, "SELECT to_regclass(%s)", table) is None
    assert await collections.counts(other) == before


@pytest.mark.database
async def test_a_creation_that_breaks_off_leaves_nothing(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    collections = PostgresCollections(pool)
    monkeypatch.setattr(vector_tables, "create_table", Mock(side_effect=RuntimeError("broken off")))
    with pytest.raises(RuntimeError):
        await create(collections, "papers")
    assert await collections.all() == ()
    assert await value(pool, "SELECT count(*) FROM embedder_versions") == 0


@pytest.mark.database
async def test_a_deletion_waits_for_a_writer_that_holds_the_collection(pool: Pool) -> None:
    collections = PostgresCollections(pool)
    collection = await create(collections, "papers")
    async with pool.transaction() as writer:
        await writer.execute("SELECT FROM collections WHERE id = %s FOR KEY SHARE", (collection.id,))
        deletion = asyncio.create_task(collections.delete(collection.id))
        await until(pool, "SELECT count(*) FROM pg_locks WHERE NOT granted")
        await writer.execute(FILL.split(";")[0], {"id": collection.id, "now": NOW})
    await deletion
    assert await value(pool, "SELECT count(*) FROM documents") == 0


@pytest.mark.database
async def test_a_deletion_ends_a_running_index_build(pool: Pool) -> None:
    collections, versions = PostgresCollections(pool), PostgresVersions(pool)
    collection = await create(collections, "papers")
    await fill(pool, collection)
    (version,) = await versions.of(collection.id)
    table = vector_tables.vector_table_of(version).table
    async with open_snapshot(pool):
        build = asyncio.create_task(versions.build_index(version))
        await until(pool, "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%%'")
        await collections.delete(collection.id)
    with pytest.raises(TimedOut):
        await build
    assert await value(pool, "SELECT to_regclass(%s)", table) is None


async def test_names_and_aliases_are_taken_once(collections: Collections) -> None:
    papers, other = await create(collections, "papers"), await create(collections, "other")
    live, name = CollectionName("live"), CollectionName("papers-2")
    await collections.set_aliases({live: papers.id}, NOW, "tests")
    assert await collections.by_name(live) == papers
    for taken in (live, other.name):
        with pytest.raises(Conflict):
            await create(collections, taken)
        with pytest.raises(Conflict):
            await collections.rename(papers, taken, RENAMED)
    with pytest.raises(Conflict):
        await collections.set_aliases({CollectionName("new"): papers.id, other.name: papers.id}, NOW, "tests")
    with pytest.raises(NotFound):
        await collections.set_aliases({CollectionName("new"): papers.id, name: None}, NOW, "tests")
    renamed = await collections.rename(papers, name, RENAMED)
    assert renamed == replace(papers, name=name)
    assert await collections.aliases() == {live: name}
    assert await collections.by_name(live) == await collections.by_name(name) == renamed
    with pytest.raises(CollectionNotFound):
        await collections.by_name(papers.name)
    await collections.set_aliases({live: other.id, papers.name: papers.id}, NOW, "tests")
    assert await collections.aliases() == {live: other.name, papers.name: name}
    await collections.delete(papers.id)
    assert await collections.aliases() == {live: other.name}
    with pytest.raises(CollectionNotFound):
        await collections.rename(papers, CollectionName("gone"), RENAMED)


@pytest.mark.database
@pytest.mark.parametrize("storage", STORAGES)
async def test_a_copy_has_the_documents_and_vectors_of_one_moment(pool: Pool, storage: Storage) -> None:
    world = await stored_as(await build(pool), storage)
    settings = replace(world.collection.settings, indexed=("n",), candidates=7)
    world.collection = await world.collections.update(world.collection, settings)
    await world.put(doc("a", "first second", n=1), doc("b", "other"), doc("c", "is replaced"), doc("d", "goes"))
    await world.drain()
    await world.put(doc("c", "not encoded yet", n=3))
    await world.delete("d")
    source = await world.vectors.chunks(world.version, [DocumentId("a"), DocumentId("b")])
    copied = await world.collections.copy(world.collection, world.version, CollectionName("copy"), later(1), "tests")
    (version,) = await world.versions.of(copied.id)
    assert (copied.settings, version.fingerprint) == (settings, world.version.fingerprint)
    assert version.index == world.version.index
    documents = await world.documents.page(copied.id, None, 10, None)
    assert [(one.id, one.text, dict(one.metadata), one.revision) for one in documents] == [
        ("a", "first second", {"n": 1}, 1),
        ("b", "other", {}, 1),
        ("c", "not encoded yet", {"n": 3}, 1),
    ]
    chunks = await world.vectors.chunks(version, [one.id for one in documents])
    assert [(place._replace(content_revision=1), list(vector)) for place, vector in source] == [
        (place, list(vector)) for place, vector in chunks
    ]
    claimed = await world.queue.claim([version], 10, "w", later(2), timedelta(seconds=60))
    assert [one.job.document_id for one in claimed] == ["c"]
    assert (await world.changes.after(copied.id, Position(), 10, later(2))).changes != ()
    await IndexedFields(pool).maintain(later(2))
    assert [field.state for field in await world.collections.fields(copied.id)] == ["ready"]
    with pytest.raises(Conflict):
        await world.collections.copy(world.collection, world.version, copied.name, later(3), "tests")
    await world.collections.delete(world.collection.id)
    with pytest.raises(CollectionNotFound):
        await world.collections.copy(world.collection, world.version, CollectionName("late"), later(3), "tests")
    assert await world.documents.count(copied.id, And(())) == 3
