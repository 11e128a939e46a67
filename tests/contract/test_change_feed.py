"""The contract of the port `ChangeFeed`, for the fake and for PostgreSQL; late commits, purges and restores."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from service.core.change_feed import NOTHING_SEEN, WRITTEN, Change, IndexMark, Position, WrittenRevision
from service.core.documents import Document
from service.core.errors import CollectionNotFound, NotFound
from service.core.ids import CollectionId, DocumentId
from service.store.postgres import change_feed as feed_of_store
from service.store.postgres.connection.pool import Pool
from service.store.postgres.maintenance import purge_tombstones, repair_after_restore
from tests.world import NOW, World, doc, encoded, later

START = Position()


async def follow(world: World, position: Position = START, limit: int = 100) -> list[Change]:
    """Everything after a position, page by page."""
    followed: list[Change] = []
    while True:
        page = await world.changes.after(world.collection.id, position, limit, NOW)
        assert not page.rebuild
        assert len(page.changes) <= limit
        if not page.changes:
            return followed
        followed += page.changes
        position = page.changes[-1].position


def names(changes: list[Change]) -> list[str]:
    return [change.document_id for change in changes]


async def test_each_document_once_at_its_latest_change(world: World) -> None:
    await world.put(doc("b"), doc("a"))
    await world.put(doc("c"))
    await world.put(doc("a", "newer"))
    changes = await follow(world)
    assert names(changes) == ["b", "c", "a"]
    assert changes[-1].document == await world.get("a")
    assert [change.position for change in changes] == sorted(change.position for change in changes)


async def test_pages_of_any_size_give_the_same(world: World) -> None:
    for turn in range(4):
        await world.put(*(doc(f"{letter}{turn}") for letter in "cab"))
    whole = await follow(world)
    assert len(whole) == 12
    for limit in (1, 2, 5, 12):
        assert await follow(world, limit=limit) == whole


@pytest.mark.parametrize("horizon_held", [False, True])
async def test_a_page_of_long_documents_is_shorter(
    postgres: World, monkeypatch: pytest.MonkeyPatch, horizon_held: bool
) -> None:
    """Not more bytes than are allowed, yet at least one document; nothing is skipped."""
    monkeypatch.setattr(feed_of_store, "PAGE_BYTES", 10_000)
    assert postgres.pool is not None
    feed, collection_id = postgres.changes, postgres.collection.id
    sizes = [4_000, 4_000, 4_000, 30_000, 1, 1, 20_000, 9_000]
    async with postgres.pool.transaction() as connection:
        if horizon_held:
            await connection.execute("SELECT pg_current_xact_id()")
        for number, size in enumerate(sizes):
            await postgres.put(doc(f"d{number}", "x" * size))
        await postgres.delete("d5")
        position, pages = Position(), list[list[str]]()
        while True:
            if horizon_held:
                changes, _, cut = await feed.ahead(collection_id, NOTHING_SEEN, position, 100)
            else:
                page = await feed.after(collection_id, position, 100, NOW)
                changes, cut = page.changes, page.cut
            pages.append([one.document_id for one in changes])
            position = changes[-1].position
            if not cut:
                break
    assert pages == [["d0", "d1"], ["d2"], ["d3"], ["d4"], ["d6"], ["d7", "d5"]]


async def test_only_what_is_new_follows_a_position(world: World) -> None:
    await world.put(doc("a"), doc("b"))
    position = (await follow(world))[-1].position
    assert await follow(world, position) == []
    await world.put(doc("a"), doc("c"))
    assert names(await follow(world, position)) == ["c"]


async def test_metadata_alone_is_a_change_too(world: World) -> None:
    await world.put(doc("a", x=1))
    position = (await follow(world))[-1].position
    await world.put(doc("a", x=2))
    (change,) = await follow(world, position)
    assert change.document is not None
    assert change.document.metadata == {"x": 2}


async def test_deletions_follow_as_changes_without_a_document(world: World) -> None:
    await world.put(doc("a"), doc("b"))
    position = (await follow(world))[-1].position
    await world.delete("a")
    (change,) = await follow(world, position)
    assert (change.document_id, change.document) == ("a", None)
    await world.put(doc("a", "back"))
    (back,) = await follow(world, change.position)
    assert back.document is not None
    assert back.document.text == "back"


async def test_storing_vectors_is_no_change(world: World) -> None:
    await world.put(doc("a"))
    position = (await follow(world))[-1].position
    await world.drain()
    assert await follow(world, position) == []


async def test_lag_is_the_age_of_the_oldest_unfollowed_change(world: World) -> None:
    async def lag(position: Position) -> float:
        return (await world.changes.after(world.collection.id, position, 1, later(60))).lag_seconds

    assert await lag(START) == 0.0
    await world.put(doc("a"), now=later(10))
    await world.put(doc("b"), now=later(40))
    changes = await follow(world)
    assert [await lag(position) for position in (START, *(one.position for one in changes))] == [50.0, 20.0, 0.0]


async def test_position_of_the_latest_change_of_some_documents(world: World) -> None:
    for name in "abc":
        await world.put(doc(name))
    by_name = {change.document_id: change.position for change in await follow(world)}
    asked = [DocumentId(name) for name in ("b", "a", "missing")]
    assert await world.changes.position_of(world.collection.id, asked) == by_name[DocumentId("b")]
    assert await world.changes.position_of(world.collection.id, []) == START
    assert await world.changes.position_of(world.collection.id, [DocumentId("missing")]) == START


async def test_each_write_has_a_newer_change(world: World) -> None:
    seen = [dict(await world.changes.newest())]
    for change in (world.put(doc("a")), world.put(doc("a", "other")), world.put(doc("b")), world.delete("b")):
        await change
        seen.append(dict(await world.changes.newest()))
    assert seen[0].get(world.collection.id, 0) < seen[1][world.collection.id]
    assert all(before[world.collection.id] < after[world.collection.id] for before, after in pairwise(seen[1:]))


async def test_a_position_from_the_future_asks_for_a_rebuild(world: World) -> None:
    """The server was restored from a backup: what the follower knows may never have happened."""
    await world.put(doc("a"))
    page = await world.changes.after(world.collection.id, Position(xid=2**40, document_id="z"), 10, NOW)
    assert (page.rebuild, page.changes) == (True, ())


async def test_collections_have_feeds_of_their_own_and_a_deleted_one_has_none(world: World) -> None:
    await world.put(doc("a"))
    with pytest.raises(CollectionNotFound):
        await world.changes.after(CollectionId(world.collection.id + 1), START, 10, NOW)
    await world.collections.delete(world.collection.id)
    with pytest.raises(CollectionNotFound):
        await world.changes.after(world.collection.id, START, 10, NOW)


@pytest.mark.database
async def test_a_late_commit_is_never_skipped(postgres: World) -> None:
    """The older transaction commits last. Whoever followed by commit order of ids would pass it by."""
    pool = postgres.pool
    assert pool is not None
    await postgres.put(doc("early"))
    position = (await follow(postgres))[-1].position
    async with pool.transaction() as open_transaction:
        await feed_of_store.record(open_transaction, postgres.collection.id, [DocumentId("late")], NOW)
        await postgres.put(doc("quick"), now=later(5))
        page = await postgres.changes.after(postgres.collection.id, position, 10, later(20))
        assert (page.changes, page.lag_seconds) == ((), 15.0)  # committed, and not to be followed yet
    assert names(await follow(postgres, position)) == ["late", "quick"]


@pytest.mark.database
async def test_a_follower_sees_everything_while_many_write(postgres: World) -> None:
    """Transactions of all lengths beside a follower: at the end it knows each document at its last revision."""

    async def write(writer: int) -> None:
        for turn in range(15):
            await postgres.put(*(doc(f"d{number}", f"{writer} {turn}") for number in range(writer % 4, 20, 1 + writer)))
            if turn % 5 == 4:
                await postgres.delete(f"d{turn}")

    known: dict[str, int | None] = {}
    position = START

    async def look() -> int:
        nonlocal position
        page = await postgres.changes.after(postgres.collection.id, position, 3, NOW)
        for change in page.changes:
            assert change.position > position
            position = change.position
            known[change.document_id] = change.document.revision if change.document else None
        return len(page.changes)

    writers = asyncio.gather(*map(write, range(5)))
    while not writers.done():
        await look()
    await writers
    while await look():
        pass
    alive = await postgres.documents.page(postgres.collection.id, None, 100, None)
    assert {name: revision for name, revision in known.items() if revision} == {one.id: one.revision for one in alive}


async def purge(world: World, seconds: float) -> int:
    assert world.pool is not None
    return await purge_tombstones(world.pool, later(seconds))


@pytest.mark.database
async def test_old_tombstones_are_forgotten(postgres: World) -> None:
    await postgres.put(doc("a"), doc("b"), doc("c"))
    await postgres.delete("a", now=later(1))
    await postgres.delete("b", now=later(10))
    await postgres.put(doc("d"), now=later(11))
    assert await purge(postgres, 5) == 1
    assert await purge(postgres, 5) == 0
    assert names(await follow(postgres)) == ["c", "b", "d"]
    (accepted,) = await postgres.put(doc("b"))
    assert accepted.revision == 3
    (accepted,) = await postgres.put(doc("a"))
    assert (accepted.status, accepted.revision) == ("created", 1)


@pytest.mark.database
async def test_the_latest_change_of_a_collection_stays(postgres: World) -> None:
    """Whoever followed everything stands beyond what is forgotten, and need not start again."""
    await postgres.put(doc("a"), doc("b"))
    await postgres.delete("a", now=later(1))
    assert await purge(postgres, 5) == 0
    await postgres.delete("b", now=later(2))
    followed = await follow(postgres)
    assert names(followed) == ["a", "b"]
    assert await purge(postgres, 5) == 1
    assert await follow(postgres, followed[-1].position) == []


@pytest.mark.database
async def test_a_follower_that_missed_a_forgotten_deletion_starts_again_once(postgres: World) -> None:
    await postgres.put(doc("a"), doc("b"), doc("c"), doc("d"))
    behind = (await follow(postgres))[-1].position
    await postgres.delete("a", now=later(1))
    await postgres.put(doc("e"), now=later(2))
    ahead = (await follow(postgres))[-1].position
    assert await purge(postgres, 5) == 1
    page = await postgres.changes.after(postgres.collection.id, behind, 10, NOW)
    assert (page.rebuild, page.changes) == (True, ())
    assert not (await postgres.changes.after(postgres.collection.id, ahead, 10, NOW)).rebuild
    # Starting again goes through, however small the pages, although each stands before what was forgotten.
    assert names(await follow(postgres, limit=1)) == ["b", "c", "d", "e"]


@pytest.mark.database
async def test_a_purge_on_the_way_makes_a_new_follower_start_again(postgres: World) -> None:
    await postgres.put(doc("a"), doc("b"), doc("c"))
    page = await postgres.changes.after(postgres.collection.id, START, 1, NOW)
    on_the_way = page.changes[-1].position
    await postgres.delete("a", now=later(1))
    await postgres.put(doc("d"), now=later(2))
    await purge(postgres, 5)
    assert (await postgres.changes.after(postgres.collection.id, on_the_way, 1, NOW)).rebuild


@pytest.mark.database
async def test_a_document_that_came_back_is_not_purged(postgres: World) -> None:
    await postgres.put(doc("a"))
    await postgres.delete("a", now=later(1))
    await postgres.put(doc("a", "back"), doc("b"), now=later(2))
    assert await purge(postgres, 100) == 0
    assert (await postgres.get("a")).text == "back"


async def shift(pool: Pool, by: int) -> None:
    """As if a dump had been restored that a server with so many more transactions behind it had written."""
    async with pool.connection() as connection:
        await connection.execute("UPDATE changes SET xid = (xid::text::bigint + %(by)s)::text::xid8", {"by": by})
        await connection.execute(
            "UPDATE collections SET purged_xid = (purged_xid::text::bigint + %(by)s)::text::xid8", {"by": by}
        )


@pytest.mark.database
async def test_changes_from_the_future_are_brought_back_to_the_present(postgres: World) -> None:
    assert postgres.pool is not None
    await postgres.put(doc("a"), doc("gone"))
    await postgres.delete("gone", now=later(1))
    await postgres.put(doc("b"))
    await purge(postgres, 5)
    old = (await follow(postgres))[-1].position
    await shift(postgres.pool, 10**9)
    assert await follow(postgres) == []
    assert await repair_after_restore(postgres.pool) == 2
    assert await repair_after_restore(postgres.pool) == 0
    assert names(await follow(postgres)) == ["a", "b"]
    followed_there = Position(xid=old.xid + 10**9, document_id=old.document_id, purged=old.purged + 10**9)
    assert (await postgres.changes.after(postgres.collection.id, followed_there, 10, NOW)).rebuild
    assert (await postgres.changes.after(postgres.collection.id, old, 10, NOW)).rebuild
    await postgres.put(doc("c"))
    assert names(await follow(postgres, (await follow(postgres))[0].position)) == ["b", "c"]


@pytest.mark.database
async def test_nothing_is_repaired_where_nothing_was_restored(postgres: World) -> None:
    assert postgres.pool is not None
    await postgres.put(doc("a"))
    (claimed,) = await postgres.claim()
    await postgres.store(encoded(claimed))
    before = await follow(postgres)
    assert await repair_after_restore(postgres.pool) == 0
    assert await follow(postgres) == before


async def test_an_index_is_known_by_its_last_token_or_the_one_before(world: World) -> None:
    """A crash may come between the token and its being kept. Any older token: the database was restored meanwhile."""

    async def rebuild(mark: IndexMark) -> bool:
        return (await world.changes.after(world.collection.id, START, 10, NOW, mark=mark)).rebuild

    mark = IndexMark(generation="g")
    assert not await rebuild(mark)
    marks = []
    for _ in range(3):
        token = await world.changes.mark(world.collection.id, mark, NOW)
        assert token is not None
        mark = replace(mark, token=token)
        marks.append(mark)
    assert [await rebuild(one) for one in marks] == [True, False, False]
    assert await rebuild(replace(mark, generation="another"))
    assert await world.changes.mark(world.collection.id, marks[0], NOW) is None
    assert await world.changes.mark(world.collection.id, replace(mark, generation="another"), NOW) is None
    assert await world.changes.mark(world.collection.id, marks[1], NOW) not in {None, mark.token}


async def test_a_reader_knows_what_it_lacks_of_a_revision(world: World) -> None:
    async def written(*documents: Document) -> int:
        noted = WrittenRevision()
        token = WRITTEN.set(noted)
        await world.put(*documents)
        WRITTEN.reset(token)
        return noted.revision

    async def missing(revision: int, position: Position = START) -> Position | None:
        return await world.changes.last_missing(world.collection.id, revision, position, NOTHING_SEEN)

    first, second = await written(doc("a"), doc("b")), await written(doc("c"))
    assert 0 < first < second
    at = {str(change.document_id): change.position for change in await follow(world)}
    assert (await missing(first), await missing(second)) == (at["b"], at["c"])
    assert await missing(first, at["a"]) == at["b"]  # half of a transaction is not enough
    assert (await missing(first, at["b"]), await missing(second, at["b"])) == (None, at["c"])
    assert await written(doc("c")) >= second  # unchanged: what is there was written earlier
    await written(doc("b"))
    await written(doc("b", "newer"))
    assert await missing(first) == at["a"]
    with pytest.raises(NotFound):
        await missing(2**60)
