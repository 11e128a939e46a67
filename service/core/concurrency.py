"""Coroutines that run concurrently."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

SHORT_BYTES = 2**20
_TURN_SECONDS, _MAX_PAUSE_SECONDS, _ALONE_PAUSE_SECONDS = 0.002, 0.02, 0.0002
_RELEASED_AT_ONCE = 500


class _OwnTime(threading.local):
    """Of a thread of `off_loop`: what it had computed, in seconds, when it last paused; None in all other threads."""

    at_pause: float | None = None

    def begin(self) -> None:
        self.at_pause = 0.0


class RequestsUnderWay:
    """How many the event loop works on, as a context manager for each of them."""

    count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


requests_under_way = RequestsUnderWay()
_own_time = _OwnTime()
_SHORT, _LONG = (ThreadPoolExecutor(1, name, initializer=_own_time.begin) for name in ("short", "long"))


async def off_loop(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `work` on so many bytes, in a thread: the event loop gets its turn every few milliseconds.

    Python runs one thread at a time, and more of them would only keep the loop from its turn. So there is one for short
    work (up to `SHORT_BYTES`), and one for long work, which short work need not wait for.
    """
    thread = _SHORT if size <= SHORT_BYTES else _LONG
    return await asyncio.get_running_loop().run_in_executor(thread, partial(work, *args, **kwargs))


def give_way() -> None:
    """A place in a loop where long work may pause: a thread of `off_loop` then computes half of the time at most,
    while there are other requests than the one that it works for. Otherwise it only leaves its core for a moment: where
    all cores are busy, the event loop else waits for it up to a tenth of a second.

    One search takes Python's lock anew a hundred times, so even the shortest turns of a thread that never pauses add
    up to several times what the search takes alone.
    """
    if _own_time.at_pause is None:
        return
    computed = time.thread_time() - _own_time.at_pause
    if computed > _TURN_SECONDS:
        time.sleep(min(computed, _MAX_PAUSE_SECONDS) if requests_under_way.count > 1 else _ALONE_PAUSE_SECONDS)
        _own_time.at_pause += computed


def release(elements: list[Any]) -> None:
    """Empty a long list, some elements at a time: Python's lock is held for as long as they take to free at once."""
    while elements:
        del elements[-_RELEASED_AT_ONCE:]
        give_way()


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, but no longer than this: whether it is.

    Not by `asyncio.wait_for`, which up to Python 3.11 may lose a cancellation that meets the event.
    """
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """The results of both. The first failure cancels the other one and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()


async def gather_limited(works: Sequence[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
    """The results of all, in order, `limit` of them at a time. The first failure cancels the others and is raised."""
    if len(works) == 1:
        return [await works[0]()]
    semaphore = asyncio.Semaphore(limit)

    async def run(work: Callable[[], Awaitable[T]]) -> T:
        async with semaphore:
            return await work()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(work)) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
