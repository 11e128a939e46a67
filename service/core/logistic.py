"""A fitted logistic model, which maps features to a probability."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_MAX_LOGIT = 35.0
"""Beyond it, 1 - p cannot be told from 0 in 64 bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Logistic:
    """`weights` apply to the features as they come, not to standardised ones."""

    weights: tuple[float, ...]
    bias: float

    def log_odds(self, features: npt.ArrayLike) -> Floats:
        """[n], for features of shape [n, d]; of one example a scalar."""
        found: Floats = np.asarray(features, np.float64) @ np.array(self.weights) + self.bias
        return found

    def probabilities(self, features: npt.ArrayLike) -> Floats:
        return sigmoid(self.log_odds(features))


def sigmoid(log_odds: npt.ArrayLike) -> Floats:
    """The probabilities."""
    values: Floats = 1.0 / (1.0 + np.exp(-np.clip(log_odds, -_MAX_LOGIT, _MAX_LOGIT)))
    return values
