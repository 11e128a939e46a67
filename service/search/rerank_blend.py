"""How the first stage and the cross-encoder become one ranking. Pure: scores in, scores out.

Replacing the first stage by the reranker loses what the first stage knows, most of all on collections that the reranker
was not trained for; adding the two keeps it (docs/decisions/0021 has the figures). The first stage counts as a share of
its best score, the reranker by the log-odds of its probability. Differences of log-odds mean much the same on all
collections, however high or low a reranker's scores lie there; a probability saturates where they lie low, and scaling
by the best and the worst candidate of a query makes noise as large as knowledge where none is relevant.

How much the reranker counts follows from how far both agree (`believed`): one that does not know the language of what
it reads gives scores that have nothing to do with those of the first stage, and is not believed.

Log-odds are cut at both ends, so that what an unread passage could reach at most is known. As neither part depends on
which other passages were read, more relevance never costs a place, and reading can end as soon as nothing unread could
change the answer.
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
"""Hits that agreement is told by: the first, so that it is known before all are read."""
MIN_AGREEMENT_SAMPLE = 10
"""Hits below which a correlation tells nothing."""
FULL_AGREEMENT = 0.3
"""Correlation from which on a reranker counts in full. Over collections in English the middle query has 0.6 to 0.9, in
languages that the reranker never saw 0 to 0.4 (docs/quality.md)."""


def trusted_weight(first: Sequence[float], relevance: Sequence[float], weight: float) -> float:
    """The weight that a reranker gets of the `weight` it may have, by what it said of the first hits.

    Both judge the same question, so their scores go together, and the more so the better both are: Pearson's
    correlation of the first stage with the reranker's log-odds, of the first `SAMPLE` hits. All of the weight from
    `AGREED` on, none at 0 or below. All of it, too, where there is nothing to tell by; and a weight of 1, which leaves
    nothing to the first stage, is taken at its word.
    """
    read = min(AGREEMENT_SAMPLE, len(relevance))
    if weight == 1.0 or read < MIN_AGREEMENT_SAMPLE:
        return weight
    both = np.array([first[:read], [_log_odds(one) for one in relevance[:read]]])
    apart = both - both.mean(axis=1, keepdims=True)
    spread = np.linalg.norm(apart, axis=1)
    if spread.min() < _EPSILON:
        return weight  # one of them finds all alike
    return weight * min(1.0, max(0.0, float(apart[0] @ apart[1] / spread.prod()) / FULL_AGREEMENT))


def _log_odds(relevance: float) -> float:
    """Of a probability, within the bounds of what makes a difference."""
    possible = min(max(relevance, _EPSILON), 1 - _EPSILON)
    return min(max(math.log(possible / (1 - possible)), MIN_LOG_ODDS), MAX_LOG_ODDS)


class RerankBlend:
    """Of the hits of one search, in the order of the first stage."""

    def __init__(self, first: Sequence[float], weight: float) -> None:
        """`first`: scores of the first stage, at least 0. `weight`: of the reranker, in [0, 1]."""
        self._best = max(first, default=0.0)
        self._weight = weight
        self._first = [self._scaled(score) for score in first]

    @property
    def weight(self) -> float:
        return self._weight

    def score(self, at: int, relevance: float) -> float:
        """In [0, 1], of hit `at` with this probability of being relevant."""
        return self._first[at] + self.share(relevance)

    def share(self, relevance: float) -> float:
        """What of a score comes from the reranker."""
        return self._weight * (_log_odds(relevance) - MIN_LOG_ODDS) / (MAX_LOG_ODDS - MIN_LOG_ODDS)

    def unread(self, first: float, floor: float) -> float:
        """Of a hit that was not read: behind all that were, the lowest of which has `floor`, in its old order."""
        return min(floor, self._scaled(first))

    def _scaled(self, first: float) -> float:
        """What of a score comes from the first stage."""
        return (1 - self._weight) * (first / self._best if self._best > 0 else 0.0)

    def settled(self, relevance: Sequence[float], k: int) -> bool:
        """Are the first `k`, and their order, the same whatever the unread turn out to be?

        `relevance`: of the hits read so far, which are the first ones.
        """
        return self.horizon(relevance, k) <= len(relevance)

    def horizon(self, relevance: Sequence[float], k: int) -> int:
        """How many hits have to be read, as far as is known, until the first `k` are settled.

        Exact, ties included: what an unread hit could reach is its score with a relevance of 1, and that has to lie
        below the score of the k-th. Reading on can only raise the k-th, so that it may turn out to be less.
        """
        read, hits = len(relevance), len(self._first)
        if read < min(k, hits):
            return hits
        best = sorted((self.score(at, one) for at, one in enumerate(relevance)), reverse=True)[:k]
        return 1 + max((at for at in range(read, hits) if self.score(at, 1.0) >= best[-1]), default=read - 1)
