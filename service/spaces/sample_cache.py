"""A cache of what was computed from a sample of a space or a collection."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

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

    Of more than `capacity` keys those that were computed last are kept. Concurrent callers share one computation.
    """

    def __init__(
        self, *, seconds: float, capacity: int, growth: float = math.inf, clock: Callable[[], float] | None = None
    ) -> None:
        self.seconds = seconds
        self._growth = growth
        self._clock = clock or (lambda: time.monotonic())
        self._entries: LruDict[K, CachedSample[V]] = LruDict(capacity)
        self._locks: WeakValueDictionary[K, asyncio.Lock] = WeakValueDictionary()

    def entry(self, key: K) -> CachedSample[V] | None:
        """What was computed last, however old it is."""
        return self._entries.get(key)

    def get(self, key: K, rows: int = 0) -> V | None:
        """The value, or None where it is missing or outdated. `rows`: how many there are now."""
        entry = self._entries.get(key)
        if entry is None or self._clock() >= entry.computed_at + self.seconds:
            return None
        return entry.value if similar_size(entry.rows, rows, self._growth) else None

    def put(self, key: K, value: V, rows: int = 0) -> V:
        self._entries[key] = CachedSample(value=value, rows=rows, computed_at=self._clock())
        return value

    async def get_or_compute(self, key: K, compute: Callable[[], Awaitable[V]], rows: int = 0) -> V:
        """The value, computed where it is missing or outdated. A failure is raised, and leaves the entry as it was."""
        if (value := self.get(key, rows)) is not None:
            return value
        async with self._locks.setdefault(key, asyncio.Lock()):
            value = self.get(key, rows)  # another caller may have computed it meanwhile
            return self.put(key, await compute(), rows) if value is None else value

    def forget(self, key: K) -> None:
        self._entries.pop(key, None)


def similar_size(before: int, now: int, factor: float) -> bool:
    """Whether a size has neither grown nor shrunk by this factor."""
    return now == before or before / factor < now < before * factor
