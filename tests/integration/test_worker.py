"""The worker over PostgreSQL: the same promises as over the store in memory, kept by real transactions."""

import asyncio
from datetime import UTC, datetime

import pytest

from service.store.postgres.connection.pool import Pool
from tests.encoders import ScriptedEncoder
from tests.running import until
from tests.unit.embedder.worker.test_worker import DIMENSIONS, LONG, running, worker
from tests.world import World, build, doc

pytestmark = pytest.mark.database


def faulty() -> ScriptedEncoder:
    """Fails on one text, gives NaN for another."""
    model = ScriptedEncoder(DIMENSIONS)
    model.fail_on("poison", RuntimeError("kernel failed"))
    model.spoil = lambda text: "spoiled" in text
    return model


async def settled(world: World) -> None:
    """Until no job waits for the active version."""
    while (await world.queue.status(world.collection.id, world.version.number, datetime.now(UTC))).pending:
        await asyncio.sleep(0.02)


async def test_two_workers_store_everything_once_and_set_aside_what_cannot_be(pool: Pool) -> None:
    world = await build(pool, dimensions=DIMENSIONS)
    good = {f"d{n}": f"text number {n}" for n in range(300)} | {"long": LONG}
    await world.put(*(doc(name, text) for name, text in good.items()), doc("bad", "poison"), doc("nan", "spoiled"))

    async with running(worker(world, faulty(), claim=40)), running(worker(world, faulty(), claim=40)):
        await asyncio.wait_for(settled(world), 60)
        await world.put(doc("d7", "another text"), now=datetime.now(UTC))
        await asyncio.wait_for(settled(world), 60)

    stored = await world.stored_chunks()
    assert {name for name, _ in stored} == set(good)
    assert [number for name, number in sorted(stored) if name == "long"] == list(range(5))
    assert {revision for (name, _), revision in stored.items() if name == "d7"} == {2}
    failed = await world.queue.failed(world.collection.id, None, 10)
    assert [(one.id, one.attempts) for one in failed] == [("bad", 3), ("nan", 3)]
    assert failed[0].reason == "RuntimeError: kernel failed"


async def test_no_transaction_is_open_while_the_model_runs(pool: Pool) -> None:
    world = await build(pool, dimensions=DIMENSIONS)
    await world.put(*(doc(f"d{n}") for n in range(20)))
    model = ScriptedEncoder(DIMENSIONS)
    model.gate.clear()
    async with running(worker(world, model, housekeeping=None)):
        await until(model.started.is_set)
        async with pool.connection() as connection:
            # Other stages have short transactions meanwhile; one around the model would be there at every look.
            for _ in range(200):
                cursor = await connection.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    " AND backend_type = 'client backend'"
                    " AND (state LIKE 'idle in transaction%' OR backend_xid IS NOT NULL)"
                )
                if await cursor.fetchall() == [(0,)]:
                    break
            else:
                pytest.fail("a transaction stays open")
        model.gate.set()
