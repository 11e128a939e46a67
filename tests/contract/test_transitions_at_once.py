"""Transitions beside writers, workers, readers and index builds: what only PostgreSQL can show."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Self

import numpy as np
import pytest

from service.core.collections import Collection
from service.core.errors import AzimuthError, Conflict, TimedOut, VersionNotFound
from service.core.ids import DocumentId
from service.core.jobs import Job
from service.core.ports.versions import Versions
from service.core.versions import EmbedderVersion, VersionState
from service.store.postgres import audit, documents, queue
from service.store.postgres.connection.pool import Pool, open_pool
from service.store.postgres.vectors import vector_tables
from service.store.postgres.versions import version_transitions
from service.store.postgres.versions.versions import PostgresVersions
from tests.contract import test_collections
from tests.contract.test_transitions import audited, entry, pending, register
from tests.world import LEASE, NOW, World, doc, encoded

pytestmark = pytest.mark.database

HELD_SECONDS = 0.2


@pytest.fixture
def world(postgres: World) -> World:
    return postgres


def pool_of(world: World) -> Pool:
    assert world.pool is not None
    return world.pool


async def value(world: World, query: str, *arguments: object) -> Any:
    return await test_collections.value(pool_of(world), query, *arguments)


async def until_somebody_waits(world: World) -> None:
    await test_collections.until(pool_of(world), "SELECT count(*) FROM pg_locks WHERE NOT granted")


def table_of(version: EmbedderVersion) -> str:
    return vector_tables.vector_table_of(version).table


@asynccontextmanager
async def reading(world: World, version: EmbedderVersion) -> AsyncIterator[None]:
    async with pool_of(world).transaction() as reader:
        await reader.execute(f"SELECT count(*) FROM {table_of(version)}".encode())
        yield


class Background:
    """So many tasks that repeat a step until the block ends. It begins when they have done a few."""

    def __init__(self, world: World, count: int) -> None:
        self.world, self.count = world, count
        self.steps = 0
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._repeat(number)) for number in range(self.count)]
        await self.until_steps(2 * self.count)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def until_steps(self, steps: int) -> None:
        async with asyncio.timeout(20):
            while self.steps <= steps:
                await asyncio.sleep(0.01)

    async def _repeat(self, number: int) -> None:
        while not self._stop.is_set():
            await self.step(number)

    async def step(self, number: int) -> None:
        raise NotImplementedError


class Holders(Background):
    """Writers that take their time, one always beginning before another ends."""

    async def _repeat(self, number: int) -> None:
        await asyncio.sleep(number * HELD_SECONDS / self.count)
        await super()._repeat(number)

    async def step(self, number: int) -> None:
        async with pool_of(self.world).transaction() as connection:
            await connection.execute(documents.SQL.hold_collection, {"collection_id": self.world.collection.id})
            self.steps += 1
            await connection.execute("SELECT pg_sleep(%s)", (HELD_SECONDS,))


class Writers(Background):
    """Clients that write one document after the other, so closely that there is never a moment without one."""

    def __init__(self, world: World, count: int) -> None:
        super().__init__(world, count)
        self.acknowledged: list[DocumentId] = []

    async def step(self, number: int) -> None:
        written = await self.world.put(*(doc(f"w{number}-{self.steps}-{n}") for n in range(20)))
        self.steps += 1
        self.acknowledged.extend(one.id for one in written)


async def test_whatever_commits_after_a_registration_goes_to_the_version(world: World) -> None:
    async with Writers(world, 5) as writers:
        for _ in range(3):
            version = await register(world)
            there = set(await value(world, "SELECT array_agg(document_id) FROM documents"))
            await writers.until_steps(writers.steps + 10)
            later_ones = set(writers.acknowledged) - there
            assert later_ones
            assert set(await pending(world, version, *later_ones)) == later_ones


async def test_a_writer_that_has_read_the_versions_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue, read, go_on = queue.enqueue, asyncio.Event(), asyncio.Event()

    async def enqueue_and_wait(*arguments: Any) -> None:
        await enqueue(*arguments)
        read.set()
        await go_on.wait()

    with monkeypatch.context() as patch:
        patch.setattr(queue, "enqueue", enqueue_and_wait)
        writing = asyncio.create_task(world.put(doc("before")))
        await read.wait()
    registration = asyncio.create_task(register(world))
    await until_somebody_waits(world)
    following = asyncio.create_task(world.put(doc("after")))
    assert await world.versions.of(world.collection.id) == (world.version,)
    go_on.set()
    version = await registration
    # Committed by now, so the backfill will find it.
    assert (await world.get("before")).revision == 1
    await asyncio.gather(writing, following)
    assert await pending(world, version, "before", "after") == ("after",)


async def test_writers_who_overlap_leave_room_for_a_registration_and_a_deletion(world: World) -> None:
    async with Holders(world, 6):
        async with asyncio.timeout(4):
            await register(world)
        async with asyncio.timeout(4):
            await world.collections.delete(world.collection.id)


async def test_a_registration_that_breaks_off_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("broken off")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "write", fail)
        with pytest.raises(RuntimeError):
            await register(world)
    assert await world.versions.of(world.collection.id) == (world.version,)
    assert await value(world, "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'vectors%%'") == 1
    assert (await register(world)).number == 2


async def kill_drivers(world: World) -> Any:
    """Waits until they are gone, and answers how many there were."""
    return await value(
        world,
        "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_locks JOIN pg_database AS d ON d.oid = database "
        "WHERE locktype = 'advisory' AND d.datname = current_database()",
    )


async def test_processes_exclude_each_other_and_a_killed_one_lets_go(world: World, database_url: str) -> None:
    async def die(theirs: Versions) -> None:
        async with world.versions.transition_lock(world.version) as ours:
            assert ours
            async with theirs.transition_lock(world.version) as other:
                assert not other
            assert await kill_drivers(world) == 1
            async with theirs.transition_lock(world.version) as other:
                assert other
            raise Conflict("the body's own")

    async with await open_pool(database_url, size=2, statement_timeout_seconds=15, application_name="another") as pool:
        with pytest.raises(Conflict, match="the body's own"):
            await die(PostgresVersions(pool))


async def test_a_connection_that_breaks_while_driving_is_no_error_by_itself(world: World) -> None:
    async with world.versions.transition_lock(world.version) as ours:
        assert ours
        assert await kill_drivers(world) == 1
    async with world.versions.transition_lock(world.version) as again:
        assert again


async def test_who_waits_to_drive_is_in_nobodys_way(world: World) -> None:
    """An index build waits for every snapshot that is older than itself."""
    await world.put_and_store({"a": np.eye(4, dtype=np.float32)})

    async def wait() -> bool:
        async with world.versions.transition_lock(world.version, wait_seconds=20) as ours:
            return ours

    async with world.versions.transition_lock(world.version):
        waiting = asyncio.create_task(wait())
        async with asyncio.timeout(10):
            assert await world.versions.build_index(world.version)
        assert not waiting.done()
    assert await waiting


async def test_a_promotion_waits_for_no_writer_and_no_job_that_is_held(world: World) -> None:
    other = await world.add_version(2, VersionState.READY)
    await world.put(doc("a"), doc("b"))
    async with pool_of(world).transaction() as writer:
        await writer.execute("SELECT FROM collections WHERE id = %s FOR KEY SHARE", (world.collection.id,))
        await writer.execute("SELECT FROM jobs WHERE document_id = 'a' FOR UPDATE")
        async with asyncio.timeout(5):
            promoted = await world.versions.promote(world.collection, other, entry("promoted"))
    assert promoted.active_version == 2
    priorities = await value(world, "SELECT jsonb_object_agg(document_id || embedder_version, priority) FROM jobs")
    # What was held keeps its place, which is an order and no more.
    assert priorities == {"a1": 0, "a2": 1, "b1": 1, "b2": 0}


async def test_however_many_jobs_wait_all_change_their_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_transitions, "REORDERED", 3)
    other = await world.add_version(2, VersionState.READY)
    await world.put(*(doc(f"d{number}") for number in range(10)))
    await world.versions.promote(world.collection, other, entry("promoted"))
    counted = "SELECT jsonb_object_agg(key, jobs) FROM (SELECT {}, count(*) AS jobs FROM jobs GROUP BY 1) AS counted"
    key = "embedder_version || ' at ' || priority AS key"
    assert await value(world, counted.replace("{}", key)) == {"1 at 1": 10, "2 at 0": 10}


async def test_searches_do_not_wait_for_a_promotion(world: World) -> None:
    other = await world.add_version(2, VersionState.READY)
    async with pool_of(world).transaction() as connection:
        await connection.execute(version_transitions.SQL.lock_collection, {"id": world.collection.id})
        values = {"id": world.collection.id, "from": 1, "to": other.number}
        for step in ("demote", "activate", "switch"):
            await connection.execute(getattr(version_transitions.SQL, step), values)
        async with asyncio.timeout(5):
            assert await world.collections.by_name(world.collection.name) == world.collection
            assert (await world.versions.get(world.collection.id, world.version.number)).state == "active"
            assert [one.status for one in await world.put(doc("a"))] == ["created"]
            await world.drain()
            assert (await world.versions.status(world.version)).rows == 1


async def test_the_database_itself_refuses_two_active_versions(world: World) -> None:
    with pytest.raises(Exception, match="embedder_versions_active"):
        await world.add_version(2, VersionState.ACTIVE)


async def test_promotions_and_writes_at_once(world: World) -> None:
    """Back and forth under writers: nobody fails, and in the end one is active and every document has both its jobs."""
    other = await world.add_version(2, VersionState.READY)
    collection: Collection = world.collection
    async with Writers(world, 4) as writers:
        for _ in range(10):
            target = other if collection.active_version == 1 else world.version
            collection = await world.versions.promote(collection, target, entry("promoted"))
    assert collection.active_version == 1
    for version in (world.version, other):
        assert set(await pending(world, version, *writers.acknowledged)) == set(writers.acknowledged)


async def test_retiring_ends_a_running_index_build(world: World) -> None:
    version = await world.add_version(2, VersionState.INDEXING)
    pool = pool_of(world)
    async with test_collections.open_snapshot(pool):
        build = asyncio.create_task(world.versions.build_index(version))
        waiting = "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase ~ 'waiting'"
        await test_collections.until(pool, waiting)
        await world.versions.retire(version, entry("retired"))
    with pytest.raises(TimedOut):
        await build
    assert await value(world, "SELECT to_regclass(%s)", table_of(version)) is None


async def test_retiring_waits_for_what_a_worker_is_storing_and_drops_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = await world.add_version(2, VersionState.BACKFILLING)
    await world.put(doc("a"), doc("b"))
    first, second = await world.queue.claim([version], 10, "w1", NOW, LEASE)
    finish, storing, go_on = queue.finish, asyncio.Event(), asyncio.Event()

    async def finish_and_wait(*arguments: Any) -> frozenset[Job]:
        ours = await finish(*arguments)
        storing.set()
        await go_on.wait()
        return ours

    with monkeypatch.context() as patch:
        patch.setattr(queue, "finish", finish_and_wait)
        work = asyncio.create_task(world.vectors.write(version, [encoded(first)]))
        await storing.wait()
    retirement = asyncio.create_task(world.versions.retire(version, entry("retired")))
    await until_somebody_waits(world)
    go_on.set()
    assert await work == {first.job.document_id}
    assert (await retirement).state is VersionState.RETIRED
    # And the worker whose job is gone stores nothing.
    assert await world.vectors.write(version, [encoded(second)]) == frozenset()
    assert await pending(world, version, "a", "b") == ()
    assert await value(world, "SELECT to_regclass(%s)", table_of(version)) is None


async def test_writers_and_workers_go_on_while_versions_come_and_go(world: World) -> None:
    """No write fails for a table that is just dropped, no job is left of a version that is gone."""
    done = asyncio.Event()

    async def work() -> None:
        while not done.is_set():
            for version in await world.versions.written():
                claimed = await world.queue.claim([version], 50, "w", NOW, timedelta(seconds=60))
                try:
                    await world.vectors.write(version, [encoded(one) for one in claimed])
                except VersionNotFound:
                    assert version.number != 1

    async def delete(writers: Writers) -> None:
        while not done.is_set():
            names = writers.acknowledged[:40]
            del writers.acknowledged[:40]
            await world.delete(*names)
            await asyncio.sleep(0)

    async with Writers(world, 3) as writers:
        workers = [asyncio.create_task(work()) for _ in range(2)]
        deleter = asyncio.create_task(delete(writers))
        for _ in range(6):
            await world.versions.retire(await register(world), entry("retired"))
        done.set()
        await asyncio.gather(*workers, deleter)
    await world.drain()
    assert await value(world, "SELECT array_agg(DISTINCT embedder_version) FROM jobs") is None
    assert await value(world, "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'vectors%%'") == 1
    living = {DocumentId(name) for name in writers.acknowledged}
    assert {name for name, _ in await world.stored_chunks()} == living


async def test_searches_do_not_pile_up_behind_a_retirement(world: World) -> None:
    version = await world.add_version(2, VersionState.READY)
    waited = 0.0
    loop = asyncio.get_running_loop()
    async with reading(world, version):
        retirement = asyncio.create_task(world.versions.retire(version, entry("retired")))
        await until_somebody_waits(world)
        for _ in range(10):
            started = loop.time()
            await world.versions.status(version)
            waited = max(waited, loop.time() - started)
        assert not retirement.done()
        # And so do writers.
        await world.put(doc("a"))
    assert waited < 2.0
    assert (await retirement).state is VersionState.RETIRED


async def test_a_retirement_gives_up_where_the_table_is_read_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_transitions, "RETIRE_SECONDS", 0.2)
    version = await world.add_version(2, VersionState.READY)
    await world.put(doc("a"))
    async with reading(world, version):
        with pytest.raises(TimedOut):
            await world.versions.retire(version, entry("retired"))
    # Nothing of it happened.
    assert (await world.versions.get(world.collection.id, version.number)).state is VersionState.READY
    assert await pending(world, version, "a") == ("a",)
    await world.versions.retire(version, entry("retired"))


async def test_deleting_the_collection_takes_everything_of_all_versions(world: World) -> None:
    second = await register(world)
    third = await register(world)
    await world.versions.retire(second, entry("retired"))
    await world.versions.move(third, VersionState.FAILED, entry("failed"))
    await register(world)
    await world.collections.delete(world.collection.id)
    assert await value(world, "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'vectors%%'") == 0
    for table in ("embedder_versions", "audit", "jobs"):
        assert await value(world, f"SELECT count(*) FROM {table}") == 0


async def test_operators_at_once_leave_one_state_and_one_note_for_each_step(world: World) -> None:
    version = await world.add_version(2, VersionState.BACKFILLING)

    async def act(number: int) -> str:
        try:
            if number % 3 == 0:
                await world.versions.move(version, VersionState.INDEXING, entry("indexing"))
            elif number % 3 == 1:
                await world.versions.move(version, VersionState.FAILED, entry("failed"))
            else:
                await world.versions.retire(version, entry("retired"))
        except AzimuthError as error:
            return type(error).__name__
        return "done"

    outcomes = await asyncio.gather(*(act(number) for number in range(9)))
    assert set(outcomes) <= {"done", "Conflict"}
    notes = [action for action, _ in await audited(world)]
    assert len(notes) == len(set(notes))
    assert notes[-1] == "retired"
    assert len(notes) <= 2
    assert (await world.versions.get(world.collection.id, version.number)).state is VersionState.RETIRED
