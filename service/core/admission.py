"""How many requests of one kind are worked on at once: a limit that adapts to the latency it sees.

The gradient algorithm of Netflix's concurrency-limits ("Performance Under Load", 2018), in the manner of TCP Vegas
(Brakmo and Peterson, 1995): the limit follows met * latency without a queue / latency + `WAITING`, where `met` is how
many were under way when the request began. By Little's law the first term is how many the machine really works on, so
that in an overload `WAITING` requests wait, however fast or parallel the machine is. The latency without a queue is
measured while hardly anything runs and, in a long overload, by lowering the limit for a moment, as Envoy's adaptive
concurrency filter does.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import geometric_mean

from service.core.errors import Overloaded

WAITING = 10
"""Requests that may wait for others: enough to keep the machine busy, and for as many clients that ask in turns."""
RESERVE = 0.5
"""Of the limit, in addition to it: for clients that have nothing under way while others have taken all."""
QUIET = 2
"""A request that meets at most one other shows the latency without a queue."""
QUIET_SAMPLES = 5
"""Latencies from which that is estimated. The geometric mean forgives a cold start."""
PROBE_EVERY_SECONDS, PROBE_SECONDS = 60.0, 5.0
"""How old that estimate may get in an overload, and for how long at most the limit is lowered to renew it."""
RECENT_WEIGHT, LIMIT_WEIGHT = 0.1, 0.2
"""Of one more request in the means of recent ones, and of the limit that follows from them in the limit."""


class AdmissionLimit:
    """The limit of one kind of request, whose latencies can be compared; for one event loop."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`most`: the limit never exceeds this. `clock`: in seconds."""
        self._most, self.clock = most, clock
        self._limit = float(2 * WAITING)
        self._recent = self._met = 0.0  # means of the logarithm of the latency and of those met
        self._quiet: deque[float] = deque(maxlen=QUIET_SAMPLES)
        self._quiet_at, self._probe_until = clock(), -math.inf
        self.clients: Counter[str] = Counter()
        """How many requests of each are under way."""

    @property
    def current(self) -> int:
        probing = len(self._quiet) < QUIET_SAMPLES and self.clock() < self._probe_until
        return min(self._most, QUIET if probing else int(self._limit))

    @property
    def under_way(self) -> int:
        return self.clients.total()

    def require_room(self, client: str) -> None:
        """Overloaded where no further request of this client is admitted now."""
        room = self.current - self.under_way
        if room > 0 or (client not in self.clients and room > -RESERVE * self.current):
            return
        if self.clock() > max(self._quiet_at, self._probe_until) + PROBE_EVERY_SECONDS:
            self._quiet.clear()
            self._probe_until = self.clock() + PROBE_SECONDS
        raise Overloaded("too many requests at once")

    def learn(self, seconds: float, met: int) -> None:
        """From a request that was answered after `seconds`. `met`: how many were under way when it began, with it."""
        seconds = max(seconds, 1e-6)
        if met <= QUIET:
            self._quiet.append(seconds)
            self._quiet_at = self.clock()
        weight = RECENT_WEIGHT if self._met else 1.0
        self._recent += weight * (math.log(seconds) - self._recent)
        self._met += weight * (met - self._met)
        if 2 * met < self._limit or len(self._quiet) < QUIET_SAMPLES:
            return  # a limit that is not used shows nothing
        gradient = min(1.0, geometric_mean(self._quiet) / math.exp(self._recent))
        self._limit += LIMIT_WEIGHT * (self._met * gradient + WAITING - self._limit)
        self._limit = min(self._limit, float(max(self._most, WAITING)))


@dataclass(slots=True, eq=False)
class Admission:
    """One admitted request. It counts from `start`, when nothing but work is left to be done, to `finish`."""

    limit: AdmissionLimit
    client: str
    _met: int = 0
    _started: float | None = None

    def start(self) -> None:
        """Overloaded where the last room was taken meanwhile. Only the first call counts."""
        if self._started is None:
            self.limit.require_room(self.client)
            self._started = self.limit.clock()
            self.limit.clients[self.client] += 1
            self._met = self.limit.under_way

    def finish(self, *, answered: bool) -> None:
        """What was not `answered` (refused, failed, given up by its client) says nothing about the latency."""
        if self._met and self._started is not None:
            self.limit.clients -= Counter([self.client])
            if answered:
                self.limit.learn(self.limit.clock() - self._started, self._met)
            self._met = 0
