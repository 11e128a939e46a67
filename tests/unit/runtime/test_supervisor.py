"""The supervisor over real processes that do nothing but die in the ways that matter."""

import asyncio
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from service.core.errors import DatabaseUnavailable, Misconfigured
from service.runtime import supervisor
from tests.running import running, until

SECONDS = 20.0


class Script(supervisor.ManagedProcess):
    """A child that runs a few lines of Python instead of the service, and writes down each of its starts."""

    def __init__(self, name: str, folder: Path, code: str) -> None:
        super().__init__(name, [], dict(os.environ))
        self.starts = folder / f"{name}.starts"
        self._code = f"open({str(self.starts)!r}, 'a').write('x')\n{code}"

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", self._code, stdin=asyncio.subprocess.PIPE
        )
        self._started = time.monotonic()

    @property
    def started(self) -> int:
        return self.starts.stat().st_size if self.starts.exists() else 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


class Fragile:
    """A database that is gone, and whose start fails the first time."""

    def __init__(self) -> None:
        self.starts = 0

    def alive(self) -> bool:
        return self.starts >= 2

    def start(self) -> str:
        self.starts += 1
        if self.starts == 1:
            raise DatabaseUnavailable
        return "postgresql:///"


def steady(folder: Path) -> Script:
    return Script("steady", folder, "import time; time.sleep(60)")


async def test_a_dead_child_is_restarted_and_stopped_at_the_end(tmp_path: Path) -> None:
    child = steady(tmp_path)
    async with running(partial(supervisor.run, [child], None), SECONDS):
        await until(lambda: child.started == 1)
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: child.started == 2)
        last = child.pid
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


async def test_a_failed_start_of_the_database_is_repeated_beside_the_children(tmp_path: Path) -> None:
    child, database = steady(tmp_path), Fragile()
    async with running(partial(supervisor.run, [child], database), SECONDS):
        await until(lambda: database.starts == 2 and child.started == 1)


async def test_a_misconfigured_child_stops_all(tmp_path: Path) -> None:
    child, hopeless = steady(tmp_path), Script("hopeless", tmp_path, "raise SystemExit(2)")
    with pytest.raises(Misconfigured, match="hopeless"):
        await asyncio.wait_for(supervisor.run([child, hopeless], None, asyncio.Event()), SECONDS)
    assert hopeless.started == 1
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
