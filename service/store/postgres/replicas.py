"""Streaming replicas that searches read, each as long as it is no further behind the primary than allowed.

The lag is measured by the write-ahead log: how long ago the primary was where the replica is now. So it needs no right
to monitor the server, and stays small while nothing is written. A replica that does not answer, or of which it is no
longer known how far the primary is, is left out, and the primary answers instead.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from time import monotonic

from service.core.errors import AzimuthError, Unavailable
from service.core.metrics import REPLICA_LAG, REPLICA_SEARCHES
from service.core.periodic import repeat_every
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import READ_POOL, Pool, open_pool

log = logging.getLogger(__name__)

SQL = sql_files.load("replicas")

MEASURE_SECONDS = 0.25


@dataclass(slots=True)
class Replica:
    """One server. `read_at`: when it was measured last, in monotonic seconds. `seen`: all transactions below ended.

    `reason`: why it is left out.
    """

    url: str
    name: str
    pool: Pool | None = None
    lag_seconds: float = float("inf")
    read_at: float = float("-inf")
    seen: int = 0
    reason: str = ""

    def lag(self) -> float:
        """Seconds, at most: what was measured, and the time since."""
        return self.lag_seconds + max(0.0, monotonic() - self.read_at - MEASURE_SECONDS)


@dataclass(kw_only=True, slots=True)
class Replicas:
    """Adapter of `ports.ReadReplicas`. `max_lag`: in seconds. `statement_timeout`: as of the primary's pool."""

    primary: Pool
    urls: Sequence[str]
    pool_size: int
    statement_timeout: float
    max_lag: float
    _all: list[Replica] = field(init=False)
    _positions: deque[tuple[float, int]] = field(default_factory=deque)
    """When the primary's log ended where, the newest last."""
    _turn: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self._all = [Replica(url, str(at)) for at, url in enumerate(self.urls)]

    @contextmanager
    def reading(self, revision: int) -> Iterator[float | None]:
        """While the block runs, all statements of its task go to one replica, of which the lag in seconds is given.

        None, and the primary: no replica is near enough, or none has all up to `revision`.
        """
        fit = [one for one in self._all if one.pool and one.lag() <= self.max_lag and one.seen > revision]
        if not fit:
            REPLICA_SEARCHES.labels("primary").inc()
            yield None
            return
        chosen = fit[next(self._turn) % len(fit)]
        REPLICA_SEARCHES.labels(chosen.name).inc()
        token = READ_POOL.set(chosen.pool)
        try:
            yield chosen.lag()
        finally:
            READ_POOL.reset(token)

    async def run(self) -> None:
        """Measure each by itself, so that none waits for another, until cancelled; then close their connections."""
        works = [repeat_every("primary", MEASURE_SECONDS, self._measure_primary)]
        works += [repeat_every("replica", MEASURE_SECONDS, partial(self._measure, one)) for one in self._all]
        try:
            await asyncio.gather(*works)
        finally:
            await asyncio.gather(*(one.pool.close() for one in self._all if one.pool))

    async def _measure_primary(self) -> None:
        now = monotonic()
        while self._positions and self._positions[0][0] < now - 2 * self.max_lag - 1:
            self._positions.popleft()
        with suppress(AzimuthError):  # its replicas may go on answering, for as long as they are near enough
            ((position,),) = await self.primary.fetch_all(SQL.written)
            self._positions.append((now, int(position)))

    async def _measure(self, replica: Replica) -> None:
        try:
            if replica.pool is None:
                replica.pool = await open_pool(
                    replica.url,
                    size=self.pool_size,
                    statement_timeout_seconds=self.statement_timeout,
                    application_name="azimuth-replica",
                )
            now = monotonic()
            row = await replica.pool.fetch_one(SQL.replayed)
            if row is None:
                raise Unavailable("it follows no primary")
        except AzimuthError as error:
            replica.lag_seconds = float("inf")
            if replica.reason != error.detail:
                log.warning("a replica is left out", extra={"replica": replica.name, "reason": error.detail})
            replica.reason = error.detail
        else:
            reached = [at for at, written in self._positions if written <= row[0]]
            replica.read_at, replica.seen, replica.reason = now, int(row[1]), ""
            replica.lag_seconds = now - reached[-1] if reached else float("inf")
        REPLICA_LAG.labels(replica.name).set(replica.lag())
