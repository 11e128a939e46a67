"""What an index finds by `ef_search`, and how long it takes: the calibration curve of a version.

first   some queries ask every rung of the ladder, for half of the time at most
then    more of them ask those rungs alone of which it is not certain yet whether they hold the target

Each query is answered exactly once and compared with that. Beside live searches it runs one query at a time and rests
as long as it worked.
"""

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from datetime import datetime

from service.core.collections import Collection
from service.core.ids import Vector
from service.core.index_health import IndexHealth, IndexState
from service.core.ports.vectors import VectorQuery, VectorStore
from service.core.recall import CalibrationCurve, CurvePoint, K, RecallStats, recall_at_k
from service.core.search import Candidate, DensePlan
from service.core.versions import EmbedderVersion, Judgments, SpaceStatus
from service.recall import ef_policy
from service.search import retrievers
from service.spaces.resolver import Space
from service.spaces.sampling import CollectionSampler

FIRST, MOST = 100, 1_000
"""Queries that ask every rung, and those that ask at all."""
SECONDS = 30.0
"""Of work, without the rests: exact scans of large spaces are slow. The intervals tell what fewer queries are worth."""
RESTS = 1.0
"""Times as long as it worked."""


class CurveMeasurer:
    def __init__(self, *, vectors: VectorStore, sampling: CollectionSampler, rests: float = RESTS) -> None:
        self._vectors = vectors
        self._sampling = sampling
        self._rests = rests

    async def curve(
        self,
        collection: Collection,
        version: EmbedderVersion,
        status: SpaceStatus,
        health: IndexHealth,
        judgments: Judgments | None,
        live: Sequence[str],
        now: datetime,
    ) -> CalibrationCurve | None:
        """None where there is nothing to ask for. SpaceRefused and ModelUnavailable as `CollectionSampler.queries`."""
        queries, sources = await self._sampling.queries(collection, version, judgments, live, MOST)
        if not len(queries):
            return None
        assert health.index is not None
        target = collection.settings.recall_target
        space = Space(collection=collection, version=version, status=status)
        look = _Look(self._vectors, version, retrievers.chunks_for(space, collection.settings.candidates))
        rungs: Sequence[int] = ef_policy.EF_STEPS
        narrowed = False
        for at, query in enumerate(queries):
            if not narrowed and (at == FIRST or look.worked > SECONDS / 2):
                rungs, narrowed = look.open(target), True
            if not rungs or look.worked > SECONDS:
                break
            before = look.worked
            await look.ask(query, rungs)
            await asyncio.sleep(self._rests * (look.worked - before))
        return look.drawn(target, sources={**sources}, rows=status.rows, health=health, index=health.index, now=now)


@dataclasses.dataclass(slots=True)
class _Look:
    """What was found so far. `limit`: rows that a live search asks for."""

    vectors: VectorStore
    version: EmbedderVersion
    limit: int
    stats_by_ef_search: dict[int, RecallStats] = dataclasses.field(default_factory=dict)
    asked: int = 0
    exact_seconds: float = 0.0
    worked: float = 0.0

    async def ask(self, query: Vector, rungs: Sequence[int]) -> None:
        truth, seconds = await self._timed(query, K, DensePlan(kind="exact"))
        self.exact_seconds += seconds
        self.asked += 1
        for ef_step in rungs:
            found, seconds = await self._timed(query, max(K, self.limit), DensePlan(kind="hnsw", ef_search=ef_step))
            one = RecallStats.of_one(*recall_at_k(_named(truth), _named(found)), seconds)
            self.stats_by_ef_search[ef_step] = self.stats_by_ef_search.get(ef_step, RecallStats()) + one

    def open(self, target: float) -> list[int]:
        """The rungs that may be the smallest to hold the target: none below it surely does, none above is needed."""
        found = []
        for ef_step in ef_policy.EF_STEPS:
            low, high = self.stats_by_ef_search[ef_step].interval
            if high >= target:
                found.append(ef_step)
            if low >= target and len(found) > 1:  # one that holds for sure stays, should the next smaller one fail
                break
        return found

    def drawn(
        self,
        target: float,
        *,
        sources: dict[str, int],
        rows: int,
        health: IndexHealth,
        index: IndexState,
        now: datetime,
    ) -> CalibrationCurve:
        return CalibrationCurve(
            points=tuple(_point(ef_step, stats) for ef_step, stats in sorted(self.stats_by_ef_search.items())),
            queries=self.asked,
            rows=rows,
            measured_at=now,
            exact_milliseconds=round(1_000 * self.exact_seconds / self.asked, 3),
            sources=sources,
            target=target,
            build=index.build,
            written=health.written,
            dead=round(health.dead_share, 4),
        )

    async def _timed(self, query: Vector, limit: int, plan: DensePlan) -> tuple[Sequence[Candidate], float]:
        started = time.monotonic()
        found = await self.vectors.nearest(VectorQuery(self.version, query, limit, plan))
        took = time.monotonic() - started
        self.worked += took
        return found, took


def _point(ef_step: int, stats: RecallStats) -> CurvePoint:
    low, high = stats.interval
    return CurvePoint(
        ef_search=ef_step,
        recall=round(stats.mean, 5),
        low=round(low, 5),
        high=round(high, 5),
        milliseconds=round(1_000 * stats.seconds / stats.queries, 3),
    )


def _named(found: Sequence[Candidate]) -> list[tuple[str, float]]:
    return [(f"{one.document_id}\n{one.chunk}", one.score) for one in found]
