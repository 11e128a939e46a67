"""Fusion of several rankings into one. Pure: the scores of each leg for each query in, one explained ranking out.

Convex combination follows Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (TOIS 2023):
each leg is scaled per query from a fixed lower bound to its best score, then weighted. Their bound for cosine is its
theoretical minimum, -1, which no text embedder comes near; ours is 0, where texts that have nothing in common lie
(docs/decisions/0009 has the figures). Reciprocal rank fusion follows Cormack, Clarke and Buettcher (SIGIR 2009).

Several queries are averaged by their weights, so that scores lie in [0, 1]: for scaled scores this is CombSUM (Fox and
Shaw, TREC-2, 1994), for reciprocal ranks it is RRF over the lists of all of them.

The fixed lower bound also settles the special cases: scores that are all equal, or a single one, are the best (1); a
negative cosine counts 0; and the number of candidates changes no score. docs/decisions/0024 has the measurements.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from service.core.collections import FusionSettings
from service.core.search import Explanation, LegExplanation, QueryExplanation

FLOOR = 0.0
"""The lower bound of both cosine and BM25."""

Item = TypeVar("Item", bound=Hashable)
"""What is ranked: documents or chunks. Items are comparable."""


@dataclass(frozen=True, slots=True)
class RankedScore:
    """The score of an item in one leg and its rank from 1; `rank` is None where the score was only looked up."""

    score: float
    rank: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LegScores(Generic[Item]):
    """The scores of both legs for one query; None for a leg that did not run.

    Exact scores without a rank, looked up for items that something else found, count in a convex combination. An item
    that a leg does not know has that leg's lower bound. `weight`: above 0. `certainty` in [0, 1]: see `DenseCertainty`.
    """

    dense: Mapping[Item, RankedScore] | None = None
    lexical: Mapping[Item, RankedScore] | None = None
    weight: float = 1.0
    certainty: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FusedItem(Generic[Item]):
    item: Item
    score: float
    explanation: Explanation


def rank_scores(scores: Mapping[Item, float], found: int | None = None) -> dict[Item, RankedScore]:
    """Rank scores that are given best first; those after the first `found` were looked up and get no rank."""
    return {
        item: RankedScore(score, rank if found is None or rank <= found else None)
        for rank, (item, score) in enumerate(scores.items(), start=1)
    }


def fuse(queries: Sequence[LegScores[Item]], settings: FusionSettings) -> list[FusedItem[Item]]:
    """Rank all items that any leg knows, best first; ties by the best cosine, then by BM25, then by item.

    In a convex combination the odds of the dense leg are `alpha` : 1 - `alpha`, times its certainty. A leg without
    evidence (it did not run, or found nothing above its lower bound) leaves the decision on its query to the other
    leg, whose scores are not diminished.
    """
    total_weight = math.fsum(query.weight for query in queries)
    explained = [_explain(query, settings, query.weight / total_weight) for query in queries]
    items = dict.fromkeys(item for one in explained for item in one)
    fused = [_fuse_item(item, [one.get(item) for one in explained]) for item in items]
    fused.sort(key=_order)
    return fused


def _fuse_item(item: Item, queries: Sequence[QueryExplanation | None]) -> FusedItem[Item]:
    """The sum over the queries; the legs shown are those of the query that contributes most."""
    known = [one for one in queries if one is not None]
    score = math.fsum(one.gain for one in known)  # exact, so that the order of the queries cannot matter
    most = max(known, key=lambda one: one.gain)
    explanation = Explanation(
        dense=most.dense,
        lexical=most.lexical,
        fusion=score,
        certainty=most.certainty,
        queries=tuple(one or QueryExplanation() for one in queries) if len(queries) > 1 else (),
    )
    return FusedItem(item=item, score=score, explanation=explanation)


def _explain(query: LegScores[Item], settings: FusionSettings, share: float) -> dict[Item, QueryExplanation]:
    """What each item gains by a query that counts `share` of all."""
    dense_weight, lexical_weight = _leg_weights(query, settings)
    dense = _scale(query.dense, settings, share * dense_weight)
    lexical = _scale(query.lexical, settings, share * lexical_weight)

    def explanation(item: Item) -> QueryExplanation:
        legs = (dense.get(item), lexical.get(item))
        gain = math.fsum(leg.share for leg in legs if leg is not None)
        return QueryExplanation(dense=legs[0], lexical=legs[1], gain=gain, certainty=query.certainty)

    return {item: explanation(item) for item in dict.fromkeys((*dense, *lexical))}


def _leg_weights(query: LegScores[Item], settings: FusionSettings) -> tuple[float, float]:
    """The weights of the dense and the lexical leg; reciprocal ranks are not weighted."""
    if settings.method == "rrf" or not (_has_evidence(query.dense) and _has_evidence(query.lexical)):
        return 1.0, 1.0
    weight = dense_weight(settings, query.certainty)
    return weight, 1.0 - weight


def dense_weight(settings: FusionSettings, certainty: float) -> float:
    """What the dense leg has of both in a convex combination."""
    odds = settings.alpha * certainty
    return odds / (odds + 1.0 - settings.alpha) if settings.alpha < 1.0 else 1.0


def _has_evidence(scores: Mapping[Item, RankedScore] | None) -> bool:
    return scores is not None and any(one.score > FLOOR for one in scores.values())


def _scale(
    scores: Mapping[Item, RankedScore] | None, settings: FusionSettings, weight: float
) -> dict[Item, LegExplanation]:
    """Scale and weight one leg. Without a score above the lower bound everything is 0."""
    if scores is None:
        return {}
    span = max((one.score for one in scores.values()), default=FLOOR) - FLOOR

    def explanation(one: RankedScore) -> LegExplanation:
        normalised = max(0.0, one.score - FLOOR) / span if span > 0 else 0.0
        if settings.method == "rrf":
            share = 0.0 if one.rank is None else weight / (settings.k + one.rank)
        else:
            share = weight * normalised
        return LegExplanation(rank=one.rank, score=one.score, normalised=normalised, share=share)

    return {item: explanation(one) for item, one in scores.items()}


def _order(fused: FusedItem[Item]) -> tuple[float, float, float, Item]:
    """By score, then by the best cosine and the best BM25 score over all queries, then by item.

    The raw scores tell apart what was scaled to 0 or has equal ranks.
    """
    explanation = fused.explanation
    return (-fused.score, -_best_score(explanation, "dense"), -_best_score(explanation, "lexical"), fused.item)


def _best_score(explanation: Explanation, leg: Literal["dense", "lexical"]) -> float:
    if not explanation.queries:  # the common case of one query, kept fast
        only: LegExplanation | None = getattr(explanation, leg)
        return -math.inf if only is None else only.score
    legs: list[LegExplanation | None] = [getattr(query, leg) for query in explanation.queries]
    return max((one.score for one in legs if one is not None), default=-math.inf)
