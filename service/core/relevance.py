"""How probable it is that a hit answers the query, from how far a reranker's score stands out among its candidates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAMPLE = 20
"""The first hits that were read; their lower quartile is what the reranker gives where nothing is to be found."""
MIN_SAMPLE = 10
"""Where fewer were read, each missing one counts as the usual lower quartile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RelevanceCalibration:
    """Platt scaling of the log-odds above their lower quartile, fitted once for a reranker.

    The level of a reranker's scores differs from collection to collection, so that log-odds alone are no probability
    that holds elsewhere; what stands out does so by as much nearly everywhere (docs/decisions/0040). `base`: the usual
    lower quartile.
    """

    slope: float
    offset: float
    base: float

    def probabilities(self, log_odds: Sequence[float]) -> list[float]:
        """The probability of each hit to be relevant, for the log-odds of the hits in the order they were read."""
        sample = [*log_odds[:SAMPLE], *[self.base] * (MIN_SAMPLE - len(log_odds))]
        above = np.asarray(log_odds, np.float64) - np.quantile(sample, 0.25)
        return [float(one) for one in 1 / (1 + np.exp(-(self.slope * above + self.offset)))]
