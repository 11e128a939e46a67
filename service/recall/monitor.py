"""The recall monitor: how much of what there is to be found do live searches find?

sample   every live search that was answered is reported; some are kept (`probe_queue.py`)
probe    now and then one is run again, exactly and as it ran (`dense_probe.py`, `lexical_probe.py`), off the hot path,
         one at a time
flush    the results are summed by the minute, where every process sees them, and exported (`aggregate.py`)

A search that ran exactly is not probed: it counts with recall 1, which it has by construction. Probes may take a fixed
time of each minute. After each one the monitor rests in proportion, so that their cost is spread evenly and does not
depend on the size of the collection. Fewer probes make the intervals of the results wider.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from service.core import metrics
from service.core.concurrency import set_within
from service.core.errors import AzimuthError, NotFound
from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.lru import LruDict
from service.core.periodic import failures_logged, in_background
from service.core.query_syntax import ParsedQuery
from service.core.recall import RecallSeries, RecallStats, band_of
from service.recall.aggregate import LEXICAL_PLAN, RecallAggregator, RecallSample
from service.recall.dense_probe import DenseProbe, ProbedQuery
from service.recall.lexical_probe import LexicalProbe
from service.recall.probe_queue import LoggedQuery, ProbeQueue
from service.search.events import SearchEvent
from service.search.query_log import request_bytes, text_bytes
from service.spaces.resolver import Space, SpaceResolver

log = logging.getLogger(__name__)

MINUTE_MS = 60_000.0
MIN_REST_SECONDS = 0.02
IDLE_SECONDS = 5.0
"""Pause where there is nothing to probe, unless a search comes."""
FRESH_SECONDS = 5.0
"""For so long after a search, its space and its filter match are taken as they were."""
LEXICAL_SECONDS = 10.0
"""Between two probes of the lexical leg."""
FLUSH_SECONDS = 5.0
STOP_SECONDS = 2.0
RETENTION_SECONDS = 3_600.0
"""Between two deletions of expired minutes."""
MAX_SPACES = 64
"""Versions whose space of the last search is remembered."""


@dataclass(kw_only=True, eq=False)
class RecallMonitor:
    """Samples live searches and probes them.

    `share`: of live searches, that may be probed. `budget_ms`: of each minute, that probes may take; 0 disables it.
    """

    dense_probe: DenseProbe
    lexical_probe: LexicalProbe
    spaces: SpaceResolver
    aggregator: RecallAggregator
    share: float
    budget_ms: float
    rng: random.Random
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._dense_queries = ProbeQueue[ProbedQuery](self.rng)
        self._lexical_queries = ProbeQueue[tuple[CollectionName, ParsedQuery]](self.rng)
        self._recent_spaces: LruDict[tuple[CollectionId, VersionNumber], tuple[float, Space]] = LruDict(MAX_SPACES)
        self._arrived = asyncio.Event()
        self._lexical_probed_at = self._expired_deleted_at = -math.inf

    def on_search(self, observed: SearchEvent) -> None:
        """As `SearchObserver`."""
        if self.budget_ms > 0 and self.rng.random() < self.share:
            try:
                self._sample(observed)
            except Exception:  # a client is waiting for an answer that is complete
                log.exception("live search not sampled")

    def _sample(self, observed: SearchEvent) -> None:
        space, plan, now = observed.space, observed.plan, self.clock()
        name, number = space.collection.name, space.version.number
        if plan.kind == "exact":
            series = RecallSeries.of_plan(number, plan)
            sample = RecallSample(series=series, stats=RecallStats.of_one(1.0, 1.0, 0.0), live=True)
            self.aggregator.record(name, space.collection.id, (sample,))
        elif plan.kind != "none" and (query := self._probed_query(observed)) is not None:
            kind = (name, number, plan.kind, band_of(plan.selectivity))
            self._dense_queries.add(kind, query, query.vector.nbytes + request_bytes(query.request), now)
        if observed.request.mode != "dense" and (words := observed.request.parsed_query).text:
            self._lexical_queries.add(name, (name, words), text_bytes(words.text), now)
        self._recent_spaces[space.collection.id, number] = (now, space)
        self._arrived.set()

    def _probed_query(self, observed: SearchEvent) -> ProbedQuery | None:
        """A random one of the search's queries, without the ids that pass its filter: there may be 50,000."""
        usable = [(at, vector) for at, vector in enumerate(observed.vectors) if vector is not None]
        if not usable:
            return None
        at, vector = self.rng.choice(usable)
        filter_match = observed.filter_match
        return ProbedQuery(
            collection=observed.space.collection.name,
            collection_id=observed.space.collection.id,
            version=observed.space.version.number,
            request=observed.request.for_query(observed.request.effective_queries[at]),
            vector=vector,
            filter_match=None if filter_match is None else replace(filter_match, ids=None),
            width=observed.width,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Probe and flush until `stop`. Errors are counted and logged, never raised."""
        try:
            async with in_background(self._probe_forever()), in_background(self._flush_forever()):
                await stop.wait()
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.flush(), STOP_SECONDS)

    async def _probe_forever(self) -> None:
        while True:
            self._arrived.clear()
            rest = await self.probe_next()
            if rest is not None:
                await asyncio.sleep(rest)
            else:
                await set_within(self._arrived, IDLE_SECONDS)

    async def probe_next(self) -> float | None:
        """Probe one search. The seconds to rest afterwards; None where there was nothing to probe."""
        started = self.clock()
        try:
            probe = self._next_probe(started)
            if probe is None:
                return None
            outcome = await probe
        except NotFound:
            outcome = "gone"
        except AzimuthError as error:
            outcome = "failed"
            log.info("probe failed", extra={"reason": error.detail})
        except Exception:  # one odd search must not end the monitor
            outcome = "failed"
            log.exception("probe failed")
        seconds = self.clock() - started
        metrics.PROBES.labels(outcome).inc()
        metrics.PROBE_SECONDS.inc(seconds)
        return max(MIN_REST_SECONDS, seconds * (MINUTE_MS / self.budget_ms - 1))

    def _next_probe(self, now: float) -> Awaitable[str] | None:
        """The next probe, which returns the value of the metric's label `outcome`."""
        if now >= self._lexical_probed_at + LEXICAL_SECONDS:
            words = self._lexical_queries.next_query(now)
            if words is not None:
                self._lexical_probed_at = now
                return self._probe_lexical(*words.query)
        dense = self._dense_queries.next_query(now)
        return None if dense is None else self._probe_dense(dense, now)

    async def _probe_dense(self, logged: LoggedQuery[ProbedQuery], now: float) -> str:
        query = logged.query
        searched_at, space = self._recent_spaces.get((query.collection_id, query.version), (-math.inf, None))
        fresh = now < min(logged.asked_at, searched_at) + FRESH_SECONDS
        try:
            samples = await self.dense_probe.probe(query, space if fresh else None)
        except NotFound:
            self._dense_queries.pop(logged.key, None)
            raise
        if samples is None:
            return "torn"
        self.aggregator.record(query.collection, query.collection_id, samples)
        return "compared" if samples else "exact"

    async def _probe_lexical(self, name: CollectionName, words: ParsedQuery) -> str:
        try:
            space = await self.spaces.resolve(name, None)
            stats = await self.lexical_probe.probe(space.collection, space.version, words)
        except NotFound:
            self._lexical_queries.pop(name, None)
            raise
        if stats is None:
            return "torn"
        if not stats.queries:
            return "nothing"
        series = RecallSeries(version=space.version.number, leg="lexical", plan=LEXICAL_PLAN, band="all", ef_search=0)
        self.aggregator.record(name, space.collection.id, (RecallSample(series=series, stats=stats, live=True),))
        return "compared"

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write the pending sums and delete expired ones. Errors are logged, and the next flush tries again."""
        with failures_logged("recall not written"):
            await self.aggregator.flush()
            if self.clock() >= self._expired_deleted_at + RETENTION_SECONDS:
                self._expired_deleted_at = self.clock()
                await self.aggregator.delete_expired()
