"""Corrects a calibration by real queries, of which it is known whether the collection answers them. Pure: no I/O."""

import numpy as np

from service.confidence.fit import Labels
from service.core.logistic import Floats, Logistic, sigmoid
from service.core.versions import UNCORRECTED

MIN_REAL = 10
"""Queries of each kind: fewer cannot be cross-validated."""
FOLDS = 5
_SLOPE, _WEIGHT = 0.3, 4.0
"""Prior standard deviations: of the slope of the log-odds around 1, and of each weight of a vector of length 1."""


def learn_correction(log_odds: Floats, vectors: Floats, answered: Labels) -> tuple[Logistic, float] | None:
    """A model of the calibration's `log_odds`, [n], and `vectors`, [n, dimensions], and the standard deviation of its
    log-odds; None where it does not predict queries that were left out of its fit better than the calibration does.

    The variance is that of the bias (Laplace's approximation) and of the folds (delete-a-group jackknife: Kott 2001).
    """
    features, places = np.column_stack([log_odds, vectors]), np.empty(len(answered), np.int64)
    for kind in (answered, ~answered):  # each fold has its share of both
        places[kind] = np.arange(kind.sum()) % FOLDS
    fits = [_fit(features[places != fold], answered[places != fold]) for fold in range(FOLDS)]
    predicted = np.stack([fit.log_odds(features) for fit in fits])
    left_out = predicted[places, np.arange(len(answered))]
    if _log_loss(left_out, answered) >= _log_loss(log_odds, answered):
        return None
    chances = sigmoid(left_out + _odds(answered))
    of_bias = 1 / (UNCORRECTED**-2 + (chances * (1 - chances)).sum())
    of_folds = (FOLDS - 1) * predicted.var(axis=0).mean()
    return _fit(features, answered), float(np.sqrt(of_bias + of_folds))


def _fit(features: Floats, answered: Labels) -> Logistic:
    """The most probable logistic model under normal priors around the calibration as it is: a few queries change
    little. The shares of both kinds are an offset (King and Zeng 2001, "Logistic regression in rare events data"), so
    that probabilities are for even odds."""
    from scipy.optimize import minimize

    extended = np.column_stack([features, np.ones(len(features))])
    means = np.eye(1, extended.shape[1])[0]
    deviations = np.array([_SLOPE, *[_WEIGHT] * (features.shape[1] - 1), UNCORRECTED])

    def loss(coefficients: Floats) -> tuple[float, Floats]:
        away, logits = (coefficients - means) / deviations, extended @ coefficients
        errors = sigmoid(logits + _odds(answered)) - answered
        return _log_loss(logits, answered) * len(answered) + away @ away / 2, extended.T @ errors + away / deviations

    *weights, bias = minimize(loss, means, jac=True, method="L-BFGS-B").x
    return Logistic(weights=tuple(round(float(weight), 4) for weight in weights), bias=float(bias))


def _odds(answered: Labels) -> float:
    """Log-odds of the shares of both kinds."""
    return float(np.log((answered.sum() + 0.5) / ((~answered).sum() + 0.5)))


def _log_loss(log_odds: Floats, answered: Labels) -> float:
    return float(np.logaddexp(0, np.where(answered, -1, 1) * (log_odds + _odds(answered))).mean())
