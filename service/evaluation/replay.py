"""The ranking that a search would have given with other settings, from recorded scores of its legs and reranker. Pure.

A query runs once for the best of each leg, with explanations. Fusion and blending are functions of these scores,
and the functions that serve searches run here, so that thousands of settings cost no search and each gives the answer
of the service (tests/unit/cli/test_choose_ranking.py compares them). Where a document has several chunks, a leg returns
only about as many documents as requested: the last few candidates may differ, far from the first ten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from service.core.collections import FusionSettings, RerankSettings
from service.evaluation.ranking_metrics import ndcg
from service.search.fusion import Leg, LegScores, Ranking, fuse
from service.search.rerank_blend import RerankBlend, trusted_weight

K = 10
"""Hits that settings are judged by."""
MAX_CANDIDATES, MAX_DEPTH = 200, 100
"""Recorded candidates of each leg, and recorded hits of the reranker: settings above these cannot be replayed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingSettings:
    """`rerank` None: the first stage alone."""

    fusion: FusionSettings
    candidates: int
    rerank: RerankSettings | None = None


Place = tuple[float, int | None]
"""The score of a document in one leg and its rank from 1; None where the score was only looked up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedQuery:
    """The scores of one judged query. `grades`: document -> judgment. `relevance`: document -> the reranker's score."""

    grades: Mapping[str, int]
    dense: Mapping[str, Place]
    lexical: Mapping[str, Place]
    certainty: float = 1.0
    lexical_certainty: float = 1.0
    floor: float = 0.0
    relevance: Mapping[str, float] = field(default_factory=dict)


def leg_requests(text: str) -> tuple[dict[str, Any], ...]:
    """Two searches for a query: with all weight on the dense leg, and with none, so that each shows its best."""
    request = {"query": text, "k": MAX_CANDIDATES, "candidates": MAX_CANDIDATES, "include": [], "explain": True}
    return tuple({**request, "fusion": {"method": "convex", "alpha": alpha}} for alpha in (1.0, 0.0))


def recorded_query(answers: Sequence[Mapping[str, Any]], grades: Mapping[str, int]) -> RecordedQuery:
    """From the answers to `leg_requests`."""
    hits = [hit for answer in answers for hit in answer["hits"]]
    legs: dict[str, dict[str, Place]] = {"dense": {}, "lexical": {}}
    for hit, (leg, scores) in product(hits, legs.items()):
        if (explained := hit["explain"][leg]) is not None:
            scores[hit["id"]] = explained["score"], explained["rank"]
    explained = hits[0]["explain"] if hits else {}
    trust = {name: explained[name] for name in ("certainty", "lexical_certainty", "floor") if name in explained}
    return RecordedQuery(grades=grades, dense=legs["dense"], lexical=legs["lexical"], **trust)


def rerank_request(text: str, settings: RankingSettings) -> dict[str, Any]:
    """The search that shows the reranker's scores of the best hits of a first stage."""
    fusion = {"method": settings.fusion.method, "alpha": settings.fusion.alpha, "k": settings.fusion.k}
    request = {"query": text, "k": MAX_DEPTH, "candidates": settings.candidates, "include": [], "explain": True}
    return {**request, "fusion": fusion, "rerank": {"depth": MAX_DEPTH}}


def rerank_scores(answer: Mapping[str, Any]) -> dict[str, float]:
    """From the answer to `rerank_request`: document -> relevance."""
    explained = {hit["id"]: hit["explain"]["rerank"] for hit in answer["hits"]}
    return {document: reranked["score"] for document, reranked in explained.items() if reranked is not None}


def first_stage(query: RecordedQuery, settings: RankingSettings, width: int) -> Ranking[str]:
    """The fused ranking of what the legs return when each is asked for `width` candidates."""

    def rank(place: Place) -> int:
        return place[1] if place[1] is not None and place[1] <= width else 0

    found = {document for leg in (query.dense, query.lexical) for document, place in leg.items() if rank(place)}

    def scores(leg: Mapping[str, Place], floor: float = 0.0) -> Leg[str]:
        known = {document: place for document, place in leg.items() if document in found}
        ranks = np.array([rank(place) for place in known.values()], np.int64)
        return Leg(list(known), np.array([score for score, _ in known.values()]), ranks, floor)

    legs = LegScores(
        dense=scores(query.dense, query.floor),
        lexical=scores(query.lexical),
        certainty=query.certainty,
        lexical_certainty=query.lexical_certainty,
    )
    return fuse([legs], settings.fusion)


def ranking(query: RecordedQuery, settings: RankingSettings, k: int = K) -> list[str]:
    """The first `k` documents of the answer."""
    rerank = settings.rerank
    fused = first_stage(query, settings, max(settings.candidates, k, rerank.depth if rerank else 0))
    return fused.items[:k] if rerank is None else reranked(query, fused, rerank)[:k]


def reranked(query: RecordedQuery, fused: Ranking[str], rerank: RerankSettings) -> list[str]:
    """The hits of a first stage, the first `depth` of them reordered by their blended scores."""
    head = fused[: rerank.depth]
    first = [hit.score for hit in head]
    relevance = [query.relevance.get(hit.item, 0.0) for hit in head]
    blend = RerankBlend(first, trusted_weight(first, relevance, rerank.weight))
    scored = [(-blend.score(at, relevance[at]), hit.item) for at, hit in enumerate(head)]
    return [item for _, item in sorted(scored)] + fused.items[rerank.depth :]


def quality(query: RecordedQuery, documents: Sequence[str]) -> float:
    """nDCG@10."""
    return ndcg(documents, query.grades, K)
