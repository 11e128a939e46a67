"""Whether the server answers: found out once for all calls of a pool, each of which has a deadline by that.

A server that hangs, or a network that swallows packets, breaks no connection, and no limit that the server keeps ends a
call then. One connection beside the pool asks twice a second, and a new one where that is silent, for one session may
hang alone. Where neither gets an answer, all calls are ended and new ones fail at once, until an answer comes (a
circuit breaker: Nygard, "Release It!", 2007, chapter 5).

The connection stays open, so it also holds the advisory locks of the process.
"""

import asyncio
import logging
import os
import select
import socket
from contextlib import suppress
from time import monotonic
from typing import Any, LiteralString
from weakref import WeakSet

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.abc import Params, PQGen
from psycopg.rows import TupleRow

from service.core.concurrency import set_within
from service.core.errors import DatabaseUnavailable
from service.core.periodic import repeat_every
from service.store.postgres.connection import sql_files

log = logging.getLogger(__name__)

SQL = sql_files.load("heartbeat")
Query = LiteralString | bytes | sql.Composed

PAUSE_SECONDS = 0.5
ANSWER_SECONDS, CONNECT_SECONDS, RECONNECT_SECONDS = 0.8, 1.0, 2.0
"""For one question, for a new connection and the question, and for both while the server counts as unavailable. With
the pause a silent server is known after 2.3 seconds, or a little later where this process is busy."""
SILENCE_SECONDS = 2.0
"""Without an answer for so long, the server counts as unavailable; a restart is often shorter and is waited for."""
_SUSPECT_SECONDS = 2.0
"""After so long the server is asked whether it works for a call at all."""
_SLICE_SECONDS = 0.1


class Connection(AsyncConnection[TupleRow]):
    """A connection whose calls can be ended from outside."""

    limit_seconds = float("inf")
    """The longest wait for one answer: what the server's own time limit allows, and the way there and back."""
    waiting_since: float | None = None

    async def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        self.waiting_since = monotonic()
        try:
            return await super().wait(gen, interval, timeout)
        finally:
            self.waiting_since = None

    async def fetch_one(self, query: Query, values: Params | None = None) -> TupleRow | None:
        return await (await self.execute(query, values)).fetchone()

    async def fetch_all(
        self, query: Query, values: Params | None = None, *, prepare: bool | None = None
    ) -> list[TupleRow]:
        return await (await self.execute(query, values, prepare=prepare)).fetchall()

    async def lift_time_limit(self) -> None:
        """For the current transaction: it takes time in proportion to what there is."""
        await self.execute(SQL.no_time_limit)
        self.limit_seconds = float("inf")

    async def cancel_safe(self, *, timeout: float = ANSWER_SECONDS) -> None:  # noqa: ASYNC109 the parent's signature
        await super().cancel_safe(timeout=min(timeout, ANSWER_SECONDS))

    def waited(self) -> float:
        """Seconds that a call has waited for the server, 0 where none does or its answer is there to be read."""
        if self.waiting_since is None or self.closed or has_input(self):
            return 0.0
        return monotonic() - self.waiting_since

    def cut(self) -> None:
        """End it at the socket, which ends a call that waits; the pool then sees that it is of no use."""
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.fileno())) as own:
            own.shutdown(socket.SHUT_RDWR)


class Heartbeat:
    """Asks the server of one pool, and ends the calls that get no answer."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._arguments = arguments
        self._connection: Connection | None = None
        self._watched: WeakSet[Connection] = WeakSet()
        self._left_behind: set[int] = set()
        """Sessions whose connections were cut. They may still hold locks, for the server does not know."""
        self._answered_at = monotonic()
        self._refused = False
        """Whether the last question was answered by an error, and not by silence."""
        self._task: asyncio.Task[None] | None = None
        self._asking = asyncio.Lock()
        self.locks: set[str] = set()
        """The advisory locks of this process: for the server all its tasks are one session."""
        self.available = asyncio.Event()
        self.pooled = False
        """Whether a pooler such as PgBouncer stands before the server: a session may end with each transaction."""

    async def start(self) -> None:
        """Raises the driver's error where the server cannot be connected to."""
        await self._ask()
        if self._connection is not None:
            self.pooled = await self._connection.fetch_one(SQL.session) != (self._connection.info.backend_pid,)
        self.available.set()
        self._task = asyncio.create_task(repeat_every("database", PAUSE_SECONDS, self._beat))

    async def stop(self) -> None:
        self.available.set()  # nothing waits for it any more
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._connection is not None:
            await self._connection.close()

    def watch(self, connection: Connection) -> None:
        self._watched.add(connection)

    async def require_available(self) -> None:
        """DatabaseUnavailable: at once while the server is silent, after a moment where it refuses connections, which
        it also does at the end of a restart."""
        if not self.available.is_set() and self._refused:
            await set_within(self.available, 2 * PAUSE_SECONDS)
        if not self.available.is_set():
            seconds = monotonic() - self._answered_at
            raise DatabaseUnavailable(f"The database has not answered for {seconds:.0f} seconds.")

    async def connection(self) -> Connection:
        """The one that stays open, for short statements. DatabaseUnavailable where there is none at present."""
        await self.require_available()
        if self._connection is None or has_input(self._connection):  # it broke since the last question
            await asyncio.shield(asyncio.create_task(self._is_answered()))
        if self._connection is None:
            raise DatabaseUnavailable
        return self._connection

    async def _beat(self) -> None:
        if await self._is_answered():
            self._answered_at = monotonic()
            if not self.available.is_set():
                log.warning("the database answers again")
                self.available.set()
        elif self.available.is_set() and monotonic() - self._answered_at > SILENCE_SECONDS:
            log.error("the database does not answer; calls fail until it does")
            self.available.clear()
            for connection in list(self._watched):
                self._cut(connection)

    async def _is_answered(self) -> bool:
        """Ask on the connection, and then on a new one."""
        async with self._asking:
            anew = CONNECT_SECONDS if self.available.is_set() else RECONNECT_SECONDS
            return await self._answers(ANSWER_SECONDS if self._connection else anew) or await self._answers(anew)

    async def _answers(self, seconds: float) -> bool:
        """Whether the server answers in this time, and if not, without the connection that it did not answer on.

        The time is counted in slices: while this process itself is too busy to read an answer, the server is not blamed
        for it.
        """
        task = asyncio.create_task(self._ask())
        try:
            for _ in range(round(seconds / _SLICE_SECONDS)):
                await asyncio.wait([task], timeout=_SLICE_SECONDS)
        finally:
            silent = not task.done()
            if silent and self._connection is not None:
                self._connection.cut()
            elif silent:
                task.cancel()
            await asyncio.wait([task])
            # Asked for here: where this call is cancelled, too, asyncio would log an error that nobody asked for.
            failed = task.cancelled() or task.exception() is not None
        if not failed:
            return True
        self._refused = not silent
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
        return False

    async def _ask(self) -> None:
        if self._connection is None:
            self._connection = await Connection.connect(**self._arguments, autocommit=True)
        waited = {one.info.backend_pid: one for one in list(self._watched) if one.waited() > _SUSPECT_SECONDS}
        left_behind = set(self._left_behind)
        idle = {pid for pid, _ in await self._connection.fetch_all(SQL.ask, {"pids": [*waited, *left_behind]})}
        self._left_behind -= left_behind
        for pid, connection in waited.items():
            waited_for = connection.waited()
            if waited_for > connection.limit_seconds or (waited_for and pid in idle):
                log.warning("the answer of the database to one call is lost", extra={"seconds": round(waited_for, 1)})
                self._cut(connection)

    def _cut(self, connection: Connection) -> None:
        if not connection.closed:
            self._left_behind.add(connection.info.backend_pid)
            connection.cut()


def has_input(connection: AsyncConnection[Any]) -> bool:
    """Whether there is something to read: an answer, a notice, or the end of the connection."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
