"""The follower on PostgreSQL's change feed: late commits, purged tombstones, an index ahead of its server."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from service.core.change_feed import ChangePage, Position
from service.core.ids import DocumentId
from service.core.metrics import LEXICAL_REBUILDS
from service.core.query_syntax import ParsedQuery
from service.store.lexical import follower as follower_module
from service.store.lexical.follower import Follower
from service.store.lexical.lexicon import TantivyLexicon
from service.store.lexical.progress import write_progress
from service.store.lexical.snapshot import copy_indexes
from service.store.postgres import change_feed as feed_of_store
from service.store.postgres.connection.pool import Pool
from service.store.postgres.maintenance import purge_tombstones
from tests.contract.conftest import postgres
from tests.integration.test_lexical_follower import progress_on_disk
from tests.world import NOW, World, doc, later

__all__ = ["postgres"]

pytestmark = pytest.mark.database


class Followed:
    """A world whose lexical index can be stopped and started again."""

    def __init__(self, world: World, root: Path) -> None:
        self.world = world
        self.root = root

    async def start(self) -> None:
        self.lexicon = TantivyLexicon(self.root, UUID("5a000000-0000-4000-8000-000000000004"))
        self._stop = asyncio.Event()
        follower = Follower(self.lexicon, self.world.collections, self.world.changes)
        self._task = asyncio.create_task(follower.run(self._stop))

    async def stop(self) -> None:
        self._stop.set()
        await self._task
        await self.lexicon.close()

    async def found_after(self, *names: str) -> list[str]:
        """What "heron" finds once the last changes of these documents are visible."""
        position = await self.world.changes.position_of(self.world.collection.id, [DocumentId(one) for one in names])
        async with asyncio.timeout(20):
            await self.lexicon.wait_until(self.world.collection, position)
        return await self.found()

    async def found(self) -> list[str]:
        hits = await self.lexicon.search(self.world.collection, ParsedQuery(text="heron"), 100)
        return [hit.document_id for hit in hits]


@pytest.fixture
async def followed(postgres: World, tmp_path: Path) -> AsyncIterator[Followed]:
    subject = Followed(postgres, tmp_path / "lexical")
    await subject.start()
    yield subject
    await subject.stop()


async def test_follows_what_is_written_changed_and_deleted(followed: Followed) -> None:
    await followed.world.put(doc("a", "heron"), doc("b", "heron"), doc("c", "pike", title="Heron"))
    assert sorted(await followed.found_after("a", "b", "c")) == ["a", "b", "c"]
    await followed.world.put(doc("a", "pike"))
    await followed.world.delete("b")
    assert await followed.found_after("a", "b") == ["c"]
    (candidate,) = await followed.lexicon.search(followed.world.collection, ParsedQuery(text="heron"), 10)
    assert candidate.content_revision == (await followed.world.get("c")).content_revision


@pytest.mark.parametrize("page_bytes", [1, 1_000_000])
async def test_an_open_transaction_of_somebody_else_holds_nothing_up(
    followed: Followed, pool: Pool, monkeypatch: pytest.MonkeyPatch, page_bytes: int
) -> None:
    monkeypatch.setattr(follower_module, "PAGE", 3)
    monkeypatch.setattr(feed_of_store, "PAGE_BYTES", page_bytes)
    await followed.world.put(doc("before", "heron"))
    async with pool.transaction() as connection:
        await connection.execute("SELECT pg_current_xact_id()")  # an old transaction holds the horizon back
        for letter in "abcdefgh":
            await followed.world.put(doc(letter, "heron"), doc(letter * 2, "heron"))
        await followed.world.delete("b")
        await followed.world.put(doc("c", "pike"))
        assert len(await followed.found_after("a", "b", "c", "hh")) == 15
        assert followed.lexicon.lag_seconds(followed.world.collection.id) == 0
        await followed.stop()
        await followed.start()
        await followed.world.put(doc("i", "heron"))
        assert len(await followed.found_after("i")) == 16
    await followed.world.put(doc("j", "heron"))
    assert len(await followed.found_after("j")) == 17


async def test_what_is_committed_late_is_not_skipped(followed: Followed, pool: Pool) -> None:
    """Two transactions write; the older one commits last, behind what was read ahead of it."""
    collection = followed.world.collection.id
    async with pool.transaction() as oldest:
        await oldest.execute("SELECT pg_current_xact_id()")
        async with pool.transaction() as late:
            await feed_of_store.record(late, collection, [DocumentId("late")], later(0))
            await followed.world.put(doc("quick", "heron"))
            assert await followed.found_after("quick") == ["quick"]
        position = await followed.world.changes.position_of(collection, [DocumentId("late")])
        async with asyncio.timeout(5):
            await followed.lexicon.wait_until(followed.world.collection, position)
    assert await followed.found_after("quick") == ["quick"]


async def test_an_idle_feed_is_hardly_read_and_a_write_is_noticed_all_the_same(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await followed.world.put(doc("a", "heron"))
    await followed.found_after("a")
    reads, after = list[Any](), followed.world.changes.after

    async def counted(*arguments: Any) -> ChangePage:
        reads.append(arguments)
        return await after(*arguments)

    monkeypatch.setattr(followed.world.changes, "after", counted)
    monkeypatch.setattr(follower_module, "_LIST_SECONDS", 60.0)
    async with asyncio.timeout(20):
        while True:  # until the last read was one of an idle collection
            reads.clear()
            await asyncio.sleep(1.2)
            if not reads:
                break
    await followed.world.put(doc("b", "heron"))
    async with asyncio.timeout(20):
        while not reads:  # nobody waits for it, which would be another reason to read
            await asyncio.sleep(0.01)
    assert await followed.found_after("b") == ["a", "b"]


async def test_what_was_purged_while_nobody_followed_does_not_stay(followed: Followed, pool: Pool) -> None:
    await followed.world.put(doc("a", "heron"), doc("b", "heron"))
    await followed.found_after("a", "b")
    await followed.stop()
    await followed.world.delete("a")
    await followed.world.put(doc("c", "heron"))
    assert await purge_tombstones(pool, later(3600)) == 1
    await followed.start()
    assert await followed.found_after("c") == ["b", "c"]
    assert progress_on_disk(followed.lexicon.path(followed.world.collection)).position.purged > 0


async def test_an_index_ahead_of_its_server_begins_again(followed: Followed) -> None:
    """As when the database was restored from a backup and the index was not."""
    await followed.world.put(doc("a", "heron"))
    await followed.found_after("a")
    await followed.stop()
    path = followed.lexicon.path(followed.world.collection)
    write_progress(path, replace(progress_on_disk(path), position=Position(xid=10**9), complete=True))
    await followed.world.put(doc("b", "heron"))
    await followed.start()
    async with asyncio.timeout(20):
        while followed.lexicon.lag_seconds(followed.world.collection.id) != 0 or await followed.found() != ["a", "b"]:
            await asyncio.sleep(0.02)


async def test_several_processes_take_a_copy_over_and_a_database_without_its_mark_refuses_it(
    followed: Followed, tmp_path: Path
) -> None:
    world = followed.world
    await world.put(doc("a", "heron"))
    await followed.found_after("a")
    source, backup = followed.lexicon.directory, tmp_path / "backup"
    assert await copy_indexes(source, backup, world.changes, NOW) == 1
    for number in range(3):  # the marks of the first one go on, and the copy keeps its own
        await world.put(doc(f"later{number}", "heron"))
        await followed.found_after(f"later{number}")
    rebuilds = LEXICAL_REBUILDS.labels("restored")._value.get(), LEXICAL_REBUILDS.labels("new")._value.get()
    others = [Followed(world, tmp_path / name) for name in ("two", "three")]
    for other in others:
        target = other.root / source.name
        assert await copy_indexes(backup, target, world.changes, NOW) == 1
        assert await copy_indexes(backup, target, world.changes, NOW) == 0  # nothing is overwritten
        await other.start()
    for name in ("x", "y"):
        await world.put(doc(name, "heron"))
        for other in others:
            assert {"a", "later0", "later2", name} <= set(await other.found_after(name))
    assert rebuilds == (LEXICAL_REBUILDS.labels("restored")._value.get(), LEXICAL_REBUILDS.labels("new")._value.get())
    for other in others:
        await other.stop()
    await world.execute("DELETE FROM lexical_indexes")
    assert await copy_indexes(backup, tmp_path / "none", world.changes, NOW) == 0
