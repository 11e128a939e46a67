"""Which live query is probed next: one waits of each kind, and some recent ones are remembered.

Of each kind of search (collection, version, plan, band) one waits: a random one of all that came since the last probe
of that kind (reservoir sampling; Vitter, "Random sampling with a reservoir", ACM TOMS 1985), so that every search is as
likely to be probed as any other of its kind. Kinds take turns, so that a rare filter is measured too.

Where none waits, remembered queries are probed, each at most once in `REPEAT_SECONDS`: to probe the same few over and
over would only make their number look large.
"""

import itertools
import math
import random
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.search.query_log import QueryLog

T = TypeVar("T")

MAX_KINDS = 256
MAX_REMEMBERED = 128
"""Queries of one kind that are remembered."""
MEMORY_SECONDS = 5.0
"""Once there are `MAX_REMEMBERED`, at most one query of a kind is remembered in this time: they span ten minutes."""
REPEAT_SECONDS = 3_600.0
MAX_QUERY_BYTES = 64 * 2**10
"""One vector of 16,000 dimensions, or ten of 1,600. A larger query is not kept."""
MAX_BYTES = 16 * 2**20
"""Of all queries together."""


@dataclass(slots=True)
class LoggedQuery(Generic[T]):
    """A query of the kind `key`, about `size` bytes large. Times are on the monotonic clock."""

    key: Hashable
    query: T
    size: int
    asked_at: float
    probed_at: float = -math.inf


@dataclass(slots=True)
class KindSample(Generic[T]):
    """The queries of one kind. `arrivals`: those that came since the last probe, of which `waiting` is one."""

    remembered: deque[LoggedQuery[T]] = field(default_factory=deque)
    waiting: LoggedQuery[T] | None = None
    arrivals: int = 0
    probed_at: float = -math.inf
    remembered_at: float = -math.inf
    bytes: int = 0

    def add(self, query: LoggedQuery[T], now: float, rng: random.Random) -> None:
        self.arrivals += 1
        if rng.random() * self.arrivals < 1.0:
            self._replace_waiting(query)
        if len(self.remembered) < MAX_REMEMBERED or now >= self.remembered_at + MEMORY_SECONDS:
            self.remembered.append(query)
            self.remembered_at = now
            self.bytes += query.size
            if len(self.remembered) > MAX_REMEMBERED:
                self.bytes -= self.remembered.popleft().size

    def mark_probed(self, query: LoggedQuery[T], now: float) -> LoggedQuery[T]:
        if query is self.waiting:
            self._replace_waiting(None)
        self.arrivals, self.probed_at, query.probed_at = 0, now, now
        return query

    def _replace_waiting(self, query: LoggedQuery[T] | None) -> None:
        self.bytes += (0 if query is None else query.size) - (0 if self.waiting is None else self.waiting.size)
        self.waiting = query


class ProbeQueue(QueryLog[Hashable, KindSample[T]]):
    """The sampled queries of all kinds."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(KindSample, max_keys=MAX_KINDS, max_bytes=MAX_BYTES, size_of=lambda kind: kind.bytes)
        self._rng = rng

    def add(self, key: Hashable, query: T, size: int, now: float) -> None:
        """Offer a query of the kind `key`, which takes about `size` bytes."""
        if size <= MAX_QUERY_BYTES:
            logged = LoggedQuery(key=key, query=query, size=size, asked_at=now)
            self.touch(key).add(logged, now, self._rng)
            self.trim()

    def next_query(self, now: float) -> LoggedQuery[T] | None:
        """The query to probe now, which counts as probed; None where there is none."""
        kinds = sorted(self.values(), key=lambda kind: kind.probed_at)
        waiting = ((kind, kind.waiting) for kind in kinds if kind.waiting is not None)
        due = ((kind, one) for kind in kinds for one in kind.remembered if now >= one.probed_at + REPEAT_SECONDS)
        kind, query = next(itertools.chain(waiting, due), (None, None))
        return None if kind is None or query is None else kind.mark_probed(query, now)
