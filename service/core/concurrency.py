"""Coroutines that run concurrently."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

SHORT_BYTES = 2**20
_SHORT, _LONG = ThreadPoolExecutor(1, "short"), ThreadPoolExecutor(1, "long")


async def off_loop(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `work` on so many bytes, in a thread: the event loop gets its turn every few milliseconds.

    Python runs one thread at a time, and more of them would only keep the loop from its turn. So there is one for short
    work (up to `SHORT_BYTES`), and one for long work, which short work need not wait for.
    """
    thread = _SHORT if size <= SHORT_BYTES else _LONG
    return await asyncio.get_running_loop().run_in_executor(thread, partial(work, *args, **kwargs))


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
