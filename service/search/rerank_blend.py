"""The blend of the first stage and the cross-encoder into one ranking. Pure: scores in, scores out.

Replacing the first stage by the reranker loses what the first stage knows, above all on collections that the reranker
was not trained for; adding the two keeps it (docs/decisions/0021 has the figures). The first stage counts as a share of
its best score, the reranker by the log-odds of its probability. Differences of log-odds mean much the same on all
collections; a probability saturates where a reranker's scores lie low, and scaling by the best and the worst candidate
of a query makes noise as large as knowledge where none is relevant.

Log-odds are cut at both ends, which bounds what an unread passage could reach. As neither part depends on which other
passages were read, more relevance never costs a place, and reading can end as soon as nothing unread could change the
answer.
"""

import math
from collections.abc import Sequence

import numpy as np

MIN_LOG_ODDS, MAX_LOG_ODDS = -7.0, 3.0
"""Log-odds beyond which less or more makes no difference: probabilities of 0.0009 and 0.95. Most candidates of a search
are far from relevant, and differences among them count as well."""
_EPSILON = 1e-9
"""Keeps the odds finite; far beyond both."""

AGREEMENT_SAMPLE = 32
"""The first hits, which measure agreement: it is known before all are read."""
MIN_AGREEMENT_SAMPLE = 10
"""With fewer hits a correlation has no meaning."""
FULL_AGREEMENT = 0.3
"""The correlation from which on a reranker counts in full. Over collections in English the median query has 0.6 to 0.9,
in languages that the reranker never saw 0 to 0.4 (docs/quality.md)."""


def trusted_weight(first: Sequence[float], relevance: Sequence[float], weight: float) -> float:
    """The weight of a reranker, at most `weight`, by its agreement with the first stage on the first hits.

    Both judge the same query, so their scores correlate, unless one does not know the language of the passages.
    Pearson's correlation of the first stage with the reranker's log-odds gives all of the weight from `FULL_AGREEMENT`
    on, none at 0 or below; all of it, too, where there is nothing to measure by, or where the weight is 1.
    """
    read = min(AGREEMENT_SAMPLE, len(relevance))
    if weight == 1.0 or read < MIN_AGREEMENT_SAMPLE:
        return weight
    both = np.array([first[:read], [log_odds(one) for one in relevance[:read]]])
    centred = both - both.mean(axis=1, keepdims=True)
    spread = np.linalg.norm(centred, axis=1)
    if spread.min() < _EPSILON:
        return weight  # one of them gives all the same score
    return weight * min(1.0, max(0.0, float(centred[0] @ centred[1] / spread.prod()) / FULL_AGREEMENT))


def log_odds(probability: float) -> float:
    """Of a probability, within the bounds."""
    inner = min(max(probability, _EPSILON), 1 - _EPSILON)
    return min(max(math.log(inner / (1 - inner)), MIN_LOG_ODDS), MAX_LOG_ODDS)


class RerankBlend:
    """The blend over the hits of one search, in the order of the first stage."""

    def __init__(self, first: Sequence[float], weight: float) -> None:
        """`first`: scores of the first stage, at least 0. `weight`: of the reranker, in [0, 1]."""
        self._best = max(first, default=0.0)
        self.weight = weight
        self._first = [self._first_share(score) for score in first]

    def score(self, at: int, relevance: float) -> float:
        """The score in [0, 1] of hit `at` with this probability of being relevant."""
        return self._first[at] + self.share(relevance)

    def share(self, relevance: float) -> float:
        """What of a score comes from the reranker."""
        return self.weight * (log_odds(relevance) - MIN_LOG_ODDS) / (MAX_LOG_ODDS - MIN_LOG_ODDS)

    def unread_score(self, first: float, floor: float) -> float:
        """The score of an unread hit: below `floor`, the lowest of those that were read, in the old order."""
        return min(floor, self._first_share(first))

    def _first_share(self, first: float) -> float:
        """What of a score comes from the first stage."""
        return (1 - self.weight) * (first / self._best if self._best > 0 else 0.0)

    def required(self, relevance: Sequence[float], k: int) -> int:
        """How many hits have to be read, as far as is known, until the first `k` and their order are settled.

        `relevance`: of the hits read so far, which are the first ones. Exact, ties included: what an unread hit could
        reach is its score with a relevance of 1, and that has to lie below the score of the k-th. Reading on can only
        raise the k-th, so that fewer may turn out to be enough.
        """
        read, hits = len(relevance), len(self._first)
        if read < min(k, hits):
            return hits
        best = sorted((self.score(at, one) for at, one in enumerate(relevance)), reverse=True)[:k]
        return 1 + max((at for at in range(read, hits) if self.score(at, 1.0) >= best[-1]), default=read - 1)
