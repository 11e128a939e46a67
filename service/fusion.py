"""How two rankings become one. Pure: scores in, ranking with its explanation out.

Convex combination follows Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (TOIS 2023):
each leg is scaled per query from a fixed lower bound to its best score, then weighed. Their bound for cosine is its
theoretical minimum, -1, which no text embedder comes near; ours is 0, where texts that have nothing in common lie
(docs/decisions/0009 has the figures). Reciprocal rank fusion follows Cormack, Clarke and Buettcher (SIGIR 2009).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from service.domain import DocumentId, Fusion
from service.query import Explanation, LegExplanation

Scores = Mapping[DocumentId, float]

COSINE_FLOOR = 0.0
BM25_FLOOR = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Fused:
    """One document in the fused ranking."""

    document_id: DocumentId
    score: float
    explanation: Explanation


def fuse(
    dense: Scores | None, lexical: Scores | None, how: Fusion, *, found_by_dense: int | None = None
) -> list[Fused]:
    """Rank the union of both legs, best first; ties by document id.

    `None` is a leg that did not run; the other then decides alone. `dense` may carry, after its own `found_by_dense`
    best entries, exact scores that were looked up for documents only the lexical leg found: they count in a convex
    combination and have no rank of their own. A document that a leg knows nothing of has that leg's lower bound.
    """
    legs = [
        (dense, how.alpha, COSINE_FLOOR, found_by_dense),
        (lexical, 1.0 - how.alpha, BM25_FLOOR, None),
    ]
    ran = sum(scores is not None for scores, *_ in legs)
    explained: list[dict[DocumentId, LegExplanation]] = []
    totals: dict[DocumentId, float] = {}
    for scores, weight, floor, found in legs:
        explained.append({} if scores is None else _explain(scores, floor, found))
        for document_id, leg in explained[-1].items():
            if how.method == "rrf":
                gained = 0.0 if leg.rank is None else 1.0 / (how.k + leg.rank)
            else:
                gained = leg.normalised * (weight if ran == len(legs) else 1.0)
            totals[document_id] = totals.get(document_id, 0.0) + gained
    dense_explained, lexical_explained = explained
    ranking = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return [
        Fused(
            document_id=document_id,
            score=score,
            explanation=Explanation(
                dense=dense_explained.get(document_id), lexical=lexical_explained.get(document_id), fusion=score
            ),
        )
        for document_id, score in ranking
    ]


def _explain(scores: Scores, floor: float, found: int | None) -> dict[DocumentId, LegExplanation]:
    """Rank and scale one leg. A leg whose best score is not above its lower bound says nothing: all of it is 0."""
    best = max(scores.values(), default=floor)
    span = best - floor
    return {
        document_id: LegExplanation(
            rank=rank if found is None or rank <= found else None,
            score=score,
            normalised=max(0.0, score - floor) / span if span > 0 else 0.0,
        )
        for rank, (document_id, score) in enumerate(scores.items(), start=1)
    }
