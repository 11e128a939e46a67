"""How several rankings become one. Pure: what each leg says of each query in, one ranking with its explanation out.

Convex combination follows Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (TOIS 2023):
each leg is scaled per query from a fixed lower bound to its best score, then weighed. Their bound for cosine is its
theoretical minimum, -1, which no text embedder comes near; ours is 0, where texts that have nothing in common lie
(docs/decisions/0009 has the figures). Reciprocal rank fusion follows Cormack, Clarke and Buettcher (SIGIR 2009).

Several queries are summed by their weights: of scaled scores that is CombSUM (Fox and Shaw, TREC-2, 1994), of
reciprocal ranks it is RRF over the lists of all of them. The sum is divided by the sum of the weights, so that scores
lie in [0, 1] however many ask.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.domain import Fusion
from service.query import Explanation, LegExplanation, QueryExplanation

COSINE_FLOOR = 0.0
BM25_FLOOR = 0.0

Item = TypeVar("Item", bound=Hashable)
"""What is ranked: documents, or chunks. Of one kind, that has an order."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item stands in the list of one leg: `rank` from 1, None where the leg did not find it itself."""

    score: float
    rank: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence(Generic[Item]):
    """What the legs say of one query. None: a leg that did not run.

    `dense` may hold, without a rank, exact scores that were looked up for items that something else found: they count
    in a convex combination. An item that a leg knows nothing of has that leg's lower bound. `weight`: above 0.
    """

    dense: Mapping[Item, Place] | None = None
    lexical: Mapping[Item, Place] | None = None
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Fused(Generic[Item]):
    """One item in the fused ranking."""

    item: Item
    score: float
    explanation: Explanation


def ranked(scores: Mapping[Item, float], found: int | None = None) -> dict[Item, Place]:
    """The list of a leg, best first, by place; after the first `found` entries come scores that were looked up."""
    return {
        item: Place(score, rank if found is None or rank <= found else None)
        for rank, (item, score) in enumerate(scores.items(), start=1)
    }


def fuse(evidence: Sequence[Evidence[Item]], how: Fusion) -> list[Fused[Item]]:
    """Rank everything that any leg knows, best first; ties by the best cosine, then by item.

    A leg that did not run leaves the decision on its query to the other.
    """
    whole = math.fsum(one.weight for one in evidence)
    explained = [_explain(one, how, one.weight / whole) for one in evidence]
    items = dict.fromkeys(item for one in explained for item in one)
    fused = [_fused(item, [one.get(item) for one in explained]) for item in items]
    fused.sort(key=lambda one: (-one.score, -_cosine(one.explanation), one.item))
    return fused


def _fused(item: Item, queries: Sequence[QueryExplanation | None]) -> Fused[Item]:
    """The sum over the queries; legs are shown as they stood in the one that counts most for this item."""
    known = [one for one in queries if one is not None]
    score = math.fsum(one.gain for one in known)  # exact, so that the order of the queries cannot matter
    most = max(known, key=lambda one: one.gain)
    explanation = Explanation(
        dense=most.dense,
        lexical=most.lexical,
        fusion=score,
        queries=tuple(one or QueryExplanation() for one in queries) if len(queries) > 1 else (),
    )
    return Fused(item=item, score=score, explanation=explanation)


def _explain(evidence: Evidence[Item], how: Fusion, share: float) -> dict[Item, QueryExplanation]:
    """What the legs say of one query, and what each item gains by it when the query counts `share`."""
    dense = _scale(evidence.dense, COSINE_FLOOR)
    lexical = _scale(evidence.lexical, BM25_FLOOR)
    both = evidence.dense is not None and evidence.lexical is not None
    weights = (how.alpha, 1.0 - how.alpha) if both else (1.0, 1.0)

    def gain(item: Item) -> float:
        legs = (dense.get(item), lexical.get(item))
        if how.method == "rrf":
            return sum(1.0 / (how.k + leg.rank) for leg in legs if leg is not None and leg.rank is not None)
        return sum(weight * leg.normalised for weight, leg in zip(weights, legs, strict=True) if leg is not None)

    return {
        item: QueryExplanation(dense=dense.get(item), lexical=lexical.get(item), gain=share * gain(item))
        for item in dict.fromkeys((*dense, *lexical))
    }


def _scale(places: Mapping[Item, Place] | None, floor: float) -> dict[Item, LegExplanation]:
    """Scale one leg. A leg whose best score is not above its lower bound says nothing: all of it is 0."""
    if places is None:
        return {}
    best = max((place.score for place in places.values()), default=floor)
    span = best - floor
    return {
        item: LegExplanation(
            rank=place.rank,
            score=place.score,
            normalised=max(0.0, place.score - floor) / span if span > 0 else 0.0,
        )
        for item, place in places.items()
    }


def _cosine(explanation: Explanation) -> float:
    """The best that any query has for a hit: what is scaled to 0 can still be told apart by it."""
    legs = [explanation.dense, *(query.dense for query in explanation.queries)]
    return max((leg.score for leg in legs if leg is not None), default=-math.inf)
