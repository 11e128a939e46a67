"""Measuring the calibration curve of a version: what its index finds by `ef_search`, and how long that takes.

first   some queries ask every step of the ladder, for half of the time at most
then    more queries ask only the steps of which it is uncertain yet whether they hold the target

Each query is answered exactly once, and its other answers are compared with that. Beside live searches one query runs
at a time, with a rest as long as its work.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.core.ids import Vector
from service.core.index_health import IndexHealth
from service.core.periodic import Clock
from service.core.ports.vectors import VectorQuery, VectorStore
from service.core.recall import CalibrationCurve, CurvePoint, K, RecallStats, recall_at_k
from service.core.search import DensePlan
from service.core.versions import EmbedderVersion, Judgments
from service.recall.ef_policy import EF_STEPS
from service.search import retrievers
from service.spaces.resolver import Space
from service.spaces.sampling import CollectionSampler

FULL_LADDER_QUERIES, MAX_QUERIES = 100, 1_000
"""Queries that ask every step, and all queries."""
MAX_SECONDS = 30.0
"""Of work, without the rests: exact scans of large spaces are slow. The intervals tell what fewer queries are worth."""
REST_RATIO = 1.0
"""Rest after each query, in multiples of the time that it took."""


@dataclass(kw_only=True, eq=False)
class CurveMeasurer:
    vectors: VectorStore
    sampling: CollectionSampler
    rest_ratio: float = REST_RATIO

    async def measure(
        self, space: Space, health: IndexHealth, judgments: Judgments | None, live: Sequence[str], now: Clock
    ) -> CalibrationCurve | None:
        """None where there is no query. SpaceRefused and ModelUnavailable as `CollectionSampler.query_vectors`."""
        collection, version = space.collection, space.version
        queries, sources = await self.sampling.query_vectors(collection, version, judgments, live, MAX_QUERIES)
        if not len(queries):
            return None
        target = collection.settings.recall_target
        run = _CurveRun(self.vectors, version, retrievers.chunks_for(space, collection.settings.candidates))
        steps: Sequence[int] = EF_STEPS
        narrowed = False
        for at, query in enumerate(queries):
            if not narrowed and (at == FULL_LADDER_QUERIES or run.worked > MAX_SECONDS / 2):
                steps, narrowed = run.undecided_steps(target), True
            if not steps or run.worked > MAX_SECONDS:
                break
            before = run.worked
            await run.ask(query, steps)
            await asyncio.sleep(self.rest_ratio * (run.worked - before))
        assert health.index is not None
        return CalibrationCurve(
            points=run.points(),
            queries=run.queries,
            rows=space.status.rows,
            measured_at=now(),
            exact_milliseconds=round(1_000 * run.exact_seconds / run.queries, 3),
            sources={**sources},
            target=target,
            build=health.index.build,
            written=health.written,
            dead=round(health.dead_share, 4),
        )


@dataclass(slots=True)
class _CurveRun:
    """What was measured so far. `limit`: rows that a live search asks for. `worked`: seconds of all searches."""

    vectors: VectorStore
    version: EmbedderVersion
    limit: int
    stats: dict[int, RecallStats] = field(default_factory=dict)
    queries: int = 0
    exact_seconds: float = 0.0
    worked: float = 0.0

    async def ask(self, query: Vector, steps: Sequence[int]) -> None:
        truth, seconds = await self._search(query, K, DensePlan(kind="exact"))
        self.exact_seconds += seconds
        self.queries += 1
        for ef_search in steps:
            plan = DensePlan(kind="hnsw", ef_search=ef_search)
            found, seconds = await self._search(query, max(K, self.limit), plan)
            one = RecallStats.of_one(*recall_at_k(truth, found), seconds)
            self.stats[ef_search] = self.stats.get(ef_search, RecallStats()) + one

    def undecided_steps(self, target: float) -> list[int]:
        """The steps that may be the smallest to hold the target: none below it surely does, none above is needed."""
        undecided = []
        for ef_search in EF_STEPS:
            low, high = self.stats[ef_search].interval
            if high >= target:
                undecided.append(ef_search)
            if low >= target and len(undecided) > 1:  # one that holds for sure stays, should the next smaller one fail
                break
        return undecided

    def points(self) -> tuple[CurvePoint, ...]:
        return tuple(
            CurvePoint(
                ef_search=ef_search,
                recall=round(stats.mean, 5),
                low=round(stats.interval[0], 5),
                high=round(stats.interval[1], 5),
                milliseconds=round(1_000 * stats.seconds / stats.queries, 3),
            )
            for ef_search, stats in sorted(self.stats.items())
        )

    async def _search(
        self, query: Vector, limit: int, plan: DensePlan
    ) -> tuple[list[tuple[tuple[str, int | None], float]], float]:
        """Chunks with their scores, best first, and the seconds that it took."""
        started = time.monotonic()
        found = await self.vectors.nearest(VectorQuery(self.version, query, limit, plan))
        seconds = time.monotonic() - started
        self.worked += seconds
        return [((one.document_id, one.chunk), one.score) for one in found], seconds
