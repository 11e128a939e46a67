"""A mapping whose entries are forgotten after a time, also those that nobody asks for again."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class ExpiringDict(Generic[K, V]):
    """Holds what was put in the last seconds. Expired entries are removed when another one is put."""

    def __init__(self) -> None:
        self._entries: dict[K, tuple[float, V]] = {}  # the first to expire first

    def get(self, key: K) -> V | None:
        until, value = self._entries.get(key, (0.0, None))
        return value if time.monotonic() < until else None

    def put(self, key: K, value: V, seconds: float) -> None:
        """`seconds`: the same for all entries."""
        now = time.monotonic()
        self._entries.pop(key, None)
        while self._entries and self._entries[first := next(iter(self._entries))][0] <= now:
            del self._entries[first]
        self._entries[key] = (now + seconds, value)

    def forget(self, matches: Callable[[K], bool]) -> None:
        for key in [key for key in self._entries if matches(key)]:
            del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)
