"""How far two samples of queries are apart: against scipy, plain loops, and what is known of the distributions."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from service.core.vector_math import unit_rows
from service.drift.two_sample import Estimate, centroid_shift, ks_statistic, mmd, pooled_share

Rows = npt.NDArray[np.float64]
Measured = Callable[[Rows, Rows], Estimate]


def around(chance: np.random.Generator, centre: Rows, n: int, spread: float = 1.0) -> Rows:
    """Directions around a centre."""
    return unit_rows(centre + spread * chance.normal(size=(n, len(centre))) / math.sqrt(len(centre)))


def p_value(estimate: Estimate) -> float:
    assert estimate.p_value is not None
    return estimate.p_value


def axis(at: int, dimensions: int = 16) -> Rows:
    one: Rows = np.eye(dimensions)[at]
    return one


def plain_mmd_square(x: Rows, y: Rows) -> float:
    """As the paper has it, term by term."""
    rows = [*x, *y]
    distances = [np.linalg.norm(a - b) for at, a in enumerate(rows) for b in rows[at + 1 :]]
    width = float(np.median(distances)) ** 2

    def k(a: Rows, b: Rows) -> float:
        return math.exp(-float(np.square(a - b).sum()) / (2 * width))

    m, n = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    within_y = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within_x + within_y - 2 * sum(k(a, b) for a in x for b in y) / (m * n)


def test_mmd_is_the_unbiased_estimate_of_the_paper() -> None:
    chance = np.random.default_rng(1)
    x, y = around(chance, axis(0), 20), around(chance, axis(1), 20)
    found = mmd(x, y)
    assert found.value == pytest.approx(math.sqrt(plain_mmd_square(x, y)), rel=1e-9)
    assert found.low < found.value < found.high
    assert found.p_value == pytest.approx(1 / 401)


def test_distributions_of_equal_mean_differ_by_mmd_alone() -> None:
    chance = np.random.default_rng(2)
    wide = np.concatenate([around(chance, axis(0), 60, 0.3), around(chance, -axis(0), 60, 0.3)])
    across = np.concatenate([around(chance, axis(1), 60, 0.3), around(chance, -axis(1), 60, 0.3)])
    moved, shifted = mmd(wide, across), centroid_shift(wide, across)
    assert p_value(moved) < 0.01
    assert moved.low > 0.3
    assert p_value(shifted) > 0.05
    assert shifted.low == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("measure", [mmd, centroid_shift])
def test_p_values_of_equal_distributions_are_uniform(measure: Measured) -> None:
    chance = np.random.default_rng(3)
    found = [measure(around(chance, axis(0), 30), around(chance, axis(0), 40)) for _ in range(200)]
    p = [p_value(one) for one in found]
    assert sum(one <= 0.05 for one in p) <= 20
    assert 0.4 < np.mean(p) < 0.6
    assert np.mean([one.value == 0 for one in found]) > 0.2  # unbiased: the estimate falls on both sides of 0
    assert np.mean([one.low == 0 for one in found]) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("measure", [mmd, centroid_shift])
def test_the_interval_has_its_coverage(measure: Measured) -> None:
    chance = np.random.default_rng(4)
    there = axis(0) + 0.4 * axis(1)
    truth = measure(around(chance, there, 2_000), around(chance, axis(0), 2_000)).value
    found = [measure(around(chance, there, 80), around(chance, axis(0), 60)) for _ in range(100)]
    assert truth > 0.1
    assert sum(one.low <= truth <= one.high for one in found) >= 90
    assert np.mean([one.high - one.low for one in found]) < 1.5 * truth


@pytest.mark.slow
def test_the_shift_is_in_units_of_the_spread() -> None:
    chance = np.random.default_rng(5)
    here, there = around(chance, axis(0), 3_000, 0.1), around(chance, axis(0) + 0.2 * axis(1), 3_000, 0.1)
    spread = math.sqrt(float(np.square(here - here.mean(axis=0)).sum(axis=1).mean()))
    expected = float(np.linalg.norm(there.mean(axis=0) - here.mean(axis=0))) / spread
    assert centroid_shift(there, here).value == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("measure", [mmd, centroid_shift])
def test_samples_of_equal_rows(measure: Measured) -> None:
    same, ones, others = (np.tile(axis(at), (rows, 1)) for at, rows in ((0, 5), (1, 50), (0, 50)))
    assert (measure(same, same).value, measure(same, same).p_value) == (0.0, 1.0)
    assert measure(ones, others).low > 0.5


def test_the_same_samples_give_the_same_answer() -> None:
    chance = np.random.default_rng(6)
    x, y = around(chance, axis(0), 30), around(chance, axis(0), 30)
    assert mmd(x, y) == mmd(x, y)


def test_ks_of_equal_and_of_disjoint_samples() -> None:
    low, high = np.arange(60.0), np.arange(100.0, 160.0)
    same = ks_statistic(low, low)
    assert (same.value, same.low, same.p_value) == (0.0, 0.0, 1.0)
    assert same.high == pytest.approx(0.382, abs=0.001)
    apart = ks_statistic(low, high)
    assert apart.value == apart.high == 1.0
    assert p_value(apart) < 1e-9


def test_the_interval_of_ks_has_its_coverage() -> None:
    chance = np.random.default_rng(8)
    truth = 2 * stats.norm.cdf(0.25) - 1  # of two normal distributions half a deviation apart
    found = [ks_statistic(chance.normal(0.5, size=150), chance.normal(size=150)) for _ in range(100)]
    assert sum(one.low <= truth <= one.high for one in found) >= 95


def test_clustered_words_widen_the_interval_of_a_share() -> None:
    scattered = pooled_share([1, 0] * 50, [10] * 100)
    together = pooled_share([10] + [0] * 19, [10] * 20)
    assert scattered.value == together.value == 0.05
    assert together.high - together.low > scattered.high - scattered.low
    assert scattered.low < 0.05 < scattered.high


def test_a_share_of_queries_is_a_score_interval() -> None:
    found = pooled_share([1] * 5 + [0] * 95, [1] * 100)
    theirs = stats.binomtest(5, 100).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.002)


def test_a_share_of_nothing_is_unknown() -> None:
    found = pooled_share([0, 0], [0, 0])
    assert (found.value, found.low, found.high) == pytest.approx((math.nan, 0.0, 1.0), nan_ok=True, abs=0)


def test_shares_of_0_and_1_are_uncertain_too() -> None:
    assert pooled_share([0] * 50, [4] * 50).high > 0.01
    assert pooled_share([4] * 50, [4] * 50).low < 0.99
