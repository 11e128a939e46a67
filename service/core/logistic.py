"""A fitted logistic model: features in, a probability out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


_FURTHEST = 35.0
"""Of a logit: beyond it 1 - p is not told from 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Logistic:
    """`weights` are of the features as they come, not standardised."""

    weights: tuple[float, ...]
    bias: float

    def probability(self, features: Sequence[float]) -> float:
        """Of one example."""
        logit = self.bias + sum(weight * value for weight, value in zip(self.weights, features, strict=True))
        return 1.0 / (1.0 + math.exp(min(_FURTHEST, max(-_FURTHEST, -logit))))

    def probabilities(self, features: npt.ArrayLike) -> Floats:
        """[n, d] -> [n]."""
        return _sigmoid(np.asarray(features, np.float64) @ np.array(self.weights) + self.bias)


def _sigmoid(logits: Floats) -> Floats:
    values: Floats = 1.0 / (1.0 + np.exp(-np.clip(logits, -_FURTHEST, _FURTHEST)))
    return values
