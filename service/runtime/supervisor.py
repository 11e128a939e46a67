"""`azimuth up`: one machine, one command. PostgreSQL, an API and a worker, as processes that are kept alive.

The supervisor loads no model and answers no request: it starts what must run, starts again what died (also by
`kill -9`, also PostgreSQL), and stops all of it in order. Children notice by the end of their standard input that
the supervisor is gone, and stop too.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Protocol

from service.core.errors import Misconfigured, Unavailable

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
STOP_SECONDS = 25.0
"""What a child may take to finish what it has in hand."""
MISCONFIGURED = 2
"""Exit code of a command that cannot work until a setting or the surroundings change."""
CALM_SECONDS = 30.0
"""A child that lived this long is started again at once; one that dies sooner waits longer each time."""


class Database(Protocol):
    """The embedded server."""

    def alive(self) -> bool: ...
    def start(self) -> str: ...


class ManagedProcess:
    """One process that is kept alive."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self._arguments = arguments
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._started = 0.0
        self._deaths = 0
        self._due: float | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "service",
            *self._arguments,
            "--supervised",
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            # Ctrl-C in a terminal reaches the whole group: the supervisor alone shall hear it and stop in order.
            start_new_session=True,
        )
        self._started = time.monotonic()

    async def revive(self) -> None:
        """Start it again if it died, after a pause that grows while it keeps dying young. Returns at once.

        Misconfigured where it says that starting it again is of no use.
        """
        if self._process is None or self._process.returncode is None:
            return
        if self._process.returncode == MISCONFIGURED:
            raise Misconfigured(f"The {self.name} cannot run like this; its own words stand above.")
        if self._due is None:
            young = time.monotonic() - self._started < CALM_SECONDS
            self._deaths = self._deaths + 1 if young else 0
            pause = min(10.0, 0.25 * 2 ** (self._deaths - 1)) if young else 0.0
            self._due = time.monotonic() + pause
            log.warning("the %s ended with %s; starting it again", self.name, self._process.returncode)
        if time.monotonic() >= self._due:
            self._due = None
            await self.start()

    async def stop(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            log.warning("the %s did not stop in time and is killed", self.name)
            self._process.kill()
            await self._process.wait()


async def run(children: list[ManagedProcess], database: Database | None, stop: asyncio.Event) -> None:
    """Keep all of it alive until `stop` is set, then stop the children, last started first.

    Misconfigured where a child says by its exit code that only the operator can help.
    """
    try:
        for child in children:
            await child.start()
        while not stop.is_set():
            if database is not None:
                await _revive(database)
            for child in children:
                await child.revive()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
    finally:
        for child in reversed(children):
            await child.stop()


async def _revive(database: Database) -> None:
    """Start the database again if it is gone. Where that fails, the next look tries once more."""
    if await asyncio.to_thread(database.alive):
        return
    log.warning("the database is gone; starting it again")
    try:
        await asyncio.to_thread(database.start)
    except Unavailable as error:
        log.warning("the database did not start: %s", error.detail)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM, SIGINT and SIGHUP (the terminal is gone) set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


async def when_orphaned() -> None:
    """Return when standard input ends: for a supervised child, when its supervisor is gone."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb", closefd=False))
    while await reader.read(1024):
        pass
