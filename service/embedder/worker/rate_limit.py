"""The rate of a backfill: a token bucket, in documents."""

import time
from collections.abc import Callable

_PORTION_SECONDS = 0.25


class RateLimit:
    """Unused allowance accumulates, up to a second's worth (at least one document)."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_second` 0: no limit."""
        self._rate, self._clock = per_second, clock
        self._level, self._updated = 0.0, clock()

    def available(self, wanted: int) -> int:
        """How many of `wanted` may be taken now; 0 until a portion is large enough to be worth a claim."""
        if not self._rate:
            return wanted
        now = self._clock()
        self._level = min(max(1.0, self._rate), self._level + (now - self._updated) * self._rate)
        self._updated = now
        portion = max(1.0, min(wanted, self._rate * _PORTION_SECONDS))
        return min(wanted, int(self._level)) if self._level >= portion else 0

    def consume(self, count: int) -> None:
        self._level -= count if self._rate else 0
