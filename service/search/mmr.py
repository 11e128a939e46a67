"""Diversification of hits by maximal marginal relevance (MMR). Pure: scores and vectors in, an explained order out.

Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing Summaries"
(SIGIR 1998). Their lambda is 1 - `diversity`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.core.explanation import DiversityExplanation
from service.core.ids import Vector

Matrix = npt.NDArray[np.float64]


def mmr(
    scores: Sequence[float], vectors: Sequence[Vector | None], diversity: float, k: int
) -> list[DiversityExplanation]:
    """The `k` hits, by their `rank` in `scores`, that are taken one by one, each maximising

        (1 - diversity) * relevance - diversity * (highest cosine to one that is taken already)

    `scores` are given best first; scaled to [0, 1] they are the relevance. `vectors` have length 1. Ties go to the
    better score, so that a diversity of 0 keeps the order; the best hit is always first. A hit without a vector counts
    as being as similar to any other as two of the hits are on average.
    """
    relevance = _scaled(scores)
    similarity = _cosines(vectors)
    free = np.ones(len(scores), dtype=bool)
    nearest = np.full(len(scores), -np.inf)
    picks: list[DiversityExplanation] = []
    while len(picks) < min(k, len(scores)):
        margin = (1.0 - diversity) * relevance
        if picks:
            margin -= diversity * nearest
        place = int(np.argmax(np.where(free, margin, -np.inf))) if picks else 0
        known = bool(picks) and vectors[place] is not None
        likeness = float(nearest[place]) if known else None
        picks.append(DiversityExplanation(rank=place + 1, similarity=likeness, mmr=float(margin[place])))
        free[place] = False
        nearest = np.maximum(nearest, similarity[place])
    return picks


def _scaled(scores: Sequence[float]) -> Matrix:
    """From 0 for the lowest to 1 for the best; all 1 where all are equal."""
    wide = np.asarray(scores, dtype=np.float64)
    span = np.ptp(wide) if len(wide) else 0.0
    return (wide - wide.min()) / span if span > 0 else np.ones(len(wide))


def _cosines(vectors: Sequence[Vector | None]) -> Matrix:
    """The cosine of each pair, [n, n]; the mean of the known pairs where a vector is missing."""
    known = [at for at, vector in enumerate(vectors) if vector is not None]
    rows = np.array([vector for vector in vectors if vector is not None], dtype=np.float64)
    products = rows @ rows.T if known else np.empty((0, 0))
    pairs = products[np.triu_indices(len(known), 1)]
    cosines = np.full((len(vectors), len(vectors)), float(pairs.mean()) if len(pairs) else 0.0)
    cosines[np.ix_(known, known)] = products
    return cosines
