"""How well the collection as it stands answers judged queries: asked through the real search, in each mode.

Queries come in random order, and each is asked in every mode before the next: when the time is up, what was asked so
far is a fair sample, and the same one for all modes. One search at a time, behind live ones, and not in their metrics.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from service.core.collections import Collection
from service.core.errors import Conflict, Invalid, Overloaded
from service.core.ids import DocumentId, VersionNumber
from service.core.ports.versions import Versions
from service.core.search import RerankRequest, SearchRequest, SearchResult
from service.core.versions import Judgments
from service.evaluation.ranking_metrics import Interval, RankingMetrics, bootstrap, ndcg, percentile, quality
from service.search.pipeline import SearchPipeline
from service.spaces.sampling import CollectionSampler, patiently

QUERIES = 1_000
"""Most that are asked: a random choice of more. The interval of nDCG@10 is then about 0.05 wide."""
DEPTH = 100
BUSY_SECONDS = 1.0
"""Pause before a search is tried again of which the service had no time for a part."""

Way = Literal["dense", "lexical", "hybrid", "rerank"]
_ASKED = SearchRequest(k=DEPTH, include=frozenset())
WAYS: Mapping[Way, SearchRequest] = {
    "dense": replace(_ASKED, mode="dense"),
    "lexical": replace(_ASKED, mode="lexical"),
    "hybrid": _ASKED,
    "rerank": replace(_ASKED, rerank=RerankRequest()),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedQuery:
    """What came of one query in one way. `ranking`: document ids, best first; `degraded`: `stage: reason`."""

    ranking: Sequence[DocumentId]
    milliseconds: float
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ModeMetrics:
    """Of one way. `ndcg`: the interval of nDCG@10 (95 %). `degraded`: answers without a stage, by `stage: reason`."""

    quality: RankingMetrics
    ndcg: Interval
    p50_ms: float
    p95_ms: float
    degraded: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """`queries` were asked of the `judged` ones; fewer where there are more than `QUERIES` or the time was up.

    `unknown_documents`: judged relevant and not in the collection; they count as not found.
    """

    version: VersionNumber
    queries: int
    judged: int
    unknown_documents: int
    marks: Mapping[Way, ModeMetrics]


class Evaluator:
    """One at a time in a process."""

    def __init__(self, *, search: SearchPipeline, versions: Versions, sampling: CollectionSampler) -> None:
        self._search = search
        self._versions = versions
        self._sampling = sampling
        self._busy = False

    async def of(
        self, collection: Collection, judgments: Judgments, ways: Sequence[Way], seconds: float
    ) -> EvaluationResult:
        """The active version, for about so many seconds at most; one query is asked however long it takes.

        Overloaded where one is under way already. Conflict where no document that was judged relevant is there, or the
        vectors of queries are made by the client. What keeps every leg from answering is raised.
        """
        if self._busy:
            raise Overloaded("an evaluation is under way already")
        self._busy = True
        try:
            return await self._appraise(collection, judgments, ways, time.monotonic() + seconds)
        finally:
            self._busy = False

    async def _appraise(
        self, collection: Collection, judgments: Judgments, ways: Sequence[Way], deadline: float
    ) -> EvaluationResult:
        version = await self._versions.get(collection.id, collection.active_version)
        if version.spec.external and any(way != "lexical" for way in ways):
            raise Conflict("the client makes the vectors of queries too: with texts only the mode lexical can be asked")
        relevant = frozenset(
            DocumentId(id_) for grades in judgments.grades.values() for id_, grade in grades.items() if grade > 0
        )
        there = await self._sampling.there(collection, relevant)
        if not there:
            raise Conflict("no document that was judged relevant is in the collection")
        order = random.Random(0).sample(sorted(judgments.queries), min(QUERIES, len(judgments.queries)))  # noqa: S311
        found: dict[Way, list[EvaluatedQuery]] = {way: [] for way in ways}
        asked: list[str] = []
        for query in order:
            if asked and time.monotonic() >= deadline:
                break
            for way in ways:
                found[way].append(await self._ask(collection, judgments.queries[query], way))
            asked.append(query)
        grades = [judgments.grades[query] for query in asked]
        return EvaluationResult(
            version=version.number,
            queries=len(asked),
            judged=len(judgments.queries),
            unknown_documents=len(relevant) - len(there),
            marks={way: await asyncio.to_thread(marked, found[way], grades) for way in ways},
        )

    async def _ask(self, collection: Collection, text: str, way: Way) -> EvaluatedQuery:
        """By the version that was active at the beginning, so that all of it speaks of one. A text that the model can
        do nothing with finds nothing."""
        request = replace(WAYS[way], text=text, embedder_version=collection.active_version)

        async def ask() -> SearchResult:
            answer = await self._search.run_background(collection.name, request)
            if any(one.code == Overloaded.__name__ for one in answer.degraded):
                raise Overloaded(retry_after=BUSY_SECONDS)
            return answer

        await asyncio.sleep(0)  # live searches first
        try:
            answer = await patiently(ask)
        except Invalid as error:
            return EvaluatedQuery(ranking=(), milliseconds=0.0, degraded=(f"query: {error.detail}",))
        return EvaluatedQuery(
            ranking=[hit.id for hit in answer.hits],
            milliseconds=answer.timings.elapsed * 1000,
            degraded=tuple(f"{one.stage}: {one.reason}" for one in answer.degraded),
        )


def marked(asked: Sequence[EvaluatedQuery], grades: Sequence[Mapping[str, int]]) -> ModeMetrics:
    """Aligned with each other; at least one."""
    judged = [(one.ranking, graded) for one, graded in zip(asked, grades, strict=True)]
    milliseconds = [one.milliseconds for one in asked]
    return ModeMetrics(
        quality=quality(judged),
        ndcg=bootstrap([ndcg(ranking, graded, 10) for ranking, graded in judged]),
        p50_ms=percentile(milliseconds, 0.50),
        p95_ms=percentile(milliseconds, 0.95),
        degraded=Counter(reason for one in asked for reason in one.degraded),
    )
