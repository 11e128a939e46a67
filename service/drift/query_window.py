"""What clients ask of late, and what they asked before: two bounded samples of each collection's live queries.

latest    the newest queries, half of all until there are `SIZE`. Where many come, as many of them as make it span
          some minutes: a burst of one client must not be all that is seen
earlier   a sample of those that were the latest once, as evenly spread as can be over the last day (a reservoir over
          time; Vitter, "Random sampling with a reservoir", ACM TOMS 1985, with time in the place of counts)

In memory, of this process alone, and gone when it ends. A query is its vector at half precision, its scores, and its
text until its words were looked up. Queries of the active version that ask one question count; of what is filtered
scores say nothing, for they speak of what passes.
"""

import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.ids import CollectionId, VersionNumber
from service.core.query_syntax import Syntax
from service.search.events import SearchEvent

SIZE = 500
"""Queries of each sample. With 384 dimensions a collection takes about a megabyte and a half."""
LEAST = 50
"""Queries of the latest before the first of them is counted as an earlier one."""
DAY = 86_400.0
COLLECTIONS = 32
"""Whose queries are kept: those asked last."""
LONGEST = 2_000
"""Code points of a query whose words are looked up."""

Key = tuple[CollectionId, VersionNumber]


@dataclass(kw_only=True, slots=True)
class WindowedQuery:
    """One live query. `vector`: half precision. `cosine`: of its best find; None under a filter.

    `in_domain`: None where it cannot be told. `words`: how many of its words no document says, and how many it has;
    None until they were looked up.
    """

    vector: npt.NDArray[np.float16]
    cosine: float | None
    in_domain: float | None
    text: str
    syntax: Syntax
    words: tuple[int, int] | None = None


class QueryWindow:
    """The two samples of one version. `seconds`: what the latest sample spans at least, where many queries come."""

    def __init__(self, seconds: float, chance: random.Random) -> None:
        self._pause = seconds / SIZE
        self._chance = chance
        self.latest: deque[WindowedQuery] = deque()
        self.earlier: list[WindowedQuery] = []
        self.seen = 0
        """All queries that there were."""
        self._taken: float | None = None
        self._began: float | None = None
        self._left = 0.0
        self._credit = 0.0

    def wants(self, now: float) -> bool:
        """Count a query, and say whether it is one for the sample."""
        self.seen += 1
        return len(self.latest) < SIZE or self._taken is None or now >= self._taken + self._pause

    def add(self, asked: WindowedQuery, now: float) -> None:
        """`now`: in seconds, of any clock that does not go back."""
        self._taken = now
        self.latest.append(asked)
        while len(self.latest) > self._most():
            self._leave(self.latest.popleft(), now)

    def _most(self) -> int:
        return min(SIZE, max(LEAST, (len(self.latest) + len(self.earlier)) // 2))

    def _leave(self, asked: WindowedQuery, now: float) -> None:
        """Of the time since the first one left, or of the last day, every part has about the same share."""
        asked.text = ""  # its words are looked up while it is one of the latest
        if self._began is None:
            self._began = self._left = now
        if len(self.earlier) < SIZE:
            self.earlier.append(asked)
        else:
            span = max(now - self._began, self._pause)
            self._credit = min(1.0, self._credit + SIZE * (now - self._left) / min(DAY, span))
            if self._credit >= 1.0:
                self._credit = 0.0
                self.earlier[self._chance.randrange(SIZE)] = asked
        self._left = now


class QueryWindows:
    """An observer of live searches. `seconds`: as for `Window`."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._chance = random.Random(0)  # noqa: S311  no secret
        self._windows: OrderedDict[Key, QueryWindow] = OrderedDict()

    def on_search(self, observed: SearchEvent) -> None:
        space, request = observed.space, observed.request
        if (
            space.version.number != space.collection.active_version
            or len(request.effective_queries) != 1
            or request.like
        ):
            return
        (vector,) = observed.vectors
        if vector is None:
            return
        key = (space.collection.id, space.version.number)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = QueryWindow(self._seconds, self._chance)
        self._windows.move_to_end(key)
        if len(self._windows) > COLLECTIONS:
            self._windows.popitem(last=False)
        now = self._clock()
        if window.wants(now):
            filtered = observed.filter_match is not None
            (query,) = request.effective_queries
            asked = WindowedQuery(
                vector=vector.astype(np.float16),
                cosine=None if filtered else observed.best_cosine,
                in_domain=None if filtered else observed.confidence.in_domain,
                text=query.text[:LONGEST],
                syntax=request.syntax,
            )
            window.add(asked, now)

    def of(self, key: Key) -> QueryWindow | None:
        return self._windows.get(key)

    def __iter__(self) -> Iterator[tuple[Key, QueryWindow]]:
        """As they are now: it may change while somebody goes through them."""
        return iter(tuple(self._windows.items()))

    def forget(self, key: Key) -> None:
        """The collection is gone, or another version answers."""
        self._windows.pop(key, None)
