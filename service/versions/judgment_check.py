"""Is a version worse than the active one, by the judgments of their collection and beyond the noise?

Both answer every judged query as a client's search, query by query in turns, so that both find the same documents. The
differences get a paired bootstrap interval; a version fails only where the whole interval is below zero.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from service.core.collections import Collection
from service.core.concurrency import off_loop
from service.core.errors import Invalid, ModelUnavailable, SpaceRefused, Unavailable
from service.core.ids import DocumentId
from service.core.search import Mode, SearchRequest
from service.core.versions import EmbedderVersion, Judgments, PromotionCheck
from service.evaluation.evaluator import search_when_free
from service.evaluation.ranking_metrics import MeanInterval, ndcg, paired_bootstrap, recall
from service.search.pipeline import SearchPipeline
from service.spaces.model_verification import ModelVerifier
from service.spaces.sampling import CollectionSampler, stable_sample

MAX_QUERIES = 1_000
MIN_QUERIES = 10
"""Fewer judged queries decide nothing: a bootstrap knows no more than the sample it draws from."""
DEPTH = 100
MODES: Final[tuple[Mode, ...]] = ("dense", "hybrid")
MEASURES: Mapping[str, Callable[[Sequence[str], Mapping[str, int]], float]] = {
    "nDCG@10": lambda ranking, grades: ndcg(ranking, grades, 10),
    "Recall@100": lambda ranking, grades: recall(ranking, grades, 100),
}
CONFIDENCE = 1 - 0.05 / (len(MODES) * len(MEASURES))
"""Of each interval, so that all together have 95 % (Bonferroni). With 95 % for each, one in ten versions that are no
worse would be refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgmentCheck:
    """Compares two versions by the judgments of their collection."""

    search: SearchPipeline
    verifier: ModelVerifier
    sampling: CollectionSampler

    async def compare(
        self,
        collection: Collection,
        version: EmbedderVersion,
        active: EmbedderVersion | None,
        judgments: Judgments | None,
    ) -> PromotionCheck:
        """Failed where any measure in any mode is worse. Unavailable where it cannot be measured now."""
        if judgments is None:
            return _undecided("no judgments were uploaded for this collection")
        if active is None:
            return _undecided("there is no other version to compare with")
        if version.spec.external or active.spec.external:
            return _undecided("the client makes the vectors of queries too, and judgments bring only texts")
        try:
            await self.verifier.ensure(active)
        except (SpaceRefused, ModelUnavailable) as error:
            return _undecided(f"the active version cannot be searched: {error.detail}")
        relevant = await off_loop(0, judgments.relevant)
        relevant_ids = frozenset[DocumentId]().union(*relevant.values())
        existing = await self.sampling.existing_ids(collection, relevant_ids)
        # A query that neither version can answer would count as agreement.
        answerable = [query for query, ids in relevant.items() if not existing.isdisjoint(ids)]
        queries = stable_sample(sorted(answerable), MAX_QUERIES)
        figures: dict[str, Any] = {
            "queries": len(queries),
            "confidence": round(CONFIDENCE, 4),
            "queries_without_documents": len(relevant) - len(answerable),
            "relevant_documents": len(relevant_ids),
            "relevant_documents_missing": len(relevant_ids) - len(existing),
        }
        if not queries:
            return _undecided("no document that was judged relevant is in the collection", figures)
        differences: dict[tuple[str, Mode], MetricDifference] = {}
        for mode in MODES:
            old, new = [], []
            for query in queries:
                text = judgments.queries[query]
                old.append(await self._ranking(collection, active, text, mode))
                new.append(await self._ranking(collection, version, text, mode))
            grades = [judgments.grades[query] for query in queries]
            for name, measure in MEASURES.items():
                differences[name, mode] = await asyncio.to_thread(
                    MetricDifference.between, list(map(measure, old, grades)), list(map(measure, new, grades))
                )
            figures[mode] = {name: differences[name, mode].figures() for name in MEASURES}
        return _verdict(differences, len(queries), figures)

    async def _ranking(
        self, collection: Collection, version: EmbedderVersion, text: str, mode: Mode
    ) -> tuple[DocumentId, ...]:
        """The hits of one version; empty where its model cannot encode the text. Unavailable where a leg failed."""
        request = SearchRequest(
            text=text, k=DEPTH, candidates=DEPTH, mode=mode, embedder_version=version.number, include=frozenset()
        )
        try:
            answer = await search_when_free(self.search, collection.name, request)
        except Invalid:
            return ()
        except SpaceRefused as error:
            # The model was verified a moment ago, so the version is not refused but measured another time.
            raise Unavailable(error.detail) from error
        if not answer.complete:
            raise Unavailable("; ".join(f"{one.stage}: {one.reason}" for one in answer.degraded))
        return tuple(hit.id for hit in answer.hits)


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricDifference:
    """Means of one measure over the same queries, and the interval of their difference."""

    old: float
    new: float
    interval: MeanInterval

    @classmethod
    def between(cls, old: Sequence[float], new: Sequence[float]) -> "MetricDifference":
        return cls(old=fmean(old), new=fmean(new), interval=paired_bootstrap(old, new, confidence=CONFIDENCE))

    @property
    def worse(self) -> bool:
        return self.interval.high < 0

    @property
    def verdict(self) -> str:
        if self.worse:
            return "worse beyond the noise"
        return "better beyond the noise" if self.interval.low > 0 else "no difference beyond the noise"

    def __str__(self) -> str:
        between = f"[{self.interval.low:.4f}, {self.interval.high:.4f}]"
        return f"{self.old:.4f} -> {self.new:.4f}, difference {self.interval.mean:+.4f} {between}"

    def figures(self) -> dict[str, float]:
        values = {"old": self.old, "new": self.new, "difference": self.interval.mean}
        bounds = {"low": self.interval.low, "high": self.interval.high}
        return {name: round(value, 4) for name, value in {**values, **bounds}.items()}


def _verdict(
    differences: Mapping[tuple[str, Mode], MetricDifference], queries: int, figures: Mapping[str, Any]
) -> PromotionCheck:
    """The detail names the measures that are worse, or nDCG where none is."""
    worse = {key: difference for key, difference in differences.items() if difference.worse}
    shown = worse or {key: difference for key, difference in differences.items() if key[0] == "nDCG@10"}
    detail = "; ".join(
        f"{measure} {mode} {difference} over {queries} queries: {difference.verdict}"
        for (measure, mode), difference in shown.items()
    )
    if queries < MIN_QUERIES:
        return _undecided(f"{detail}; {MIN_QUERIES} judged queries are needed to decide", figures)
    return PromotionCheck(name="judgments", passed=not worse, detail=detail, figures=figures)


def _undecided(detail: str, figures: Mapping[str, Any] | None = None) -> PromotionCheck:
    return PromotionCheck(name="judgments", passed=None, detail=detail, figures=figures or {})
