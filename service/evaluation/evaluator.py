"""How well the collection as it is answers judged queries: through the real search, in each mode.

Queries come in random order, and each runs in every mode before the next: when the time is up, those that ran are a
random sample, the same one for all modes. One search runs at a time, behind live ones and not in their metrics.
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from service.core.collections import Collection
from service.core.concurrency import off_loop
from service.core.errors import Conflict, Invalid, Overloaded
from service.core.ids import CollectionName, VersionNumber
from service.core.ports.versions import Versions
from service.core.search import RerankRequest, SearchRequest, SearchResult
from service.core.versions import Judgments
from service.evaluation.ranking_metrics import EvaluatedQuery, MeanInterval, RankingMetrics, bootstrap, mean_metrics
from service.search.pipeline import SearchPipeline
from service.spaces.sampling import CollectionSampler, retry_overloaded

MAX_QUERIES = 1_000
"""A random choice of more. The interval of nDCG@10 is then about 0.05 wide."""
DEPTH = 100
BUSY_SECONDS = 1.0
"""Pause before a search is repeated that had to leave out a stage because the service was overloaded."""

EvaluationMode = Literal["dense", "lexical", "hybrid", "rerank"]
_REQUEST = SearchRequest(k=DEPTH, include=frozenset())
MODE_REQUESTS: Mapping[EvaluationMode, SearchRequest] = {
    "dense": replace(_REQUEST, mode="dense"),
    "lexical": replace(_REQUEST, mode="lexical"),
    "hybrid": _REQUEST,
    "rerank": replace(_REQUEST, rerank=RerankRequest()),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModeEvaluation:
    """`ndcg_interval`: of nDCG@10, 95 %."""

    metrics: RankingMetrics
    ndcg_interval: MeanInterval


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """`queries` of the `judged` ones ran: fewer where there are more than `MAX_QUERIES` or the time was up.
    `unknown_documents`: judged relevant and not in the collection; they count as not found."""

    version: VersionNumber
    queries: int
    judged: int
    unknown_documents: int
    modes: Mapping[EvaluationMode, ModeEvaluation]


@dataclass(kw_only=True, eq=False)
class Evaluator:
    """Evaluates collections, one at a time."""

    search: SearchPipeline
    versions: Versions
    sampling: CollectionSampler
    _running: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def evaluate(
        self, collection: Collection, judgments: Judgments, modes: Sequence[EvaluationMode], seconds: float
    ) -> EvaluationResult:
        """Takes about `seconds` at most, but at least one query runs.

        Raises Overloaded where an evaluation is running already; Conflict where no document that was judged relevant is
        in the collection, or the client makes the vectors of queries; and what keeps every leg from answering.
        """
        if self._running.locked():
            raise Overloaded("another evaluation is running")
        async with self._running:
            return await self._evaluate(collection, judgments, modes, time.monotonic() + seconds)

    async def _evaluate(
        self, collection: Collection, judgments: Judgments, modes: Sequence[EvaluationMode], deadline: float
    ) -> EvaluationResult:
        version = await self.versions.get(collection.id, collection.active_version)
        if version.spec.external and any(mode != "lexical" for mode in modes):
            raise Conflict("the client makes the vectors of queries too: with texts only the mode lexical can be asked")
        relevant = await off_loop(0, lambda: {id_ for ids in judgments.relevant().values() for id_ in ids})
        existing = await self.sampling.existing_ids(collection, relevant)
        if not existing:
            raise Conflict("no document that was judged relevant is in the collection")
        order = random.Random(0).sample(sorted(judgments.queries), min(MAX_QUERIES, len(judgments.queries)))  # noqa: S311
        answers: dict[EvaluationMode, list[EvaluatedQuery]] = {mode: [] for mode in modes}
        queries = 0
        for query in order:
            for mode, answered in answers.items():
                answered.append(await self._ask(collection, judgments, query, mode))
            queries += 1
            if time.monotonic() >= deadline:
                break
        return EvaluationResult(
            version=version.number,
            queries=queries,
            judged=len(judgments.queries),
            unknown_documents=len(relevant) - len(existing),
            modes={mode: await asyncio.to_thread(_evaluated, answered) for mode, answered in answers.items()},
        )

    async def _ask(
        self, collection: Collection, judgments: Judgments, query: str, mode: EvaluationMode
    ) -> EvaluatedQuery:
        """Asks the version that was active at the beginning. A text that its model cannot encode finds nothing."""
        text, grades = judgments.queries[query], judgments.grades[query]
        request = replace(MODE_REQUESTS[mode], text=text, embedder_version=collection.active_version)
        try:
            answer = await search_when_free(self.search, collection.name, request)
        except Invalid as error:
            return EvaluatedQuery(ranking=(), grades=grades, milliseconds=0.0, degraded=(f"query: {error.detail}",))
        return EvaluatedQuery(
            ranking=[hit.id for hit in answer.hits],
            grades=grades,
            milliseconds=answer.timings.elapsed * 1000,
            degraded=tuple(f"{one.stage}: {one.reason}" for one in answer.degraded),
        )


async def search_when_free(search: SearchPipeline, name: CollectionName, request: SearchRequest) -> SearchResult:
    """The answer of a background search, repeated while the service is too busy with live ones to answer in full."""

    async def work() -> SearchResult:
        answer = await search.run_background(name, request)
        if any(one.code == Overloaded.__name__ for one in answer.degraded):
            raise Overloaded(retry_after=BUSY_SECONDS)
        return answer

    await asyncio.sleep(0)  # live searches first
    return await retry_overloaded(work)


def _evaluated(answers: Sequence[EvaluatedQuery]) -> ModeEvaluation:
    metrics = mean_metrics(answers)
    return ModeEvaluation(metrics=metrics, ndcg_interval=bootstrap(metrics.ndcg_per_query))
