"""Backfills beside all else that happens to a collection: writers, workers, other callers, the end of a process."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from psycopg import sql

from service.core.errors import DatabaseUnavailable
from service.core.versions import BackfillStatus, Completeness, EmbedderVersion, VersionState
from service.store.postgres.connection.pool import Connection, Pool
from service.store.postgres.queue import OVERWRITE
from service.store.postgres.vectors.vector_tables import on_table, vector_table_of
from service.store.postgres.versions import backfills as module
from service.store.postgres.versions.backfills import PostgresBackfills
from tests.second_version import drain, set_state
from tests.world import LEASE, NOW, World, build, doc, encoded

pytestmark = pytest.mark.database

PATIENCE = 20.0


async def begin(pool: Pool, documents: int) -> tuple[World, PostgresBackfills, EmbedderVersion]:
    """Documents that the active version has, and a second version that has none of them."""
    world = await build(pool)
    await world.put(*(doc(f"d{number:04d}") for number in range(documents)))
    await world.drain()
    return world, PostgresBackfills(pool), await world.add_version(2, VersionState.BACKFILLING)


async def ask(pool: Pool, query: str) -> list[Any]:
    return await pool.fetch_all(query.encode())


async def waiting_in(pool: Pool, statement: str) -> list[Any]:
    """Who waits for a lock in this statement."""
    locked = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return await ask(pool, f"{locked} AND query LIKE '/* backfills.{statement} */%'")


async def until(found: Callable[[], Awaitable[Any]]) -> Any:
    """What was found, as soon as it is there."""
    deadline = time.monotonic() + PATIENCE
    while not (there := await found()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return there


async def test_what_a_backfill_saw_a_moment_ago_is_not_encoded(pool: Pool) -> None:
    """A portion reads documents as they were when its statement began, and may enqueue them after they were replaced
    and encoded, or deleted: nobody would ever do such a job, for its content is nowhere any more."""
    world, backfills, version = await begin(pool, 3)
    enqueue = on_table(module.SQL.enqueue, version, overwrite=OVERWRITE)
    place = {"collection_id": version.collection_id, "number": version.number}
    async with pool.transaction() as portion:
        await portion.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await portion.execute("SELECT 1")  # from here on it sees the documents as they are now
        await world.put(doc("d0001", "newer"))
        await world.delete("d0002")
        await drain(world, version)
        await portion.execute(enqueue, {**place, "after": "", "last": "d0002", "now": NOW, "priority": 2})
    stale = "SELECT document_id, content_revision FROM jobs WHERE embedder_version = 2 ORDER BY document_id"
    assert await ask(pool, stale) == [("d0000", 1), ("d0001", 1), ("d0002", 1)]

    claimed = await world.queue.claim([version], 10, "w", NOW, LEASE, "backfill")
    assert [one.job.document_id for one in claimed] == ["d0000"]
    await world.vectors.write(version, [encoded(one) for one in claimed])
    assert await ask(pool, stale) == []
    assert await world.stored_chunks(version) == {("d0000", 0): 1, ("d0001", 0): 2}
    assert (await backfills.completeness(version)).complete


async def test_two_callers_skip_nothing_and_do_nothing_twice(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTION", 7)
    world, backfills, version = await begin(pool, 200)
    async with blocked(pool, version, "d0010"):
        calls = [asyncio.create_task(backfills.advance(version, NOW, 10_000)) for _ in range(3)]
        await until(lambda: waiting_in(pool, "enqueue"))
        await until(lambda: waiting_in(pool, "lock"))
    await asyncio.gather(*calls)
    assert await backfills.advance(version, NOW, 10_000) == BackfillStatus(enqueued=200, waiting=200, everything=True)
    assert await drain(world, version) == 200


async def test_killed_in_the_middle_it_goes_on_where_it_was(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTION", 50)
    world, backfills, version = await begin(pool, 200)
    async with blocked(pool, version, "d0120"):
        advancing = asyncio.create_task(backfills.advance(version, NOW, 10_000))
        ((pid,),) = await until(lambda: waiting_in(pool, "enqueue"))
        await ask(pool, f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(DatabaseUnavailable):
            await advancing
    # What was committed stands, what was under way is as if it had never been.
    progress = "SELECT backfill_cursor, backfill_enqueued FROM embedder_versions WHERE number = 2"
    assert await ask(pool, progress) == [("d0099", 100)]
    assert await ask(pool, "SELECT count(*) FROM jobs") == [(100,)]
    assert await backfills.advance(version, NOW, 10_000) == BackfillStatus(enqueued=200, waiting=200, everything=True)
    assert await drain(world, version) == 200
    assert (await backfills.completeness(version)).complete


async def test_writers_do_not_wait_for_a_backfill(pool: Pool) -> None:
    world, backfills, version = await begin(pool, 200)
    async with blocked(pool, version, "d0199"):
        advancing = asyncio.create_task(backfills.advance(version, NOW, 10_000))
        await until(lambda: waiting_in(pool, "enqueue"))
        await asyncio.wait_for(world.put(doc("new"), doc("d0000", x=1)), PATIENCE)
        await asyncio.wait_for(world.delete("d0001"), PATIENCE)
        assert not advancing.done()
    await advancing
    assert "new" in await world.documents.get(world.collection.id, [doc("new").id])


@asynccontextmanager
async def blocked(pool: Pool, version: EmbedderVersion, name: str) -> AsyncIterator[None]:
    """Somebody holds the place of this document's job, and gives it up at the end."""
    async with pool.dedicated() as connection:
        await connection.execute("BEGIN")
        job = (version.collection_id, name, version.number, NOW, NOW)
        await connection.execute("INSERT INTO jobs SELECT %s, %s, %s, 1, 2, %s, %s", job)
        yield
        await connection.execute("ROLLBACK")


async def test_under_constant_writing_it_ends_complete(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers write, replace and delete, two workers encode both lanes, the backfill runs, stops and starts over."""
    monkeypatch.setattr(module, "PORTION", 20)
    world, backfills, version = await begin(pool, 300)
    versions = [world.version, version]
    stop = asyncio.Event()
    seen: list[Completeness] = []

    async def write(seed: int) -> None:
        chance = random.Random(seed)
        for turn in range(60):
            names = [f"d{chance.randrange(400):04d}" for _ in range(5)]
            if chance.random() < 0.3:
                await world.delete(*names)
            else:
                await world.put(*(doc(name, f"text {seed} {turn}") for name in dict.fromkeys(names)))

    async def work(worker: str) -> None:
        while not stop.is_set():
            for lane in ("live", "backfill"):
                claimed = await world.queue.claim(versions, 9, worker, NOW, LEASE, lane)
                await asyncio.sleep(0)
                for one in versions:
                    mine = [encoded(job) for job in claimed if job.job.version == one.number]
                    await world.vectors.write(one, mine)

    async def fill() -> None:
        for turn in range(1_000):
            backfill = await backfills.advance(version, NOW, 40)
            if backfill.everything:
                seen.append(await backfills.completeness(version))
            if turn == 10:
                await backfills.restart(version)
            elif backfill.everything and not backfill.waiting:
                return

    workers = [asyncio.create_task(work(name)) for name in "ab"]
    await asyncio.gather(write(1), write(2), fill())
    await until(lambda: nothing_waits(pool))
    stop.set()
    await asyncio.gather(*workers)

    assert seen
    assert all(one.agrees for one in seen), "at every moment, for what has a job is on neither side"
    assert (await backfills.advance(version, NOW, 10_000)).everything
    found = await backfills.completeness(version)
    assert found.complete
    stored = {(id_, 0): revision for id_, revision in await ask(pool, LIVING)}
    assert found.documents == len(stored)
    assert await world.stored_chunks(version) == stored == await world.stored_chunks(world.version)


LIVING = "SELECT document_id, content_revision FROM documents WHERE deleted_at IS NULL"


async def nothing_waits(pool: Pool) -> bool:
    return await ask(pool, "SELECT count(*) FROM jobs") == [(0,)]


async def test_progress_of_a_build_is_that_of_the_server(pool: Pool) -> None:
    world, backfills, version = await begin(pool, 50)
    await backfills.advance(version, NOW, 100)
    await drain(world, version)
    version = await set_state(world, version, VersionState.INDEXING)
    before = await backfills.progress(version, NOW)
    assert (before.done, before.total) == (0, 50)

    async with writing(pool, version):
        building = asyncio.create_task(world.versions.build_index(version))
        share = "SELECT phase FROM pg_stat_progress_create_index WHERE phase = 'waiting for writers before build'"
        await until(lambda: ask(pool, share))
        waiting = await backfills.progress(version, NOW)
        assert (waiting.done, waiting.total, waiting.eta_seconds) == (0, 50, None)
    assert await building
    after = await backfills.progress(version, NOW)
    assert (after.done, after.total, after.eta_seconds) == (50, 50, None)


@asynccontextmanager
async def writing(pool: Pool, version: EmbedderVersion) -> AsyncIterator[Connection]:
    """A transaction that has written to the table and ends later: an index build waits for it."""
    async with pool.dedicated() as connection:
        await connection.execute("BEGIN")
        table = vector_table_of(version).table_identifier
        await connection.execute(sql.SQL("DELETE FROM {} WHERE false").format(table))
        yield connection
        await connection.execute("ROLLBACK")
