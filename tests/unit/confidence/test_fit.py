"""Calibration against independent ways to the same numbers."""

import numpy as np
import pytest
from scipy.optimize import minimize

from service.confidence.fit import RIDGE, Bin, auroc, calibration_error, fit_logistic, reliability


def sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-values)))


def drawn(seed: int, true: int, false: int) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping clouds in two dimensions of very different scale."""
    generator = np.random.default_rng(seed)
    above = generator.normal([0.6, 30.0], [0.1, 8.0], size=(true, 2))
    below = generator.normal([0.45, 22.0], [0.1, 8.0], size=(false, 2))
    return np.vstack([above, below]), np.arange(true + false) < true


@pytest.mark.parametrize(("true", "false"), [(200, 200), (50, 400), (3, 300)])
def test_the_fit_is_the_minimum_that_a_general_optimiser_finds(true: int, false: int) -> None:
    features, labels = drawn(1, true, false)
    centre, spread = features.mean(axis=0), features.std(axis=0)
    targets = np.where(labels, (true + 1) / (true + 2), 1 / (false + 2))
    weights = np.where(labels, 0.5 / true, 0.5 / false) * (true + false)

    def loss(at: np.ndarray) -> float:
        logits = (features - centre) / spread @ at[:2] + at[2]
        cross_entropy = -(targets * np.log(sigmoid(logits)) + (1 - targets) * np.log(sigmoid(-logits)))
        return float(weights @ cross_entropy + 0.5 * RIDGE * np.square(at[:2]).sum())

    expected = minimize(loss, np.zeros(3), tol=1e-12).x
    probabilities = sigmoid((features - centre) / spread @ expected[:2] + expected[2])
    np.testing.assert_allclose(fit_logistic(features, labels).probabilities(features), probabilities, atol=1e-4)


def test_however_many_there_are_of_each_even_odds_are_meant() -> None:
    few, many = drawn(2, 100, 5_000), drawn(2, 2_500, 2_500)
    probes = np.array([[0.45, 22.0], [0.525, 26.0], [0.6, 30.0]])
    of_few, of_many = (fit_logistic(*examples).probabilities(probes) for examples in (few, many))
    np.testing.assert_allclose(of_few, of_many, atol=0.08)


def test_without_balance_the_share_among_the_examples_is_meant() -> None:
    features, labels = drawn(2, 250, 4_750)
    means = [fit_logistic(features, labels, balanced=it).probabilities(features).mean() for it in (False, True)]
    assert means[0] == pytest.approx(0.05, abs=0.005)
    assert means[1] > 0.15


def test_classes_that_lie_apart_make_nothing_certain() -> None:
    features = np.array([[0.1], [0.2], [0.8], [0.9]])
    found = fit_logistic(features, [False, False, True, True]).probabilities([[-1e9], [0.1], [0.5], [0.9], [1e9]])
    assert np.isfinite(found).all()
    assert found[1] < 0.35 < 0.65 < found[3]
    assert found[2] == pytest.approx(0.5, abs=0.01)


def test_a_feature_that_never_changes_says_nothing() -> None:
    features, labels = drawn(3, 80, 80)
    with_constant = np.hstack([features, np.full((160, 1), 7.0)])
    without, found = (fit_logistic(one, labels).probabilities(one) for one in (features, with_constant))
    np.testing.assert_allclose(found, without, atol=1e-6)


def test_one_class_alone_teaches_nothing() -> None:
    with pytest.raises(ValueError, match="both classes"):
        fit_logistic([[0.1], [0.2]], [True, True])


def test_probabilities_come_true_as_often_as_they_say() -> None:
    """Fitted on one half of a world whose logits are linear, they hold on the other."""
    generator = np.random.default_rng(4)
    features = generator.normal(size=(20_000, 2))
    labels = generator.random(20_000) < sigmoid(features @ np.array([2.0, -1.0]))
    learnt = fit_logistic(features[:10_000], labels[:10_000])
    assert calibration_error(reliability(learnt.probabilities(features[10_000:]), labels[10_000:])) < 0.02
    assert learnt.weights == pytest.approx((2.0, -1.0), abs=0.15)


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [([3, 4], [1, 2], 1), ([1, 2], [3, 4], 0), ([1, 1], [1], 0.5), ([], [1], np.nan)],
)
def test_auroc(positives: list[int], negatives: list[int], expected: float) -> None:
    assert auroc(positives, negatives) == pytest.approx(expected, nan_ok=True)


def test_bins_hold_what_lies_next_to_each_other_and_everything_once() -> None:
    generator = np.random.default_rng(5)
    probabilities = generator.random(103)
    outcomes = generator.random(103) < probabilities
    bins = reliability(probabilities, outcomes)
    assert sorted(one.count for one in bins) == [10] * 7 + [11] * 3
    assert [one.predicted for one in bins] == sorted(one.predicted for one in bins)
    assert sum(one.count * one.predicted for one in bins) == pytest.approx(probabilities.sum())
    assert sum(one.count * one.observed for one in bins) == pytest.approx(outcomes.sum())


def test_the_error_is_the_mean_distance_by_size() -> None:
    bins = (Bin(count=30, predicted=0.1, observed=0.2), Bin(count=10, predicted=0.9, observed=0.5))
    assert calibration_error(bins) == pytest.approx((30 * 0.1 + 10 * 0.4) / 40)


def test_fewer_predictions_than_bins_and_none() -> None:
    assert len(reliability([0.2, 0.8], [False, True])) == 2
    assert reliability([], []) == ()
    assert np.isnan(calibration_error(()))


def test_a_perfect_and_a_perverse_forecast() -> None:
    outcomes = np.arange(100) % 2 == 0
    assert calibration_error(reliability(outcomes.astype(float), outcomes)) == 0
    assert calibration_error(reliability((~outcomes).astype(float), outcomes)) == 1
