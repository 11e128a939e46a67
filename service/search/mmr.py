"""Which hits to show of many that say the same. Pure: scores and likenesses in, an order with its explanation out.

Maximal marginal relevance: Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents
and Producing Summaries" (SIGIR 1998). Their lambda is 1 - `diversity`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.ids import Vector
from service.core.search import DiversityExplanation

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pick:
    """The hit that stood at `place` (from 0), and why it was taken."""

    place: int
    explanation: DiversityExplanation


def mmr(scores: Sequence[float], vectors: Sequence[Vector | None], diversity: float, k: int) -> list[Pick]:
    """The `k` hits that are taken one by one, each by the most of

        (1 - diversity) * relevance - diversity * (highest cosine to one that is taken already)

    `scores` are given best first, and are relevance when scaled to [0, 1]; `vectors` are of length 1. Ties go to the
    better score, so that 0 leaves the order as it is; the first is the best in any case. Of a hit without a vector
    nobody knows what it is like: it counts as being as like to any other as two of the hits are on average.
    """
    relevance = _scaled(scores)
    similarity = _cosines(vectors)
    free = np.ones(len(scores), dtype=bool)
    nearest = np.full(len(scores), -np.inf)
    picks: list[Pick] = []
    while len(picks) < min(k, len(scores)):
        margin = (1.0 - diversity) * relevance
        if picks:
            margin -= diversity * nearest
        place = int(np.argmax(np.where(free, margin, -np.inf))) if picks else 0
        known = bool(picks) and vectors[place] is not None
        picks.append(
            Pick(
                place,
                DiversityExplanation(
                    rank=place + 1,
                    similarity=float(nearest[place]) if known else None,
                    mmr=float(margin[place]),
                ),
            )
        )
        free[place] = False
        nearest = np.maximum(nearest, similarity[place])
    return picks


def _scaled(scores: Sequence[float]) -> Matrix:
    """From 0 for the lowest to 1 for the best. Where all are equal they say nothing: all are 1."""
    wide = np.asarray(scores, dtype=np.float64)
    span = np.ptp(wide) if len(wide) else 0.0
    return (wide - wide.min()) / span if span > 0 else np.ones(len(wide))


def _cosines(vectors: Sequence[Vector | None]) -> Matrix:
    """Of each with each: [n, n]."""
    known = [at for at, vector in enumerate(vectors) if vector is not None]
    rows = np.array([vector for vector in vectors if vector is not None], dtype=np.float64)
    products = rows @ rows.T if known else np.empty((0, 0))
    pairs = products[np.triu_indices(len(known), 1)]
    cosines = np.full((len(vectors), len(vectors)), float(pairs.mean()) if len(pairs) else 0.0)
    cosines[np.ix_(known, known)] = products
    return cosines
