"""From scores to probabilities, and how well such probabilities are calibrated. Pure: no I/O.

`features` has shape [n, d], `labels` and `outcomes` shape [n]. Probabilities are in [0, 1]. scikit-learn is imported on
first use, which is in a thread, because that takes a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.logistic import Floats, Logistic

Labels = npt.NDArray[np.bool_]

BINS = 10
RIDGE = 1e-2
"""L2 penalty on each standardised weight: where the classes lie apart, the likelihood has no maximum without it."""


def fit_logistic(features: npt.ArrayLike, labels: npt.ArrayLike, *, balanced: bool = True) -> Logistic:
    """The probability that a label is true: at even odds, whatever the share of true labels, or with `balanced` False
    at the share that there is.

    Logistic regression with the targets of Platt (1999, "Probabilistic outputs for support vector machines", eq. 5:
    (n+ + 1) / (n+ + 2) and 1 / (n- + 2) for 1 and 0, so that no finite sample makes anything certain). An example with
    target t is given as two rows: true with weight t, and false with weight 1 - t. ValueError where a class is missing.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, truths = np.asarray(features, np.float64), np.asarray(labels, bool)
    true, false = int(truths.sum()), int((~truths).sum())
    if not true or not false:
        raise ValueError("both classes are needed")
    targets = np.where(truths, (true + 1) / (true + 2), 1 / (false + 2))
    weights = np.where(truths, 0.5 / true, 0.5 / false) * len(truths) if balanced else np.ones(len(truths))
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=1 / RIDGE, solver="newton-cholesky", tol=1e-8)
    model.fit(
        np.tile(scaler.transform(x), (2, 1)),
        np.repeat([True, False], len(x)),
        np.concatenate([weights * targets, weights * (1 - targets)]),
    )
    slopes = model.coef_[0] / scaler.scale_
    return Logistic(weights=tuple(map(float, slopes)), bias=float(model.intercept_[0] - slopes @ scaler.mean_))


def auroc(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> float:
    """The probability that a positive is scored above a negative, ties counting half: the area under the ROC curve.
    NaN where one of them is empty."""
    from sklearn.metrics import roc_auc_score

    above, below = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    if not above.size or not below.size:
        return float("nan")
    return float(roc_auc_score(np.arange(above.size + below.size) < above.size, np.concatenate([above, below])))


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Neighbouring predictions: their mean, and the share of them that came true."""

    count: int
    predicted: float
    observed: float


def reliability(probabilities: npt.ArrayLike, outcomes: npt.ArrayLike, bins: int = BINS) -> tuple[Bin, ...]:
    """The bins of a reliability diagram, in rising order, each with as equal a count as can be.

    Equal mass, because with equal widths nearly all predictions of a good classifier lie in two bins (Nixon et al.
    2019, "Measuring calibration in deep learning"). Not `sklearn.calibration_curve`: no counts, and ties are merged.
    """
    predicted, came = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    order = np.argsort(predicted, kind="stable")
    return tuple(
        Bin(count=len(part), predicted=float(predicted[part].mean()), observed=float(came[part].mean()))
        for part in np.array_split(order, min(bins, max(1, len(order))))
        if len(part)
    )


def balanced(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> tuple[Floats, Labels]:
    """Predictions and outcomes with as many positives as negatives: the fewer ones are repeated. None may be empty."""
    above, below = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    most = max(above.size, below.size)
    return np.concatenate([np.resize(above, most), np.resize(below, most)]), np.arange(2 * most) < most


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: the mean distance of predictions from outcomes, each bin weighted by its count.

    Naeini, Cooper and Hauskrecht 2015, "Obtaining well calibrated probabilities using Bayesian binning". NaN of none.
    """
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.predicted - one.observed) for one in bins) / total if total else float("nan")
