"""From scores to probabilities, and how far such probabilities can be trusted. Pure: no I/O.

`features` has shape [n, d], `labels` and `outcomes` shape [n]: True for what is so. Probabilities are in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.logistic import Floats, Logistic, _sigmoid

Truths = npt.NDArray[np.bool_]

BINS = 10
RIDGE = 1e-2
"""Pull of each standardised weight towards 0: where the classes lie apart there is no largest likelihood without it."""
_STEPS, _SMALL = 100, 1e-9


def fit(features: npt.ArrayLike, labels: npt.ArrayLike, *, balanced: bool = True) -> Logistic:
    """The probability that a label is true, if as many were true as false, whatever the share is here; with
    `balanced` False where the share is as it is here.

    Logistic regression with the targets of Platt (1999, "Probabilistic outputs for support vector machines", eq. 5:
    (n+ + 1) / (n+ + 2) and 1 / (n- + 2) for 1 and 0, so that no finite sample makes anything certain), each class with
    half of the weight where balanced, a weak ridge, and Newton's method with backtracking (Lin, Lin and Weng 2007, "A
    note on Platt's probabilistic outputs"). ValueError where a class is missing.
    """
    x, truths = np.asarray(features, np.float64), np.asarray(labels, bool)
    true, false = int(truths.sum()), int((~truths).sum())
    if not true or not false:
        raise ValueError("both classes are needed")
    targets = np.where(truths, (true + 1) / (true + 2), 1 / (false + 2))
    weights = np.where(truths, 0.5 / true, 0.5 / false) * len(truths) if balanced else np.ones(len(truths))
    centre, spread = x.mean(axis=0), x.std(axis=0)
    spread[spread < _SMALL] = 1.0
    design = np.hstack([(x - centre) / spread, np.ones((len(x), 1))])
    ridge = np.full(design.shape[1], RIDGE)
    ridge[-1] = 0.0
    found = _newton(design, targets, weights, ridge)
    slopes = found[:-1] / spread
    return Logistic(weights=tuple(map(float, slopes)), bias=float(found[-1] - slopes @ centre))


def _newton(design: Floats, targets: Floats, weights: Floats, ridge: Floats) -> Floats:
    """The minimum of the weighted cross-entropy with `ridge`; convex, so there is one."""

    def loss(at: Floats) -> float:
        logits = design @ at
        return float(weights @ (np.logaddexp(0.0, logits) - targets * logits) + 0.5 * ridge @ np.square(at))

    at = np.zeros(design.shape[1])
    value = loss(at)
    for _ in range(_STEPS):
        p = _sigmoid(design @ at)
        gradient = design.T @ (weights * (p - targets)) + ridge * at
        curvature = (design.T * (weights * p * (1 - p))) @ design + np.diag(ridge + _SMALL)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (lower := loss(at - size * step)) > value - 1e-4 * size * float(gradient @ step) and size > _SMALL:
            size /= 2
        if lower >= value:
            break
        improved, at, value = value - lower, at - size * step, lower
        if improved < _SMALL * max(1.0, value):
            break
    return at


def auroc(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> float:
    """The chance that a positive is scored above a negative, ties counting half: the area under the ROC curve.

    By ranks (Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve"). NaN where there are none.
    """
    above, below = np.asarray(positives, np.float64), np.sort(np.asarray(negatives, np.float64))
    if not above.size or not below.size:
        return float("nan")
    wins = np.searchsorted(below, above, side="left") + np.searchsorted(below, above, side="right")
    return float(wins.sum() / (2 * above.size * below.size))


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Predictions that lie next to each other: their mean, and the share of them that came true."""

    count: int
    predicted: float
    observed: float


def reliability(probabilities: npt.ArrayLike, outcomes: npt.ArrayLike, bins: int = BINS) -> tuple[Bin, ...]:
    """Bins of equal mass, as equal as can be, in rising order: what a reliability diagram draws.

    Equal mass, for with equal widths nearly all predictions of a good classifier lie in two bins (Nixon et al. 2019,
    "Measuring calibration in deep learning").
    """
    predicted, came = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    order = np.argsort(predicted, kind="stable")
    return tuple(
        Bin(count=len(part), predicted=float(predicted[part].mean()), observed=float(came[part].mean()))
        for part in np.array_split(order, min(bins, max(1, len(order))))
        if len(part)
    )


def evened(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> tuple[Floats, Truths]:
    """Predictions and outcomes with as many positives as negatives: the fewer ones are repeated. None may be empty."""
    above, below = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    most = max(above.size, below.size)
    return np.concatenate([np.resize(above, most), np.resize(below, most)]), np.arange(2 * most) < most


def calibration_error(bins: Sequence[Bin]) -> float:
    """ECE: the mean distance of what was predicted from what came, each bin by its size.

    Naeini, Cooper and Hauskrecht 2015, "Obtaining well calibrated probabilities using Bayesian binning". NaN of none.
    """
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.predicted - one.observed) for one in bins) / total if total else float("nan")
