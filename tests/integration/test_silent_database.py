"""A database that no longer answers and breaks nothing: calls end, new ones fail at once, and it heals by itself."""

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import psutil
import pytest

from service.core.errors import DatabaseUnavailable
from service.store.embedded.server import EmbeddedServer
from service.store.postgres.connection.heartbeat import Connection
from service.store.postgres.connection.pool import Pool, open_pool
from tests.swallowing_proxy import SwallowingProxy, swallowing_proxy
from tests.world import World, build

pytestmark = [pytest.mark.database, pytest.mark.faults, pytest.mark.slow]

SIZE = 4
ENOUGH_SECONDS = 15.0
"""For all that happens within about three; without a deadline it would take for ever."""


class Fault:
    """A silent network or server. `begin`, and `end` at the latest when the test ends."""

    def __init__(self, proxy: SwallowingProxy, server: EmbeddedServer | None) -> None:
        self.proxy, self._server = proxy, server
        self._stopped: list[psutil.Process] = []

    def begin(self) -> None:
        if self._server is None:
            self.proxy.open = False
            return
        leader = psutil.Process(int((self._server.folder / "postmaster.pid").read_text().split()[0]))
        self._stopped = [leader, *leader.children(recursive=True)]
        for process in self._stopped:
            process.suspend()

    def end(self) -> None:
        self.proxy.open = True
        for process in self._stopped:
            with suppress(psutil.Error):
                process.resume()


@pytest.fixture(params=["network", "server"])
async def fault(request: pytest.FixtureRequest, scratch: Path) -> AsyncIterator[Fault]:
    folder = scratch / f"silent-{random.getrandbits(32):x}"
    server = EmbeddedServer(folder, settings={"shared_buffers": "16MB"})
    url = await asyncio.to_thread(server.start)
    async with swallowing_proxy(url) as proxy:
        fault = Fault(proxy, server if request.param == "server" else None)
        yield fault
        fault.end()
    await asyncio.to_thread(server.stop)


async def open_through(proxy: SwallowingProxy) -> Pool:
    return await open_pool(proxy.url, size=SIZE, statement_timeout_seconds=60, application_name="silent")


async def in_transaction(pool: Pool) -> None:
    async with pool.transaction() as connection:
        while True:
            await connection.execute("SELECT 1")
            await asyncio.sleep(0.01)


async def in_copy(pool: Pool) -> None:
    async with pool.connection() as connection, connection.cursor() as cursor:
        async with cursor.copy("COPY kept FROM STDIN") as rows:
            while True:
                await rows.write_row(("x" * 100_000,))
                await asyncio.sleep(0.01)


async def outside_the_pool(pool: Pool) -> None:
    async with pool.dedicated() as connection:
        await connection.execute("SELECT pg_sleep(60)")


async def after_a_budget(pool: Pool) -> None:
    """A caller who gives up meanwhile is not held by the cancellation."""
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await pool.execute("SELECT pg_sleep(60)")
    await pool.execute("SELECT pg_sleep(60)")


async def test_every_call_ends_new_ones_fail_at_once_and_it_heals(fault: Fault) -> None:
    calls: list[Callable[[Pool], Awaitable[object]]] = [in_transaction, in_copy, outside_the_pool, after_a_budget]
    async with await open_through(fault.proxy) as pool:
        await pool.execute("CREATE TABLE kept (a text)")
        await asyncio.gather(*(pool.execute("SELECT pg_sleep(0.05)") for _ in range(SIZE)))
        # More than the pool has connections: some wait for one.
        calls += [lambda pool: pool.execute("SELECT pg_sleep(60)")] * SIZE
        tasks = [asyncio.ensure_future(call(pool)) for call in calls]
        await asyncio.sleep(0.3)
        fault.begin()
        async with asyncio.timeout(ENOUGH_SECONDS):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, DatabaseUnavailable) for outcome in outcomes), outcomes
        async with asyncio.timeout(ENOUGH_SECONDS):  # a thousand times the longest wait for a connection
            for _ in range(1000):
                with pytest.raises(DatabaseUnavailable, match="has not answered for"):
                    await pool.execute("INSERT INTO kept VALUES (1)")
        fault.end()
        async with asyncio.timeout(ENOUGH_SECONDS):
            await pool.heartbeat.available.wait()
            assert await asyncio.gather(*(pool.fetch_all("SELECT 1 FROM pg_sleep(0.05)") for _ in range(2 * SIZE)))
            # Nothing that was under way is there, and none of it holds a lock.
            assert await pool.fetch_one("SELECT count(*) FROM kept") == (0,)
            await pool.execute("TRUNCATE kept")


@pytest.mark.parametrize("fault", ["network"], indirect=True)
async def test_a_lost_answer_of_one_connection_holds_neither_the_call_nor_the_row(fault: Fault) -> None:
    async with await open_through(fault.proxy) as pool:
        await pool.execute("CREATE TABLE kept AS SELECT 0 AS a")

        async def update() -> None:
            async with pool.transaction() as connection:
                await connection.execute("UPDATE kept SET a = a + 1")
                fault.begin()
                answer = asyncio.ensure_future(connection.execute("SELECT 1"))
                await asyncio.sleep(0.1)
                fault.end()
                await answer

        async with asyncio.timeout(ENOUGH_SECONDS):
            with pytest.raises(DatabaseUnavailable):
                await update()
            assert await pool.execute("UPDATE kept SET a = a + 10") == 1
        assert await pool.fetch_one("SELECT a FROM kept") == (10,)


async def test_slow_is_not_silent(pool: Pool) -> None:
    """A statement that has no limit of time goes on where others are ended by ours."""
    pool.limit_seconds = 1.0

    async def unlimited() -> None:
        async with pool.transaction() as connection:
            await connection.lift_time_limit()
            await connection.execute("SELECT pg_sleep(4)")

    outcomes = await asyncio.gather(pool.execute("SELECT pg_sleep(60)"), unlimited(), return_exceptions=True)
    assert isinstance(outcomes[0], DatabaseUnavailable)
    assert outcomes[1] is None
    assert pool.heartbeat.available.is_set()


async def test_driving_versions_makes_no_new_connections(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    world: World = await build(pool)
    made = 0
    connect = Connection.connect

    async def counted(*arguments: object, **named: object) -> object:
        nonlocal made
        made += 1
        return await connect(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Connection, "connect", counted)
    async with AsyncExitStack() as stack:
        for _ in range(20):
            async with world.versions.transition_lock(world.version) as ours:
                assert ours
        assert await stack.enter_async_context(world.versions.transition_lock(world.version))
        assert not await stack.enter_async_context(world.versions.transition_lock(world.version))
    assert made == 0


async def test_a_pool_that_closes_while_the_database_is_asked_logs_no_error(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    async with await open_through(fault.proxy):
        fault.begin()
        await asyncio.sleep(0.7)  # it is asked every half second, and given longer to answer
    gc.collect()  # errors that nobody asked for are logged now
    assert [record for record in caplog.records if record.name == "asyncio"] == []
