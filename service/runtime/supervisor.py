"""`azimuth up`: one machine, one command. PostgreSQL, an API and a worker, as processes that are kept alive.

The supervisor loads no model and answers no request: it starts the processes, restarts those that died (also by
`kill -9`, also PostgreSQL), and stops them in order. Children stop when their standard input ends, which tells them
that the supervisor is gone.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Protocol

from service.core.concurrency import set_within
from service.core.errors import Misconfigured, Unavailable

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
STOP_SECONDS = 25.0
"""Time that a child has to finish its work."""
MISCONFIGURED = 2
"""Exit code of a command that cannot work before a setting or its environment is changed."""
STABLE_SECONDS = 30.0
"""A child that ran this long is restarted at once; one that dies sooner is restarted later each time."""


class Database(Protocol):
    """The embedded server."""

    def alive(self) -> bool: ...
    def start(self) -> str: ...


@dataclass(eq=False)
class ManagedProcess:
    """A command of `azimuth` in a process of its own, restarted when it dies."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    stop_seconds: float = STOP_SECONDS
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _started: float = field(default=0.0, init=False)
    _early_deaths: int = field(default=0, init=False)
    _restart_at: float | None = field(default=None, init=False)

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "service",
            *self.arguments,
            "--supervised",
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            # Ctrl-C in a terminal signals the whole group; only the supervisor is to receive it, and stops in order.
            start_new_session=True,
        )
        self._started = time.monotonic()

    async def restart_if_dead(self) -> None:
        """Restart the process if it died and its pause is over. The pause doubles while it keeps dying early.

        Misconfigured where its exit code says that a restart is of no use.
        """
        if self._process is None or self._process.returncode is None:
            return
        if self._process.returncode == MISCONFIGURED:
            raise Misconfigured(f"The {self.name} cannot run with these settings; see its messages above.")
        if self._restart_at is None:
            died_early = time.monotonic() - self._started < STABLE_SECONDS
            self._early_deaths = self._early_deaths + 1 if died_early else 0
            pause = min(10.0, 0.25 * 2 ** (self._early_deaths - 1)) if died_early else 0.0
            self._restart_at = time.monotonic() + pause
            log.warning("the %s ended with exit code %s; it is restarted", self.name, self._process.returncode)
        if time.monotonic() >= self._restart_at:
            self._restart_at = None
            await self.start()

    async def stop(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), self.stop_seconds)
        except TimeoutError:
            log.warning("the %s did not stop in time; it is killed", self.name)
            self._process.kill()
            await self._process.wait()


async def run(children: list[ManagedProcess], database: Database | None, stop: asyncio.Event) -> None:
    """Keep all processes alive until `stop` is set, then stop the children, last started first.

    Misconfigured where the exit code of a child says that a restart is of no use.
    """
    try:
        for child in children:
            await child.start()
        while not stop.is_set():
            if database is not None:
                await _restart_if_dead(database)
            for child in children:
                await child.restart_if_dead()
            await set_within(stop, POLL_SECONDS)
    finally:
        for child in reversed(children):
            await child.stop()


async def _restart_if_dead(database: Database) -> None:
    """Where the restart fails, the next call tries again."""
    if await asyncio.to_thread(database.alive):
        return
    log.warning("the database is not running; it is restarted")
    try:
        await asyncio.to_thread(database.start)
    except Unavailable as error:
        log.warning("the database did not start: %s", error.detail)


def stop_on_signals() -> asyncio.Event:
    """An event that is set by SIGTERM, SIGINT and SIGHUP (the terminal was closed)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


async def wait_for_parent_exit() -> None:
    """Return when standard input ends, which it does when the supervisor of this process exits."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb", closefd=False))
    while await reader.read(1024):
        pass
