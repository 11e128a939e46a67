"""Fusion of several rankings into one. Pure: the scores of each leg for each query in, one explained ranking out.

Convex combination follows Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (TOIS 2023):
each leg is scaled per query from a lower bound to its best score, then weighted. Their bound for cosine is its
theoretical minimum, -1, which no text embedder comes near; ours is where texts lie that have nothing in common: 0, or
more where an embedder has all texts in a narrow cone (docs/decisions/0009 and 0059 have the figures). Reciprocal rank
fusion follows Cormack, Clarke and Buettcher (SIGIR 2009).

Several queries are averaged by their weights, so that scores lie in [0, 1]: for scaled scores this is CombSUM (Fox and
Shaw, TREC-2, 1994), for reciprocal ranks it is RRF over the lists of all of them.

The fixed lower bound also settles the special cases: scores that are all equal, or a single one, are the best (1); a
negative cosine counts 0; and the number of candidates changes no score. docs/decisions/0024 has the measurements.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from service.core.collections import FusionSettings
from service.core.explanation import Explanation, LegExplanation, QueryExplanation

LEAST_CERTAINTY = 1e-3
"""Of the lexical leg, so that there is a leg that decides where both are at chance."""

Item = TypeVar("Item", bound=Hashable)
"""What is ranked: documents or chunks. Items are comparable."""

Columns = npt.NDArray[np.float64]
"""What one leg says of all items, shape [4, items]: score (minus infinity where it is unknown), rank (0: none), scaled
score, and share of the fused score."""
_SCORE, _SHARE = 0, 3


@dataclass(frozen=True, slots=True)
class Leg(Generic[Item]):
    """The scores of different items in one leg, and their ranks from 1; 0 where the score was only looked up.

    `floor`: the lower bound, which an item has that the leg does not know.
    """

    items: Sequence[Item]
    scores: npt.NDArray[np.float64]
    ranks: npt.NDArray[np.int64]
    floor: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LegScores(Generic[Item]):
    """The scores of both legs for one query; None for a leg that did not run.

    Exact scores without a rank, looked up for items that something else found, count in a convex combination. `weight`:
    above 0. `certainty`, `lexical_certainty` in [0, 1]: of the legs, see `DenseCertainty` and `QueryCandidates`.
    """

    dense: Leg[Item] | None = None
    lexical: Leg[Item] | None = None
    weight: float = 1.0
    certainty: float = 1.0
    lexical_certainty: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FusedItem(Generic[Item]):
    item: Item
    score: float
    explanation: Explanation


class Ranking(Generic[Item]):
    """All items, best first. How the score of one came about is computed when it is looked at."""

    def __init__(self, items: Sequence[Item], queries: Sequence[tuple[LegScores[Item], Columns, Columns]]) -> None:
        gains = [dense[_SHARE] + lexical[_SHARE] for _, dense, lexical in queries]
        # The sum is exact, so that the order of the queries cannot matter.
        scores = gains[0].tolist() if len(gains) == 1 else list(map(math.fsum, zip(*gains, strict=True)))
        legs = zip(*((dense, lexical) for _, dense, lexical in queries), strict=True)
        raw = [(-np.max([columns[_SCORE] for columns in leg], axis=0)).tolist() for leg in legs]
        # By score, then by the best cosine and the best BM25 score over all queries, then by item. The raw scores tell
        # apart what was scaled to 0 or has equal ranks.
        order = sorted(zip([-score for score in scores], *raw, items, range(len(items)), strict=True))
        self.items, self._places = [one[-2] for one in order], [one[-1] for one in order]
        self.scores, self._queries = [-one[0] for one in order], queries

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, page: slice) -> list[FusedItem[Item]]:
        return list(map(self._fused, self.items[page], self.scores[page], self._places[page]))

    def _fused(self, item: Item, score: float, place: int) -> FusedItem[Item]:
        """The legs shown are those of the query that contributes most."""
        queries = [_explain(query, dense[:, place], lexical[:, place]) for query, dense, lexical in self._queries]
        at = max((at for at, one in enumerate(queries) if one.dense or one.lexical), key=lambda at: queries[at].gain)
        most, scores = queries[at], self._queries[at][0]
        explanation = Explanation(
            dense=most.dense,
            lexical=most.lexical,
            fusion=score,
            certainty=most.certainty,
            lexical_certainty=scores.lexical_certainty,
            floor=scores.dense.floor if scores.dense else 0.0,
            queries=tuple(queries) if len(queries) > 1 else (),
        )
        return FusedItem(item=item, score=score, explanation=explanation)


def rank_scores(scores: Mapping[Item, float], found: int | None = None, floor: float = 0.0) -> Leg[Item]:
    """Rank scores that are given best first; those after the first `found` were looked up and get no rank."""
    ranks = np.arange(1, len(scores) + 1)
    ranks[found if found is not None else len(scores) :] = 0
    return Leg(list(scores), np.fromiter(scores.values(), np.float64, len(scores)), ranks, floor)


def fuse(queries: Sequence[LegScores[Item]], settings: FusionSettings) -> Ranking[Item]:
    """Rank all items that any leg knows, best first; ties by the best cosine, then by BM25, then by item.

    In a convex combination the odds of the dense leg are `alpha` : 1 - `alpha`, each times its certainty. A leg without
    evidence (it did not run, or found nothing above its lower bound) leaves the decision on its query to the other
    leg, whose scores are not diminished.
    """
    total_weight = math.fsum(query.weight for query in queries)
    legs = [leg.items for query in queries for leg in (query.dense, query.lexical) if leg is not None]
    places = {item: place for place, item in enumerate(dict.fromkeys(chain.from_iterable(legs)))}

    def columns(query: LegScores[Item]) -> tuple[LegScores[Item], Columns, Columns]:
        weights, share = _leg_weights(query, settings), query.weight / total_weight
        dense, lexical = (
            _scale(leg, settings, share * weight, places)
            for leg, weight in zip((query.dense, query.lexical), weights, strict=True)
        )
        return query, dense, lexical

    return Ranking(list(places), list(map(columns, queries)))


def _explain(query: LegScores[Item], dense: Columns, lexical: Columns) -> QueryExplanation:
    """What one item gains by a query; `dense`, `lexical`: what the legs say of this item, shape [4]."""
    legs = [
        None
        if score == -math.inf
        else LegExplanation(rank=int(rank) or None, score=score, normalised=scaled, share=share)
        for score, rank, scaled, share in (dense.tolist(), lexical.tolist())
    ]
    if legs == [None, None]:
        return QueryExplanation()
    gain = float(dense[_SHARE] + lexical[_SHARE])
    return QueryExplanation(dense=legs[0], lexical=legs[1], gain=gain, certainty=query.certainty)


def _leg_weights(query: LegScores[Item], settings: FusionSettings) -> tuple[float, float]:
    """The weights of the dense and the lexical leg; reciprocal ranks are not weighted."""
    evidence = [leg is not None and (leg.scores > leg.floor).any() for leg in (query.dense, query.lexical)]
    if settings.method == "rrf" or not all(evidence):
        return 1.0, 1.0
    weight = dense_weight(settings, query.certainty, query.lexical_certainty)
    return weight, 1.0 - weight


def dense_weight(settings: FusionSettings, certainty: float, lexical_certainty: float) -> float:
    """What the dense leg has of both in a convex combination."""
    odds = settings.alpha * certainty / max(lexical_certainty, LEAST_CERTAINTY)
    return odds / (odds + 1.0 - settings.alpha) if settings.alpha < 1.0 else 1.0


def _scale(leg: Leg[Item] | None, settings: FusionSettings, weight: float, places: Mapping[Item, int]) -> Columns:
    """Scale and weight one leg. Without a score above the lower bound everything is 0."""
    columns: Columns = np.zeros((4, len(places)))
    columns[_SCORE] = -math.inf
    if leg is not None and leg.items:
        span = leg.scores.max() - leg.floor
        scaled = np.maximum(leg.scores - leg.floor, 0.0) / (span if span > 0 else math.inf)
        shares = (
            np.where(leg.ranks, weight / (settings.k + leg.ranks), 0.0) if settings.method == "rrf" else weight * scaled
        )
        own = np.fromiter(map(places.__getitem__, leg.items), np.intp, len(leg.items))
        columns[:, own] = leg.scores, leg.ranks, scaled, shares
    return columns
