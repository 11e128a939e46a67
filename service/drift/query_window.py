"""The live queries that drift compares: the latest ones, and a sample of those before, for each version.

latest    the newest queries, half of all until there are `SAMPLE_SIZE`. Where many come, as many of them as make it
          span some minutes, so that a burst of one client does not fill it
earlier   a sample of those that were the latest once, spread as evenly as possible over the last day (a reservoir over
          time; Vitter, "Random sampling with a reservoir", ACM TOMS 1985, with time in place of counts)

A query is its vector at half precision, its scores, and its text until its words were looked up. Single queries of the
active version count. The scores of filtered ones are left out, because they tell only of what passes the filter.
"""

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.ids import CollectionId, VersionNumber
from service.core.query_syntax import Syntax
from service.search.events import SearchEvent
from service.search.query_log import QueryLog

SAMPLE_SIZE = 500
"""Queries of each sample. With 384 dimensions a collection takes about a megabyte and a half."""
MIN_LATEST = 50
"""Latest queries before the first of them becomes an earlier one."""
DAY = 86_400.0
MAX_COLLECTIONS = 32
MAX_TEXT_LENGTH = 2_000
"""Code points of a query whose words are looked up."""

Key = tuple[CollectionId, VersionNumber]


@dataclass(kw_only=True, slots=True)
class WindowedQuery:
    """One live query. `cosine`: of its best hit, None under a filter. `in_domain`: None where unknown.
    `words`: how many of its words no document has, and how many it has; None until they were looked up."""

    vector: npt.NDArray[np.float16]
    cosine: float | None
    in_domain: float | None
    text: str
    syntax: Syntax
    words: tuple[int, int] | None = None


class QueryWindow:
    """The two samples of one version. `seen`: all queries. `seconds`: what `latest` spans where many queries come."""

    def __init__(self, seconds: float, rng: random.Random) -> None:
        self._pause = seconds / SAMPLE_SIZE
        self._rng = rng
        self.latest: deque[WindowedQuery] = deque()
        self.earlier: list[WindowedQuery] = []
        self.seen = 0
        self._added_at = 0.0
        self._first_moved_at: float | None = None
        self._moved_at = 0.0
        self._credit = 0.0

    def wants(self, now: float) -> bool:
        """Count a query, and tell whether it is to be added."""
        self.seen += 1
        return len(self.latest) < SAMPLE_SIZE or now >= self._added_at + self._pause

    def add(self, query: WindowedQuery, now: float) -> None:
        self._added_at = now
        self.latest.append(query)
        if len(self.latest) > min(SAMPLE_SIZE, max(MIN_LATEST, (len(self.latest) + len(self.earlier)) // 2)):
            self._move_to_earlier(self.latest.popleft(), now)

    def _move_to_earlier(self, query: WindowedQuery, now: float) -> None:
        """Every part of the time since the first move, or of the last day, gets about the same share of the sample."""
        query.text = ""  # its words are looked up while it is one of the latest
        if self._first_moved_at is None:
            self._first_moved_at = self._moved_at = now
        if len(self.earlier) < SAMPLE_SIZE:
            self.earlier.append(query)
        else:
            span = max(now - self._first_moved_at, self._pause)
            self._credit += SAMPLE_SIZE * (now - self._moved_at) / min(DAY, span)
            if self._credit >= 1.0:
                self._credit = 0.0
                self.earlier[self._rng.randrange(SAMPLE_SIZE)] = query
        self._moved_at = now


class QueryWindows(QueryLog[Key, QueryWindow]):
    """An observer of live searches. `seconds`: as for `QueryWindow`."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        rng = random.Random(0)  # noqa: S311  no secret
        super().__init__(lambda: QueryWindow(seconds, rng), max_keys=MAX_COLLECTIONS)
        self._clock = clock

    def on_search(self, observed: SearchEvent) -> None:
        collection, number, request = observed.space.collection, observed.space.version.number, observed.request
        if number != collection.active_version or len(request.effective_queries) != 1 or request.like or request.image:
            return
        (vector,), (query,), now = observed.vectors, request.effective_queries, self._clock()
        if vector is not None and (window := self.touch((collection.id, number))).wants(now):
            filtered = observed.filter_match is not None
            window.add(
                WindowedQuery(
                    vector=vector.astype(np.float16),
                    cosine=None if filtered else observed.best_cosine,
                    in_domain=None if filtered else observed.confidence.in_domain,
                    text=query.text[:MAX_TEXT_LENGTH],
                    syntax=request.syntax,
                ),
                now,
            )
