"""What a search would have answered with other settings of the ranking, from what its legs and the reranker said. Pure.

A query is asked once for the best of each leg, with explanations. Fusion and blending are functions of what these
hold, and the very functions that serve searches run here: thousands of settings cost no search, and each gives the
answer that the service would give (tests/unit/cli/test_choose_ranking.py compares them).
Where a document has several chunks a leg brings about as many documents as it is asked for: the last few candidates may
be others, far from the first ten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.core.collections import FusionSettings, RerankSettings
from service.evaluation.ranking_metrics import ndcg
from service.search.fusion import FusedItem, LegScores, RankedScore, fuse
from service.search.rerank_blend import RerankBlend, trusted_weight

K = 10
"""Hits that settings are judged by."""
WIDEST = 200
"""Candidates of each leg that are heard: more cannot be tried."""
DEEPEST = 100
"""Hits that the reranker reads at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingSettings:
    """The settings of a ranking. `rerank` None: the first stage alone."""

    fusion: FusionSettings
    candidates: int
    rerank: RerankSettings | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedQuery:
    """What was said of one judged query. `grades`: document -> relevance; `relevance`: what the reranker gave it."""

    grades: Mapping[str, int]
    dense: Mapping[str, RankedScore]
    lexical: Mapping[str, RankedScore]
    certainty: float = 1.0
    relevance: Mapping[str, float] = field(default_factory=dict)


def questions(text: str) -> tuple[dict[str, Any], ...]:
    """The searches to send for a query: all weight on the dense leg, then none, so that each shows its best."""
    wanted = {"query": text, "k": WIDEST, "candidates": WIDEST, "include": [], "explain": True}
    return tuple({**wanted, "fusion": {"method": "convex", "alpha": alpha}} for alpha in (1.0, 0.0))


def heard(answers: Sequence[Mapping[str, Any]], grades: Mapping[str, int]) -> RecordedQuery:
    """From the answers to `questions`."""
    legs: dict[str, dict[str, RankedScore]] = {"dense": {}, "lexical": {}}
    for answer in answers:
        for hit in answer["hits"]:
            for leg, places in legs.items():
                if (told := hit["explain"][leg]) is not None:
                    places[hit["id"]] = RankedScore(told["score"], told["rank"])
    certainty = next((hit["explain"]["certainty"] for answer in answers for hit in answer["hits"]), 1.0)
    return RecordedQuery(grades=grades, dense=legs["dense"], lexical=legs["lexical"], certainty=certainty)


def reading(text: str, recipe: RankingSettings) -> dict[str, Any]:
    """The search that shows what the reranker makes of the best hits of a first stage, every one of them read."""
    fusion = {"method": recipe.fusion.method, "alpha": recipe.fusion.alpha, "k": recipe.fusion.k}
    return {
        "query": text,
        "k": DEEPEST,
        "candidates": recipe.candidates,
        "fusion": fusion,
        "rerank": {"depth": DEEPEST},
        "include": [],
        "explain": True,
    }


def read(answer: Mapping[str, Any]) -> dict[str, float]:
    """From the answer to `reading`: document -> relevance."""
    explained = {hit["id"]: hit["explain"]["rerank"] for hit in answer["hits"]}
    return {document: told["score"] for document, told in explained.items() if told is not None}


def first_stage(one: RecordedQuery, recipe: RankingSettings, width: int) -> list[FusedItem[str]]:
    """The fused ranking of what the legs bring when each is asked for `width`."""
    found = {
        document
        for places in (one.dense, one.lexical)
        for document, place in places.items()
        if place.rank is not None and place.rank <= width
    }
    dense, lexical = (
        {
            document: place if place.rank is not None and place.rank <= width else RankedScore(place.score, None)
            for document, place in places.items()
            if document in found
        }
        for places in (one.dense, one.lexical)
    )
    return fuse([LegScores(dense=dense, lexical=lexical, certainty=one.certainty)], recipe.fusion)


def ranking(one: RecordedQuery, recipe: RankingSettings, k: int = K) -> list[str]:
    """The first `k` documents of the answer. At most `WIDEST` candidates, and `DEEPEST` hits read, can be replayed."""
    how = recipe.rerank
    fused = first_stage(one, recipe, max(recipe.candidates, k, how.depth if how else 0))
    return [hit.item for hit in fused[:k]] if how is None else blended(one, fused, how)[:k]


def blended(one: RecordedQuery, fused: Sequence[FusedItem[str]], how: RerankSettings) -> list[str]:
    """The hits of a first stage, by their scores after the reranker read the first `depth`; the others follow."""
    head = fused[: how.depth]
    first = [hit.score for hit in head]
    relevance = [one.relevance.get(hit.item, 0.0) for hit in head]
    blend = RerankBlend(first, trusted_weight(first, relevance, how.weight))
    scored = [(-blend.score(at, relevance[at]), hit.item) for at, hit in enumerate(head)]
    return [item for _, item in sorted(scored)] + [hit.item for hit in fused[how.depth :]]


def quality(one: RecordedQuery, documents: Sequence[str]) -> float:
    """nDCG@10."""
    return ndcg(documents, one.grades, K)
