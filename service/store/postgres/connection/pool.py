"""Connections to PostgreSQL: one pool for each process; errors leave as those of `service.core.errors`.

Statements run in autocommit; a transaction is always visible as one (`async with pool.transaction() as connection`).
Open the pool after the migrations ran: a connection learns the types of pgvector when it is made.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import cached_property
from time import monotonic
from typing import Any, TypeVar

import orjson
import psycopg
from pgvector.psycopg.halfvec import register_halfvec_info
from pgvector.psycopg.vector import register_vector_info
from psycopg.abc import Params
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import DeadlockDetected, FeatureNotSupported, SerializationFailure
from psycopg.rows import TupleRow, class_row
from psycopg.types import TypeInfo
from psycopg.types.json import JsonbDumper, set_json_dumps, set_json_loads
from psycopg_pool import AsyncConnectionPool

from service.core.errors import DatabaseUnavailable, Misconfigured, Overloaded, WritesRefused
from service.store.postgres.connection import heartbeat, sql_files
from service.store.postgres.connection.driver_errors import translated_errors
from service.store.postgres.connection.heartbeat import Query

SQL = sql_files.load("pool")

Connection = heartbeat.Connection
Values = Mapping[str, Any]
T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS = 3
LOCK_TIMEOUT_SECONDS = 5
ROWS_AT_ONCE = 100
"""Rows that become Python objects between two turns of the event loop: each may have kilobytes of JSON."""
IDLE_IN_TRANSACTION_SECONDS = 60
PREPARE_AFTER = 5
"""Executions of a statement on one connection, after which the server keeps its plan."""
_RECONNECT_SECONDS = 8.0
"""How long one attempt to replace a lost connection goes on; the next caller starts another. The pauses between tries
double, so a long attempt would notice the server's return late."""
_MARGIN_SECONDS = 3.0
"""How much later than by the server's time limit a statement is ended from here."""

_FILTERS_SHARE, _LARGE_FILTERS_SHARE = 2, 5
"""Filters of clients take one in so many connections of a pool, and at least one; of these, large filters."""
_FILTER_WAIT_SECONDS = 2.0
_LARGE_FILTER = 20
"""Lookups in each document beyond which a filter is large."""

_CONNECTION_DEFAULTS: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    # A network that swallows packets must not hold a request for the kernel's quarter of an hour.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,
}


class Pool(AsyncConnectionPool[Connection]):
    """A pool that recovers from a restart of the server without an extra round trip for each request.

    When a server goes away its sockets become readable. Each checkout looks at that (microseconds); the usual `check`
    would cost a round trip.
    """

    arguments: dict[str, Any]
    heartbeat: heartbeat.Heartbeat
    limit_seconds: float

    @cached_property
    def _filter_slots(self) -> tuple[asyncio.Semaphore, asyncio.Semaphore]:
        """For large filters, and for all."""
        large, all_ = (max(1, self.max_size // share) for share in (_LARGE_FILTERS_SHARE, _FILTERS_SHARE))
        return asyncio.Semaphore(large), asyncio.Semaphore(all_)

    async def getconn(self, timeout: float | None = None) -> Connection:  # noqa: ASYNC109 the parent's signature
        deadline = monotonic() + (self.timeout if timeout is None else timeout)
        await self.heartbeat.require_available()
        while True:
            connection = await super().getconn(max(0.001, deadline - monotonic()))
            connection.limit_seconds = self.limit_seconds
            try:
                if heartbeat.has_input(connection):  # the server has hung up, or sent a notice
                    await self.check_connection(connection)
                return connection
            except psycopg.Error:
                await connection.close()
                await self.putconn(connection)

    @asynccontextmanager
    async def connection(  # the parent's signature
        self,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> AsyncIterator[Connection]:
        """One connection in autocommit. Errors of the database leave as DatabaseUnavailable or TimedOut.

        Nothing is committed at the end; what a failure left open is rolled back as it returns to the pool. A search
        that reads a replica (`READ_POOL`) gets a connection to that.
        """
        pool = READ_POOL.get() or self
        with translated_errors():
            connection = await pool.getconn(timeout)
            try:
                yield connection
            finally:
                await pool.putconn(connection)

    @asynccontextmanager
    async def filtering(self, lookups: int) -> AsyncIterator[Connection]:
        """One connection for a statement with a client's filter, which makes so many lookups in each document.

        Such statements may read a whole collection, so they take only a share of the pool: requests without a filter
        still find a connection, and those with a small filter do beside large ones. Overloaded where none of the share
        becomes free soon. Without lookups it is any connection.
        """
        if not lookups:
            async with self.connection() as connection:
                yield connection
            return
        large, all_filters = self._filter_slots
        slots = [large, all_filters] if lookups > _LARGE_FILTER else [all_filters]
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_FILTER_WAIT_SECONDS):
                    for one in slots:
                        await stack.enter_async_context(one)
            except TimeoutError as error:
                raise Overloaded("too many searches with filters at once") from error
            yield await stack.enter_async_context(self.connection())

    @asynccontextmanager
    async def transaction(self, *, even_when_full: bool = False) -> AsyncIterator[Connection]:
        """One connection inside a transaction: committed at the end, rolled back by any exception.

        `even_when_full`: also while the server takes no writes because its disk is nearly full; for what frees space.
        """
        async with self.connection() as connection, connection.transaction():
            if even_when_full:
                try:
                    await connection.execute(SQL.allow_writes)
                except FeatureNotSupported as error:  # a standby
                    raise WritesRefused from error
            yield connection

    @asynccontextmanager
    async def dedicated(self) -> AsyncIterator[Connection]:
        """A new connection in autocommit, outside the pool and without its time limits: for long work."""
        await self.heartbeat.require_available()
        with translated_errors():
            async with await Connection.connect(**self.arguments, autocommit=True) as connection:
                self.heartbeat.watch(connection)
                yield connection

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 the parent's signature
        await self.heartbeat.stop()
        await super().close(timeout)

    async def execute(self, query: Query, values: Params | None = None) -> int:
        """Run one statement; returns the number of rows that it affected."""
        async with self.connection() as connection:
            return (await connection.execute(query, values)).rowcount

    async def fetch_one(self, query: Query, values: Params | None = None) -> TupleRow | None:
        async with self.connection() as connection:
            return await connection.fetch_one(query, values)

    async def fetch_all(
        self, query: Query, values: Params | None = None, *, prepare: bool | None = None, lookups: int = 0
    ) -> list[TupleRow]:
        """`prepare=False`: the server plans the statement for these very values each time. `lookups`: of a filter."""
        async with self.filtering(lookups) as connection:
            cursor = await connection.execute(query, values, prepare=prepare)
            rows = await cursor.fetchmany(ROWS_AT_ONCE)
            while len(rows) < cursor.rowcount:
                await asyncio.sleep(0)
                rows += await cursor.fetchmany(ROWS_AT_ONCE)
        return rows

    async def fetch_objects(self, kind: type[T], query: Query, values: Params | None = None) -> tuple[T, ...]:
        """Each row as a `kind`, whose fields are the names of the columns."""
        async with self.connection() as connection, connection.cursor(row_factory=class_row(kind)) as cursor:
            return tuple(await (await cursor.execute(query, values)).fetchall())


READ_POOL: ContextVar[Pool | None] = ContextVar("read_pool", default=None)
"""The replica that the search at hand reads, whatever pool its adapters have."""


class Adapter:
    """Base of the adapters, which all work on one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool


async def open_pool(
    url: str,
    *,
    size: int,
    statement_timeout_seconds: float,
    application_name: str,
    wait_seconds: float = 3.0,
    parallel: bool = True,
) -> Pool:
    """A pool of up to `size` connections; the first is made before it returns.

    `wait_seconds` is the longest that a request waits for a free connection. `parallel=False`: no statement uses
    parallel workers of the server. DatabaseUnavailable where the server does not answer.
    """

    async def configure(connection: Connection) -> None:
        """Set time limits, JSON by orjson and the types of pgvector (numpy arrays are `vector`, HalfVector is
        `halfvec`). Where the extension does not exist yet its types are left out."""
        beat.watch(connection)
        limits = {
            "statement_timeout": _milliseconds(statement_timeout_seconds),
            "lock_timeout": _milliseconds(min(LOCK_TIMEOUT_SECONDS, statement_timeout_seconds)),
            "idle_in_transaction_timeout": _milliseconds(IDLE_IN_TRANSACTION_SECONDS),
        }
        if not beat.pooled:  # else the session is not ours, and others would get these settings
            await connection.execute(SQL.session, limits)
        set_json_dumps(orjson.dumps, context=connection)
        set_json_loads(orjson.loads, context=connection)
        connection.adapters.register_dumper(dict, JsonbDumper)
        register = {"vector": register_vector_info, "halfvec": register_halfvec_info}
        for name, oid, array_oid in await connection.fetch_all(SQL.vector_types):
            register[name](connection, TypeInfo(name, oid, array_oid))
        if not parallel and not beat.pooled:
            await connection.execute(SQL.no_parallel_workers)

    async def connect_when_available() -> dict[str, Any]:
        await beat.available.wait()
        # A pooler gives each transaction another session, which does not know what was prepared in the last one.
        return {**arguments, "autocommit": True, "prepare_threshold": None if beat.pooled else PREPARE_AFTER}

    arguments = _arguments(url, application_name)
    beat = heartbeat.Heartbeat(arguments)
    pool = Pool(
        kwargs=connect_when_available,
        connection_class=Connection,
        min_size=min(2, size),
        max_size=size,
        timeout=wait_seconds,
        reconnect_timeout=_RECONNECT_SECONDS,
        configure=configure,
        name=application_name,
        open=False,
    )
    pool.arguments, pool.heartbeat = arguments, beat
    pool.limit_seconds = statement_timeout_seconds + _MARGIN_SECONDS
    with translated_errors():
        # The pool only logs why it cannot connect; this tells the caller the reason.
        await beat.start()
        await pool.open(wait=True, timeout=CONNECT_TIMEOUT_SECONDS * 2)
    return pool


@asynccontextmanager
async def connect(url: str, *, application_name: str) -> AsyncIterator[Connection]:
    """A single connection in autocommit and without time limits, for migrations. Errors leave as those of a pool."""
    with translated_errors():
        async with await Connection.connect(**_arguments(url, application_name), autocommit=True) as connection:
            yield connection


def _arguments(url: str, application_name: str) -> dict[str, Any]:
    """What the URL says takes precedence over our defaults. Misconfigured where it is not a URL; the message shows
    neither the URL nor the parser's own text, for both may hold a password."""
    try:
        parsed = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise Misconfigured("AZIMUTH_DATABASE_URL is not an address that PostgreSQL understands.") from None
    return {**_CONNECTION_DEFAULTS, "application_name": application_name, **parsed}


async def retrying(
    work: Callable[[], Awaitable[T]], *, tries: int = 5, pause: timedelta = timedelta(milliseconds=20)
) -> T:
    """The result of `work`, which is run again where the server rolled it back because of a concurrent transaction.

    `work` opens its own transaction, so that nothing of a failed try remains. The pause doubles and is random, so that
    two transactions that collided do not collide again.
    """
    for attempt in range(tries - 1):
        try:
            return await work()
        except DatabaseUnavailable as error:
            if not isinstance(error.__cause__, (DeadlockDetected, SerializationFailure)):
                raise
        await asyncio.sleep(pause.total_seconds() * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311 not a secret
    return await work()


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))
