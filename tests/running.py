"""Work in the background of a test: run it until the block ends, wait until something is true."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def running(run: Callable[[asyncio.Event], Awaitable[None]], seconds: float = 5.0) -> AsyncIterator[None]:
    """Run it for as long as the block lasts; it has to end soon after it was told to."""
    stop = asyncio.Event()
    task = asyncio.ensure_future(run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, seconds)


@contextmanager
def process(
    command: Sequence[str], log_file: Path, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that runs, and writes to `log_file`, for as long as the block lasts."""
    with log_file.open("wb") as log:
        started = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_for(condition: Callable[[], T | None], what: str | Callable[[], object], seconds: float = 120.0) -> T:
    """The first true value. `what` is told where there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not in {seconds} s: {what() if callable(what) else what}"
        time.sleep(0.05)
    return value


async def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.002)
