"""Coroutines that run side by side."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def gather_limited(works: Sequence[Callable[[], Awaitable[T]]], most: int) -> list[T]:
    """The results of all, in order, `most` of them at a time. The first that fails ends the others, and is raised."""
    if len(works) == 1:
        return [await works[0]()]
    free = asyncio.Semaphore(most)

    async def one(work: Callable[[], Awaitable[T]]) -> T:
        async with free:
            return await work()

    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one(work)) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in running]
