"""A fitted logistic model, which maps features to a probability."""

import math
from collections.abc import Sequence
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

    def probability(self, features: Sequence[float]) -> float:
        """The probability for one example."""
        logit = self.bias + sum(weight * value for weight, value in zip(self.weights, features, strict=True))
        return 1.0 / (1.0 + math.exp(min(_MAX_LOGIT, max(-_MAX_LOGIT, -logit))))

    def probabilities(self, features: npt.ArrayLike) -> Floats:
        """The probabilities, [n], for features of shape [n, d]."""
        logits = np.asarray(features, np.float64) @ np.array(self.weights) + self.bias
        values: Floats = 1.0 / (1.0 + np.exp(-np.clip(logits, -_MAX_LOGIT, _MAX_LOGIT)))
        return values
