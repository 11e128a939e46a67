"""The truth's story: how much of what there is to be found do live searches find?

saw     every live search that was answered is offered; some are kept (`reservoir.py`)
step    now and then one is looked at again, exactly and as it ran (`probe.py`, `lexical_probe.py`), off the hot path,
        one at a time
keep    what was found is added up by the minute, where every process sees it, and shown as metrics (`ledger.py`)

A search that ran exactly is not looked at again: it is counted with recall 1, which it has by construction. Looks may
take so many milliseconds a minute; after each the story rests as long as its share of the time asks for, so that what
they cost is spread evenly and is the same whatever the size of the collection. The fewer looks are made, the wider are
the intervals of what they say.
"""

import asyncio
import dataclasses
import logging
import math
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress

from service.core import metrics
from service.core.errors import AzimuthError, NotFound
from service.core.filters import operands
from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.query_syntax import ParsedQuery
from service.core.recall import RecallSeries, RecallStats, band_of
from service.recall.aggregate import LEXICAL, ProbeResult, RecallAggregator
from service.recall.dense_probe import DenseProbe, ProbedQuery
from service.recall.lexical_probe import LexicalProbe
from service.recall.probe_queue import LoggedQuery, QueryLog
from service.search.events import SearchEvent
from service.spaces.resolver import Space, SpaceResolver

log = logging.getLogger(__name__)

MINUTE_MS = 60_000.0
LEAST_REST = 0.02
IDLE_SECONDS = 5.0
"""So long nothing is done where there is nothing to look at, unless a search comes."""
FRESH_SECONDS = 5.0
"""So long after a search its space and what passes its filter are taken as they were."""
LEXICAL_SECONDS = 10.0
"""Between two looks at the lexical leg."""
KEEP_SECONDS = 5.0
STOP_SECONDS = 2.0
FORGET_SECONDS = 3_600.0
SPACES = 64
"""Collections whose state a moment ago is remembered."""
_OPERAND, _CHARACTER, _NUMBER = 128, 4, 32
"""Bytes in memory."""


class RecallMonitor:
    """`share`: of live searches, that may be looked at. `budget_ms`: of each minute that looks may take; 0: none."""

    def __init__(
        self,
        *,
        probe: DenseProbe,
        lexical: LexicalProbe,
        spaces: SpaceResolver,
        ledger: RecallAggregator,
        share: float,
        budget_ms: float,
        chance: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probe = probe
        self._lexical = lexical
        self._spaces = spaces
        self._ledger = ledger
        self._share = share if budget_ms > 0 else 0.0
        self._rests = MINUTE_MS / budget_ms - 1 if budget_ms > 0 else 0.0
        self._chance = chance
        self._clock = clock
        self._searches: QueryLog[ProbedQuery] = QueryLog(chance)
        self._worded: QueryLog[tuple[CollectionName, ParsedQuery]] = QueryLog(chance)
        self._spaces_seen: OrderedDict[tuple[CollectionId, VersionNumber], tuple[float, Space]] = OrderedDict()
        self._came = asyncio.Event()
        self._lexical_at = -LEXICAL_SECONDS
        self._forgot_at = -FORGET_SECONDS

    # ------------------------------------------------------------ saw

    def on_search(self, observed: SearchEvent) -> None:
        """As `observed.Observer`."""
        if self._chance.random() < self._share:
            try:
                self._keep(observed)
            except Exception:  # a client is waiting for an answer that is complete
                log.exception("a search is not kept")

    def _keep(self, observed: SearchEvent) -> None:
        space, plan, now = observed.space, observed.plan, self._clock()
        name, number = space.collection.name, space.version.number
        if plan.kind == "exact":
            one = ProbeResult(
                series=RecallSeries.of_plan(number, plan), stats=RecallStats.of_one(1.0, 1.0, 0.0), live=True
            )
            self._ledger.found(name, space.collection.id, (one,))
        elif plan.kind != "none" and (asked := self._asked(observed)) is not None:
            self._searches.add((name, number, plan.kind, band_of(plan.selectivity)), asked, _size(asked), now)
        if observed.request.mode != "dense" and (words := observed.request.parsed_query).text:
            self._worded.add(name, (name, words), _CHARACTER * len(words.text), now)
        self._spaces_seen[space.collection.id, number] = (now, space)
        self._spaces_seen.move_to_end((space.collection.id, number))
        if len(self._spaces_seen) > SPACES:
            self._spaces_seen.popitem(last=False)
        self._came.set()

    def _asked(self, observed: SearchEvent) -> ProbedQuery | None:
        """One of the questions; without the names of what passes, of which there may be 50,000."""
        usable = [at for at, vector in enumerate(observed.vectors) if vector is not None]
        if not usable:
            return None
        at = self._chance.choice(usable)
        vector, filter_match = observed.vectors[at], observed.filter_match
        assert vector is not None
        return ProbedQuery(
            collection=observed.space.collection.name,
            collection_id=observed.space.collection.id,
            version=observed.space.version.number,
            request=observed.request.for_query(observed.request.effective_queries[at]),
            vector=vector,
            filter_match=None if filter_match is None else dataclasses.replace(filter_match, ids=None),
            width=observed.width,
        )

    # ------------------------------------------------------------ step

    async def run(self, stop: asyncio.Event) -> None:
        """Look and keep until `stop`. Trouble is counted and logged, never raised."""
        stopping, *works = (asyncio.ensure_future(one) for one in (_until(stop), self._looking(), self._keeping()))
        try:
            await stopping
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.keep(), STOP_SECONDS)

    async def _looking(self) -> None:
        while True:
            self._came.clear()
            rest = await self.step()
            if rest is not None:
                await asyncio.sleep(rest)
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._came.wait(), IDLE_SECONDS)

    async def step(self) -> float | None:
        """Look at one search again. Answers for how many seconds to rest; None where there is nothing to look at."""
        started = self._clock()
        try:
            look = self._due(started)
            if look is None:
                return None
            outcome = await look
        except NotFound:
            outcome = "gone"
        except AzimuthError as error:
            outcome = "failed"
            log.info("a search is not looked at again", extra={"reason": error.detail})
        except Exception:  # one odd search must not be the end of it
            outcome = "failed"
            log.exception("a search is not looked at again")
        took = self._clock() - started
        metrics.PROBES.labels(outcome).inc()
        metrics.PROBE_SECONDS.inc(took)
        return max(LEAST_REST, took * self._rests)

    def _due(self, now: float) -> Awaitable[str] | None:
        """The next look, whose outcome is one of a few words."""
        if now >= self._lexical_at + LEXICAL_SECONDS and (worded := self._worded.next(now)) is not None:
            self._lexical_at = now
            return self._look_at_words(*worded.what)
        search = self._searches.next(now)
        return None if search is None else self._look(search, now)

    async def _look(self, kept: LoggedQuery[ProbedQuery], now: float) -> str:
        asked = kept.what
        seen_at, space = self._spaces_seen.get((asked.collection_id, asked.version), (-math.inf, None))
        try:
            findings = await self._probe.look(asked, space if now < min(kept.at, seen_at) + FRESH_SECONDS else None)
        except NotFound:
            self._searches.forget(kept.key)
            raise
        if findings is None:
            return "torn"
        self._ledger.found(asked.collection, asked.collection_id, findings)
        return "compared" if findings else "exact"

    async def _look_at_words(self, name: CollectionName, words: ParsedQuery) -> str:
        try:
            space = await self._spaces.resolve(name, None)
            stats = await self._lexical.look(space.collection, space.version, words)
        except NotFound:
            self._worded.forget(name)
            raise
        if stats is None:
            return "torn"
        if not stats.queries:
            return "nothing"
        series = RecallSeries(version=space.version.number, leg="lexical", plan=LEXICAL, band="all", ef_search=0)
        self._ledger.found(name, space.collection.id, (ProbeResult(series=series, stats=stats, live=True),))
        return "compared"

    # ------------------------------------------------------------ keep

    async def _keeping(self) -> None:
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            await self.keep()

    async def keep(self) -> None:
        """Write down what was found since the last time; forget what is old. Trouble is logged: it is tried again."""
        try:
            await self._ledger.write()
            if self._clock() >= self._forgot_at + FORGET_SECONDS:
                self._forgot_at = self._clock()
                await self._ledger.forget()
        except AzimuthError as error:
            log.warning("recall is not written down", extra={"reason": error.detail})
        except Exception:
            log.exception("recall is not written down")


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


def _size(asked: ProbedQuery) -> int:
    """In bytes, about."""
    request = asked.request
    brought = request.effective_queries if request.like is None else [one for _, one in request.like.by_field]
    texts, numbers = sum(len(one.text or "") for one in brought), sum(len(one.vector or ()) for one in brought)
    return asked.vector.nbytes + _OPERAND * operands(request.where) + _CHARACTER * texts + _NUMBER * numbers
