"""Live searches that wait to be looked at again, and some of late that are remembered: bounded in number and bytes.

Of each kind of search (collection, version, plan, band) one waits: a random one of all that came since the last look at
that kind (reservoir sampling; Vitter, "Random sampling with a reservoir", ACM TOMS 1985), so that every search is as
likely to be looked at as any other of its kind. Kinds take turns, so that a rare filter is measured too.

Where nothing waits, remembered searches are looked at in their place, each at most once in `AGAIN_SECONDS`: to look at
the same few over and over would only make their number look large.
"""

import math
import random
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

KINDS = 256
"""Kinds of searches that are known: those seen last."""
REMEMBERED = 128
"""Searches of one kind that are remembered."""
MEMORY_SECONDS = 5.0
"""Of a kind at most one search in so many seconds is remembered once there are `REMEMBERED`: they span ten minutes."""
AGAIN_SECONDS = 3_600.0
LARGEST_BYTES = 64 * 2**10
"""Of one search: one vector of 16,000 dimensions, or ten of 1,600. What is larger is not kept."""
MOST_BYTES = 16 * 2**20
"""Of all searches together."""


@dataclass(slots=True)
class LoggedQuery(Generic[T]):
    """`key`: its kind; `at`: when it came, on the monotonic clock; `looked`: when it was looked at, if it was."""

    key: Hashable
    what: T
    size: int
    at: float
    looked: float | None = None


@dataclass(slots=True)
class QueryKind(Generic[T]):
    """`came`: searches since the last look, of which `waiting` is one."""

    memory: deque[LoggedQuery[T]] = field(default_factory=deque)
    waiting: LoggedQuery[T] | None = None
    came: int = 0
    looked: float = -math.inf
    remembered_at: float = -math.inf


class QueryLog(Generic[T]):
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._kinds: OrderedDict[Hashable, QueryKind[T]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        """Searches that are remembered; each kind may hold one more that waits."""
        return sum(len(kind.memory) for kind in self._kinds.values())

    def add(self, key: Hashable, what: T, size: int, now: float) -> None:
        """A search of the kind `key`, which takes about `size` bytes."""
        if size > LARGEST_BYTES:
            return
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = QueryKind()
        self._kinds.move_to_end(key)
        kept = LoggedQuery(key=key, what=what, size=size, at=now)
        kind.came += 1
        if self._chance.random() * kind.came < 1.0:
            self._wait(kind, kept)
        if len(kind.memory) < REMEMBERED or now >= kind.remembered_at + MEMORY_SECONDS:
            self._remember(kind, kept, now)
        while self._kinds and (len(self._kinds) > KINDS or self.bytes > MOST_BYTES):
            self._drop(next(iter(self._kinds)))

    def next(self, now: float) -> LoggedQuery[T] | None:
        """What to look at now, which is taken as looked at; None where there is nothing."""
        turns = sorted(self._kinds.values(), key=lambda kind: kind.looked)
        for kind in turns:
            if (waiting := kind.waiting) is not None:
                self._wait(kind, None)
                return self._looked(kind, waiting, now)
        for kind in turns:
            for kept in kind.memory:
                if kept.looked is None or now >= kept.looked + AGAIN_SECONDS:
                    return self._looked(kind, kept, now)
        return None

    def forget(self, key: Hashable) -> None:
        """All searches of a kind."""
        if key in self._kinds:
            self._drop(key)

    def _looked(self, kind: QueryKind[T], kept: LoggedQuery[T], now: float) -> LoggedQuery[T]:
        kind.came, kind.looked, kept.looked = 0, now, now
        return kept

    def _wait(self, kind: QueryKind[T], kept: LoggedQuery[T] | None) -> None:
        self.bytes += (0 if kept is None else kept.size) - (0 if kind.waiting is None else kind.waiting.size)
        kind.waiting = kept

    def _remember(self, kind: QueryKind[T], kept: LoggedQuery[T], now: float) -> None:
        kind.memory.append(kept)
        kind.remembered_at = now
        self.bytes += kept.size
        if len(kind.memory) > REMEMBERED:
            self.bytes -= kind.memory.popleft().size

    def _drop(self, key: Hashable) -> None:
        kind = self._kinds.pop(key)
        self._wait(kind, None)
        self.bytes -= sum(kept.size for kept in kind.memory)
