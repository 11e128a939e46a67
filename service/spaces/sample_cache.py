"""A cache of what was computed from a sample of a space or a collection."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.core.lru import LruDict

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedSample(Generic[V]):
    """`rows`: the size of what was sampled. `computed_at`: in seconds, by the clock of the cache."""

    value: V
    rows: int
    computed_at: float


class SampleCache(Generic[K, V]):
    """Remembers values for `seconds`, or until the number of rows has grown or shrunk by the factor `growth`.

    Of more than `capacity` keys those that were computed last are kept. Concurrent callers share one computation, which
    goes on where some or all of them leave: the next one needs it, too. Outdated values are there for
    `outdated_seconds` more, by default for as long again.
    """

    def __init__(
        self,
        *,
        seconds: float,
        capacity: int,
        growth: float = math.inf,
        outdated_seconds: float | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.seconds = seconds
        self._kept_seconds = seconds + (seconds if outdated_seconds is None else outdated_seconds)
        self._growth = growth
        self._clock = clock or (lambda: time.monotonic())
        self._entries: LruDict[K, CachedSample[V]] = LruDict(capacity)
        self._computing: dict[K, asyncio.Future[V]] = {}

    def entry(self, key: K) -> CachedSample[V] | None:
        """What was computed last, also where it is outdated."""
        return self._entries.get(key)

    def get(self, key: K, rows: int = 0) -> V | None:
        """The value, or None where it is missing or outdated. `rows`: how many there are now."""
        entry = self._entries.get(key)
        if entry is None or self._clock() >= entry.computed_at + self.seconds:
            return None
        return entry.value if similar_size(entry.rows, rows, self._growth) else None

    def put(self, key: K, value: V, rows: int = 0) -> V:
        long_ago = self._clock() - self._kept_seconds
        while self._entries and self._entries[oldest := next(iter(self._entries))].computed_at <= long_ago:
            del self._entries[oldest]
        self._entries[key] = CachedSample(value=value, rows=rows, computed_at=self._clock())
        return value

    async def get_or_compute(self, key: K, compute: Callable[[], Awaitable[V]], rows: int = 0) -> V:
        """The value, computed where it is missing or outdated. A failure is raised, and leaves the entry as it was."""
        if (value := self.get(key, rows)) is not None:
            return value
        task = self._computing.get(key)
        if task is None:
            task = self._computing[key] = asyncio.ensure_future(compute())
            task.add_done_callback(lambda done: self._finished(key, done, rows))
        return await asyncio.shield(task)

    def _finished(self, key: K, task: asyncio.Future[V], rows: int) -> None:
        succeeded = not task.cancelled() and task.exception() is None  # retrieved: all that waited may have left
        if self._computing.get(key) is task:
            del self._computing[key]
            if succeeded:
                self.put(key, task.result(), rows)

    def forget(self, key: K) -> None:
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything, also what is being computed now."""
        self._entries.clear()
        self._computing = {}

    def __len__(self) -> int:
        return len(self._entries)


def similar_size(before: int, now: int, factor: float) -> bool:
    """Whether a size has neither grown nor shrunk by this factor."""
    return now == before or before / factor < now < before * factor
