"""Coroutines that run concurrently."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


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
