"""How several rankings become one. Pure: what each leg says of each query in, one ranking with its explanation out.

Convex combination follows Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (TOIS 2023):
each leg is scaled per query from a fixed lower bound to its best score, then weighed. Their bound for cosine is its
theoretical minimum, -1, which no text embedder comes near; ours is 0, where texts that have nothing in common lie
(docs/decisions/0009 has the figures). Reciprocal rank fusion follows Cormack, Clarke and Buettcher (SIGIR 2009).

Several queries are summed by their weights: of scaled scores that is CombSUM (Fox and Shaw, TREC-2, 1994), of
reciprocal ranks it is RRF over the lists of all of them. The sum is divided by the sum of the weights, so that scores
lie in [0, 1] however many ask.

A fixed lower bound also settles the odd cases: scores that are all equal, or a single one, are all the best (1), where
scaling from the lowest would divide zero by zero; a score below the bound (a negative cosine) is no evidence and counts
0, never less; and how many candidates a leg brought moves no score. docs/decisions/0024 has what was measured.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from service.core.collections import FusionSettings
from service.core.search import Explanation, LegExplanation, QueryExplanation

COSINE_FLOOR = 0.0
BM25_FLOOR = 0.0

Item = TypeVar("Item", bound=Hashable)
"""What is ranked: documents, or chunks. Of one kind, that has an order."""


@dataclass(frozen=True, slots=True)
class RankedScore:
    """Where an item stands in the list of one leg: `rank` from 1, None where the leg did not find it itself."""

    score: float
    rank: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LegScores(Generic[Item]):
    """What the legs say of one query. None: a leg that did not run.

    Either may hold, without a rank, exact scores that were looked up for items that something else found: they count
    in a convex combination. An item that a leg knows nothing of has that leg's lower bound. `weight`: above 0.
    `certainty` in [0, 1]: how far the best cosine is from what chance would give (`background.py`).
    """

    dense: Mapping[Item, RankedScore] | None = None
    lexical: Mapping[Item, RankedScore] | None = None
    weight: float = 1.0
    certainty: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FusedItem(Generic[Item]):
    """One item in the fused ranking."""

    item: Item
    score: float
    explanation: Explanation


def rank_scores(scores: Mapping[Item, float], found: int | None = None) -> dict[Item, RankedScore]:
    """The list of a leg, best first, by place; after the first `found` entries come scores that were looked up."""
    return {
        item: RankedScore(score, rank if found is None or rank <= found else None)
        for rank, (item, score) in enumerate(scores.items(), start=1)
    }


def fuse(evidence: Sequence[LegScores[Item]], how: FusionSettings) -> list[FusedItem[Item]]:
    """Rank everything that any leg knows, best first; ties by the best cosine, then by BM25, then by item.

    In a convex combination the odds of the dense leg are `alpha` : 1 - `alpha`, times its certainty. A leg that has
    nothing to say, because it did not run, found nothing or found nothing above its lower bound, leaves the
    decision on its query to the other, whose scores are not diminished.
    """
    whole = math.fsum(one.weight for one in evidence)
    explained = [_explain(one, how, one.weight / whole) for one in evidence]
    items = dict.fromkeys(item for one in explained for item in one)
    fused = [_fused(item, [one.get(item) for one in explained]) for item in items]
    fused.sort(key=_order)
    return fused


def _fused(item: Item, queries: Sequence[QueryExplanation | None]) -> FusedItem[Item]:
    """The sum over the queries; legs are shown as they stood in the one that counts most for this item."""
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


def _explain(evidence: LegScores[Item], how: FusionSettings, share: float) -> dict[Item, QueryExplanation]:
    """What the legs say of one query, and what each item gains by it when the query counts `share`."""
    meaning, words = _weights(evidence, how)
    dense = _scale(evidence.dense, COSINE_FLOOR, how, share * meaning)
    lexical = _scale(evidence.lexical, BM25_FLOOR, how, share * words)

    def explanation(item: Item) -> QueryExplanation:
        legs = (dense.get(item), lexical.get(item))
        gain = math.fsum(leg.share for leg in legs if leg is not None)
        return QueryExplanation(dense=legs[0], lexical=legs[1], gain=gain, certainty=evidence.certainty)

    return {item: explanation(item) for item in dict.fromkeys((*dense, *lexical))}


def _weights(evidence: LegScores[Item], how: FusionSettings) -> tuple[float, float]:
    """Of the dense and of the lexical leg; reciprocal ranks are not weighed."""
    if how.method == "rrf" or not _speaks(evidence.dense, COSINE_FLOOR) or not _speaks(evidence.lexical, BM25_FLOOR):
        return 1.0, 1.0
    meaning = how.alpha * evidence.certainty
    weight = meaning / (meaning + 1.0 - how.alpha) if how.alpha < 1.0 else 1.0
    return weight, 1.0 - weight


def _speaks(places: Mapping[Item, RankedScore] | None, floor: float) -> bool:
    return places is not None and any(place.score > floor for place in places.values())


def _scale(
    places: Mapping[Item, RankedScore] | None, floor: float, how: FusionSettings, weight: float
) -> dict[Item, LegExplanation]:
    """Scale one leg. A leg whose best score is not above its lower bound says nothing: all of it is 0."""
    if places is None:
        return {}
    span = max((place.score for place in places.values()), default=floor) - floor

    def explanation(place: RankedScore) -> LegExplanation:
        normalised = max(0.0, place.score - floor) / span if span > 0 else 0.0
        if how.method == "rrf":
            share = 0.0 if place.rank is None else weight / (how.k + place.rank)
        else:
            share = weight * normalised
        return LegExplanation(rank=place.rank, score=place.score, normalised=normalised, share=share)

    return {item: explanation(place) for item, place in places.items()}


def _order(one: FusedItem[Item]) -> tuple[float, float, float, Item]:
    """By score, then by the best cosine and the best BM25 score that any query has for it, then by item.

    What is scaled to 0, or has equal ranks, can still be told apart by them.
    """
    told = one.explanation
    return (-one.score, -_best_score(told, "dense"), -_best_score(told, "lexical"), one.item)


def _best_score(told: Explanation, leg: Literal["dense", "lexical"]) -> float:
    if not told.queries:  # of one query, as most have
        only: LegExplanation | None = getattr(told, leg)
        return -math.inf if only is None else only.score
    legs: list[LegExplanation | None] = [getattr(query, leg) for query in told.queries]
    return max((one.score for one in legs if one is not None), default=-math.inf)
