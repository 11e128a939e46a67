"""Two versions against the judgments of their collection: is the new one worse than the old one beyond the noise?

Both answer every judged query as a client would have it answered, query by query in turns, so that both meet the same
documents. The differences have a paired bootstrap interval: only one that lies below zero as a whole speaks against it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from service.core.collections import Collection
from service.core.errors import Invalid, ModelUnavailable, Overloaded, SpaceRefused, Unavailable
from service.core.ids import DocumentId
from service.core.search import Mode, SearchRequest
from service.core.versions import EmbedderVersion, Judgments, PromotionCheck
from service.evaluation.ranking_metrics import Interval, ndcg, paired_bootstrap, recall
from service.search.pipeline import SearchPipeline
from service.spaces.model_verification import ModelVerifier
from service.spaces.sampling import CollectionSampler, patiently, some

QUERIES = 1_000
"""Most judged queries that are asked."""
FEW = 10
"""Fewer judged queries than that decide nothing: a bootstrap knows no more than the sample it draws from."""
BUSY_SECONDS = 1.0
"""Pause before a search is tried again of which the service had no time for a part."""
DEPTH = 100
MODES: Final[tuple[Mode, ...]] = ("dense", "hybrid")
MEASURES: Mapping[str, Callable[[Sequence[str], Mapping[str, int]], float]] = {
    "nDCG@10": lambda ranking, grades: ndcg(ranking, grades, 10),
    "Recall@100": lambda ranking, grades: recall(ranking, grades, 100),
}

CONFIDENCE = 1 - 0.05 / (len(MODES) * len(MEASURES))
"""Of each interval: all of them together then have 95 % (Bonferroni). With 95 % for each, one in ten versions that are
no worse would be refused."""


class JudgmentCheck:
    def __init__(self, *, search: SearchPipeline, verifier: ModelVerifier, sampling: CollectionSampler) -> None:
        self._search = search
        self._verifier = verifier
        self._sampling = sampling

    async def judge(
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
            await self._verifier.ensure(active)
        except (SpaceRefused, ModelUnavailable) as error:
            return _undecided(f"the active version cannot be asked: {error.detail}")
        relevant = _relevant(judgments)
        wanted = frozenset[DocumentId]().union(*relevant.values())
        there = await self._sampling.there(collection, wanted)
        # What neither version can find would count as agreement.
        answerable = [query for query, ids in relevant.items() if not there.isdisjoint(ids)]
        chosen = some(sorted(answerable), QUERIES)
        figures: dict[str, Any] = {
            "queries": len(chosen),
            "confidence": round(CONFIDENCE, 4),
            "queries_without_documents": len(relevant) - len(answerable),
            "relevant_documents": len(wanted),
            "relevant_documents_missing": len(wanted) - len(there),
        }
        if not chosen:
            return _undecided("no document that was judged relevant is in the collection", figures)
        differences: dict[tuple[str, Mode], MetricDifference] = {}
        for mode in MODES:
            old, new = [], []
            for query in chosen:
                text = judgments.queries[query]
                old.append(await self._ranking(collection, active, text, mode))
                new.append(await self._ranking(collection, version, text, mode))
            for name, measure in MEASURES.items():
                differences[name, mode] = await asyncio.to_thread(
                    MetricDifference.between,
                    [measure(ranking, judgments.grades[query]) for query, ranking in zip(chosen, old, strict=True)],
                    [measure(ranking, judgments.grades[query]) for query, ranking in zip(chosen, new, strict=True)],
                )
            figures[mode] = {name: differences[name, mode].figures() for name in MEASURES}
        return _verdict(differences, len(chosen), figures)

    async def _ranking(
        self, collection: Collection, version: EmbedderVersion, text: str, mode: Mode
    ) -> tuple[DocumentId, ...]:
        """The answer of one version; empty where its model can do nothing with the text.

        Unavailable where a leg had to be left out: half an answer is no evidence.
        """
        request = SearchRequest(
            text=text, k=DEPTH, candidates=DEPTH, mode=mode, embedder_version=version.number, include=frozenset()
        )

        async def ask() -> tuple[DocumentId, ...]:
            try:
                answer = await self._search.run_background(collection.name, request)
            except Invalid:
                return ()
            except SpaceRefused as error:
                # It was proven a moment ago, so this is no verdict on the version: measure it another time.
                raise Unavailable(error.detail) from error
            if any(one.code == Overloaded.__name__ for one in answer.degraded):
                raise Overloaded(retry_after=BUSY_SECONDS)
            if not answer.complete:
                raise Unavailable("; ".join(f"{one.stage}: {one.reason}" for one in answer.degraded))
            return tuple(hit.id for hit in answer.hits)

        await asyncio.sleep(0)  # live searches first
        return await patiently(ask)


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricDifference:
    """Means of one measure over the same queries, and how far apart they are."""

    old: float
    new: float
    interval: Interval

    @classmethod
    def between(cls, old: Sequence[float], new: Sequence[float]) -> "MetricDifference":
        return cls(old=fmean(old), new=fmean(new), interval=paired_bootstrap(old, new, confidence=CONFIDENCE))

    @property
    def worse(self) -> bool:
        """Beyond the noise."""
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


def _relevant(judgments: Judgments) -> Mapping[str, frozenset[DocumentId]]:
    """What is relevant for each query; those that nothing is are left out: about them a ranking can say nothing."""
    relevant = {
        query: frozenset(DocumentId(id_) for id_, grade in grades.items() if grade > 0)
        for query, grades in judgments.grades.items()
        if query in judgments.queries
    }
    return {query: ids for query, ids in relevant.items() if ids}


def _verdict(
    differences: Mapping[tuple[str, Mode], MetricDifference], queries: int, figures: Mapping[str, Any]
) -> PromotionCheck:
    """What is worse is what the detail speaks of; else nDCG."""
    worse = {key: difference for key, difference in differences.items() if difference.worse}
    told = worse or {key: difference for key, difference in differences.items() if key[0] == "nDCG@10"}
    detail = "; ".join(
        f"{measure} {mode} {difference} over {queries} queries: {difference.verdict}"
        for (measure, mode), difference in told.items()
    )
    if queries < FEW:
        return _undecided(f"{detail}; {FEW} judged queries are needed to decide", figures)
    return PromotionCheck(name="judgments", passed=not worse, detail=detail, figures=figures)


def _undecided(detail: str, figures: Mapping[str, Any] | None = None) -> PromotionCheck:
    return PromotionCheck(name="judgments", passed=None, detail=detail, figures=figures or {})
