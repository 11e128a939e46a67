"""How fast a backfill may go: a token bucket, in documents."""

import time
from collections.abc import Callable

_BURST_SECONDS = 1.0
_PORTION_SECONDS = 0.25


class RateLimit:
    """What was not used is saved, up to a second's worth (at least one document)."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_second` 0: no limit."""
        self._rate = per_second
        self._clock = clock
        self._most = max(1.0, per_second * _BURST_SECONDS)
        self._saved = 0.0
        self._seen = clock()

    def left(self, wanted: int) -> int:
        """How many of `wanted` may be taken now; 0 until it is a portion that is worth the way."""
        if not self._rate:
            return wanted
        moment = self._clock()
        self._saved = min(self._most, self._saved + (moment - self._seen) * self._rate)
        self._seen = moment
        portion = max(1.0, min(wanted, self._rate * _PORTION_SECONDS))
        return min(wanted, int(self._saved)) if self._saved >= portion else 0

    def take(self, count: int) -> None:
        self._saved -= count if self._rate else 0
