"""The pool: types, limits, words for what goes wrong, and healing after the server was away."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg
import pytest
from pgvector import HalfVector
from psycopg import sql

from service.core.errors import DatabaseUnavailable, Overloaded, TimedOut, WritesRefused
from service.store.embedded.server import EmbeddedServer
from service.store.postgres.connection import pool as pool_module
from service.store.postgres.connection.pool import Pool, open_pool, retrying
from tests.running import until

pytestmark = pytest.mark.database

pool_of = partial(open_pool, size=2, statement_timeout_seconds=5, application_name="tests")


async def value(pool: Pool, query: str, *arguments: object) -> Any:
    row = await pool.fetch_one(query, arguments)
    assert row is not None
    return row[0]


async def test_json_and_vectors_go_and_come_as_python_values(pool: Pool) -> None:
    document = {"title": "naïve", "year": 2019, "tags": ["a", None, {"deep": 0.5}]}
    assert await value(pool, "SELECT %s", document) == document
    assert await value(pool, "SELECT (%s::jsonb[])[2]", [{"a": 1}, document]) == document
    vector = np.array([0.25, -1.0, 3.0], dtype=np.float32)
    half = await value(pool, "SELECT %s::halfvec", vector)
    assert isinstance(half, HalfVector)
    assert half.to_list() == vector.tolist()
    assert await value(pool, "SELECT %s <-> %s", HalfVector([1.0, 0.0]), HalfVector([1.0, 2.0])) == 2.0


async def test_a_database_without_the_extension_can_be_used(empty_database_url: str) -> None:
    pool = await pool_of(empty_database_url)
    async with pool:
        assert await value(pool, "SELECT %s", {"a": 1}) == {"a": 1}


async def test_connections_have_their_limits_and_their_name(database_url: str) -> None:
    pool = await open_pool(database_url, size=2, statement_timeout_seconds=2.5, application_name="azimuth-test")
    async with pool:
        shown = {name: await value(pool, f"SHOW {name}") for name in ("statement_timeout", "lock_timeout", "jit")}
        assert shown == {"statement_timeout": "2500ms", "lock_timeout": "2500ms", "jit": "off"}
        assert await value(pool, "SHOW application_name") == "azimuth-test"
        async with pool.dedicated() as connection:
            assert await (await connection.execute("SHOW statement_timeout")).fetchone() == ("0",)


async def test_a_pool_without_parallelism_takes_no_parallel_workers(database_url: str) -> None:
    wanted = "SHOW max_parallel_workers_per_gather"
    for parallel in (True, False):
        pool = await open_pool(
            database_url, size=1, statement_timeout_seconds=5, application_name="azimuth-test", parallel=parallel
        )
        async with pool:
            assert (await value(pool, wanted) == "0") is not parallel


async def test_a_transaction_is_committed_whole_or_not_at_all(pool: Pool) -> None:
    async with pool.transaction() as connection:
        await connection.execute("CREATE TABLE t (a integer)")

    async def break_off() -> None:
        async with pool.transaction() as connection:
            await connection.execute("INSERT INTO t VALUES (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await break_off()
    assert await value(pool, "SELECT count(*) FROM t") == 0
    async with pool.connection() as connection:
        await connection.execute("INSERT INTO t VALUES (1)")
        assert await value(pool, "SELECT count(*) FROM t") == 1, "autocommit"


async def test_what_takes_too_long_is_timed_out(database_url: str) -> None:
    pool = await open_pool(database_url, size=2, statement_timeout_seconds=0.05, application_name="tests")
    async with pool:
        with pytest.raises(TimedOut) as caught:
            await value(pool, "SELECT pg_sleep(60)")
        assert isinstance(caught.value.__cause__, psycopg.errors.QueryCanceled)
        async with pool.transaction() as holder:
            await holder.execute("SELECT id FROM installation FOR UPDATE")
            with pytest.raises(TimedOut):
                await value(pool, "SELECT id FROM installation FOR UPDATE")


async def test_a_server_that_takes_no_writes_says_so_and_what_frees_space_goes_on(database_url: str) -> None:
    name = database_url.partition("@/")[2].partition("?")[0]
    async with await pool_of(database_url) as pool:
        await pool.execute("CREATE TABLE t (a integer)")
        await pool.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(sql.Identifier(name))
        )
    async with await pool_of(database_url) as pool:
        with pytest.raises(WritesRefused, match="its disk is nearly full"):
            await pool.execute("INSERT INTO t VALUES (1)")
        async with pool.transaction(even_when_full=True) as connection:
            await connection.execute("DROP TABLE t")
        with pytest.raises(WritesRefused, match="The disk of the database is full: no space left"):
            await pool.execute("DO $$ BEGIN RAISE 'no space left' USING ERRCODE = 'disk_full'; END $$")
        assert await value(pool, "SELECT 1") == 1


async def test_an_exhausted_pool_says_so(database_url: str) -> None:
    pool = await pool_of(database_url, size=1, wait_seconds=0.05)
    async with pool:
        async with pool.connection():
            with pytest.raises(DatabaseUnavailable, match="No database connection became free"):
                await value(pool, "SELECT 1")
        assert await value(pool, "SELECT 1") == 1


async def test_mistakes_of_ours_are_not_dressed_up(pool: Pool) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        await value(pool, "SELECT 1 FROM nothing")


async def test_an_unreachable_server_is_told_when_the_pool_opens(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        await pool_of(f"postgresql:///search?host={tmp_path}")


async def test_transactions_that_deadlock_both_succeed_in_the_end(pool: Pool) -> None:
    async with pool.transaction() as connection:
        await connection.execute("CREATE TABLE t AS SELECT n, 0 AS a FROM generate_series(1, 2) AS n")
    both_hold_one = asyncio.Barrier(2)
    tries = {1: 0, 2: 0}

    async def update(first: int, second: int) -> int:
        tries[first] += 1
        async with pool.transaction() as connection:
            await connection.execute("UPDATE t SET a = a + 1 WHERE n = %s", (first,))
            if tries[first] == 1:
                await both_hold_one.wait()
            await connection.execute("UPDATE t SET a = a + 1 WHERE n = %s", (second,))
        return first

    done = await asyncio.gather(retrying(lambda: update(1, 2)), retrying(lambda: update(2, 1)))
    assert list(done) == [1, 2]
    assert sum(tries.values()) > 2, "there was no deadlock"
    assert await value(pool, "SELECT array_agg(a) FROM t") == [2, 2]


async def test_only_so_many_tries_are_made_and_other_errors_not_tried_again() -> None:
    tries = 0

    async def fail(cause: Exception) -> None:
        nonlocal tries
        tries += 1
        raise DatabaseUnavailable from cause

    with pytest.raises(DatabaseUnavailable):
        await retrying(lambda: fail(psycopg.errors.SerializationFailure()), tries=3, pause=timedelta(0))
    assert tries == 3
    with pytest.raises(DatabaseUnavailable):
        await retrying(lambda: fail(psycopg.OperationalError()), tries=3, pause=timedelta(0))
    assert tries == 4


@pytest.fixture
async def own_server(scratch: Path) -> AsyncIterator[EmbeddedServer]:
    """A server that may be killed."""
    server = EmbeddedServer(scratch / f"pool-{random.getrandbits(32):x}", settings={"shared_buffers": "16MB"})
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


@pytest.mark.faults
async def test_a_restart_between_requests_is_not_noticed_by_them(own_server: EmbeddedServer) -> None:
    pool = await pool_of(own_server.url, size=4)
    async with pool:
        # All connections were made and lie in the pool.
        await asyncio.gather(*(value(pool, "SELECT pg_sleep(0.05)") for _ in range(4)))
        before = await value(pool, "SELECT pg_postmaster_start_time()")
        psutil.Process(int((own_server.folder / "postmaster.pid").read_text().split()[0])).kill()
        async with asyncio.timeout(20):
            while own_server.alive():
                await asyncio.sleep(0.01)
        await asyncio.to_thread(own_server.start)
        answers = await asyncio.gather(*(value(pool, "SELECT pg_postmaster_start_time()") for _ in range(8)))
        assert all(answer > before for answer in answers)


@pytest.mark.faults
async def test_while_the_server_is_away_requests_fail_soon_and_after_it_they_work(own_server: EmbeddedServer) -> None:
    pool = await pool_of(own_server.url, size=4, wait_seconds=0.5)
    async with pool:
        await asyncio.to_thread(own_server.stop)
        for _ in range(6):
            async with asyncio.timeout(5):
                with pytest.raises(DatabaseUnavailable):
                    await value(pool, "SELECT 1")
        await asyncio.to_thread(own_server.start)

        async def healed() -> bool:
            try:
                return bool(await value(pool, "SELECT 1") == 1)
            except DatabaseUnavailable:
                return False

        async with asyncio.timeout(15):
            while not await healed():
                pass
        # And fully so: as many at once as the pool has connections.
        assert await asyncio.gather(*(value(pool, "SELECT 1 FROM pg_sleep(0.05)") for _ in range(4))) == [1] * 4


@pytest.mark.faults
async def test_a_connection_that_breaks_in_the_middle_is_told_and_replaced(pool: Pool) -> None:
    async def suicide() -> None:
        await pool.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    for _ in range(8):
        with pytest.raises(DatabaseUnavailable):
            await suicide()
    assert await value(pool, "SELECT 1") == 1


@pytest.mark.parametrize("size", [2, 4, 10])
async def test_filters_leave_connections_to_others(
    database_url: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large ones take a part of the share of all, so that small ones do not wait for them."""
    monkeypatch.setattr(pool_module, "_FILTER_WAIT_SECONDS", 0.3)
    pool = await open_pool(database_url, size=size, statement_timeout_seconds=5, application_name="tests")
    share, of_large = max(1, size // 2), max(1, size // 5)

    async def evaluate(lookups: int) -> str:
        try:
            await pool.fetch_all("SELECT pg_advisory_xact_lock_shared(1)", lookups=lookups)
        except Overloaded:
            return "refused"
        return "done"

    async with pool:
        async with pool.dedicated() as holder:
            await holder.execute("SELECT pg_advisory_lock(1)")
            large, small = ([asyncio.create_task(evaluate(lookups)) for _ in range(size)] for lookups in (100, 1))
            await until(lambda: sum(one.done() for one in (*large, *small)) == 2 * size - share)
            assert await value(pool, "SELECT 1") == 1
        assert [await one for one in large].count("done") == of_large
        assert [await one for one in small].count("done") == share - of_large
        assert await evaluate(100) == await evaluate(1) == "done"


async def test_a_filter_that_is_given_up_frees_its_share_and_its_statement(database_url: str) -> None:
    async with await pool_of(database_url) as pool:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await pool.fetch_all("SELECT pg_sleep(4)", lookups=100)
        assert await pool.fetch_all("SELECT 1", lookups=100) == [(1,)], "Overloaded where its share is not free"
        running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(4)' AND state = 'active'"
        assert await value(pool, running) == 0
