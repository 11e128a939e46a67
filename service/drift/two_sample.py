"""How far two samples of queries are apart, with a 95 % interval and a p-value for the difference. Pure.

centroid shift   the distance of the two mean vectors
mmd              the maximum mean discrepancy, which compares whole distributions and not only their means (Gretton,
                 Borgwardt, Rasch, Schoelkopf and Smola, "A kernel two-sample test", JMLR 13, 2012)
ks               the largest difference of two distribution functions, for one number a query

With many queries the smallest difference is significant; whether it matters, its size says.

`sample`, `reference`: shape [m, dimensions] and [n, dimensions], rows of length 1; at least two rows each. scipy and
scikit-learn are imported on first use, which is in a thread, because that takes a second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.statistics import Z, wilson

Floats = npt.NDArray[np.float64]

PERMUTATIONS = 400
"""Of the pooled rows. The smallest possible p-value is 1 / (PERMUTATIONS + 1)."""
_BANDWIDTH_ROWS = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A measure with its 95 % interval. `p_value`: of so large a value by chance alone; None where it has none."""

    value: float
    low: float
    high: float
    p_value: float | None = None


def mmd(sample: npt.ArrayLike, reference: npt.ArrayLike, *, seed: int = 0) -> Estimate:
    """The MMD with a Gaussian kernel as wide as the median distance of two rows (the "median heuristic"), in [0, 1].

    The root of the unbiased estimate (Gretton et al. 2012, eq. 3), 0 where that is negative. The median is taken over
    as many rows of either sample, so that the larger one does not decide alone.
    """
    from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

    x, y = np.asarray(sample, np.float64), np.asarray(reference, np.float64)
    each = min(len(x), len(y), _BANDWIDTH_ROWS)
    distances = euclidean_distances(np.concatenate([x[:each], y[:each]]))
    width = float(np.median(distances[np.triu_indices(2 * each, k=1)])) or 1.0
    return _mmd_estimate(rbf_kernel(np.concatenate([x, y]), gamma=0.5 / width**2), len(x), seed)


def centroid_shift(sample: npt.ArrayLike, reference: npt.ArrayLike, *, seed: int = 0) -> Estimate:
    """The distance of the two mean vectors, in units of the root mean square distance of the reference from its mean.

    It is estimated as the MMD with a linear kernel, because the plain distance of the means of few rows is never 0,
    whether the means differ or not.
    """
    x, y = np.asarray(sample, np.float64), np.asarray(reference, np.float64)
    rows = np.concatenate([x, y])
    distance = _mmd_estimate(rows @ rows.T, len(x), seed)
    spread = math.sqrt(float(np.square(y - y.mean(axis=0)).sum()) / (len(y) - 1))
    spread = max(spread, np.finfo(np.float64).eps)  # of equal rows: any shift is infinitely many spreads
    value, low, high = (bound / spread for bound in (distance.value, distance.low, distance.high))
    return Estimate(value=value, low=low, high=high, p_value=distance.p_value)


def _mmd_estimate(kernel: Floats, m: int, seed: int) -> Estimate:
    """The root of the unbiased MMD^2 of the first m rows against the others.

    p-value: by permutation of all rows, counting the observed order too, so that it is never 0 (Phipson and Smyth 2010,
    "Permutation p-values should never be zero"); as one matrix product, which is far faster than
    `scipy.stats.permutation_test`. Interval: of a U-statistic of two samples, with the variance of its first-order part
    (Serfling 1980, "Approximation theorems of mathematical statistics", ch. 5) plus that under the null hypothesis,
    where the first-order part vanishes.
    """
    n = len(kernel) - m
    between = kernel.copy()
    np.fill_diagonal(between, 0.0)
    labels = np.zeros((len(kernel), PERMUTATIONS + 1))
    labels[:m, 0] = 1.0
    random = np.random.default_rng(seed)
    for column in range(1, PERMUTATIONS + 1):
        labels[random.permutation(len(kernel))[:m], column] = 1.0
    squares = _unbiased_squares(between, labels, m, n)
    observed, null = float(squares[0]), squares[1:]
    p_value = (1 + int((null >= observed).sum())) / (PERMUTATIONS + 1)
    within_x = between[:m, :m].sum(axis=1) / (m - 1) - between[:m, m:].mean(axis=1)
    within_y = between[m:, m:].sum(axis=1) / (n - 1) - between[m:, :m].mean(axis=1)
    variance = 4.0 * (float(within_x.var(ddof=1)) / m + float(within_y.var(ddof=1)) / n) + float(null.var())
    half = Z * math.sqrt(variance)
    value, low, high = (math.sqrt(max(0.0, square)) for square in (observed, observed - half, observed + half))
    return Estimate(value=value, low=low, high=high, p_value=p_value)


def _unbiased_squares(between: Floats, labels: Floats, m: int, n: int) -> Floats:
    """MMD^2 for each column of `labels`, which has 1 for the rows of the one sample and 0 for those of the other.

    `between`: the kernel with a diagonal of 0.
    """
    sums = between.sum(axis=1)
    xx = (labels * (between @ labels)).sum(axis=0)
    xy = sums @ labels - xx
    yy = float(sums.sum()) - xx - 2.0 * xy
    squares: Floats = xx / (m * (m - 1)) + yy / (n * (n - 1)) - 2.0 * xy / (m * n)
    return squares


def ks_statistic(sample: npt.ArrayLike, reference: npt.ArrayLike) -> Estimate:
    """The Kolmogorov-Smirnov statistic of two samples of numbers, in [0, 1]; 1 where they do not overlap.

    Interval: what the 97.5 % bands of both distribution functions allow (Dvoretzky, Kiefer and Wolfowitz with the
    constant of Massart 1990). It is wider than it need be, never too narrow.
    """
    from scipy.stats import ks_2samp

    a, b = np.asarray(sample, np.float64), np.asarray(reference, np.float64)
    test = ks_2samp(a, b, method="asymp")
    value, p_value = float(test.statistic), float(test.pvalue)
    half = sum(math.sqrt(math.log(2 / 0.025) / (2 * size)) for size in (len(a), len(b)))
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half), p_value=p_value)


def pooled_share(counts: Sequence[int], totals: Sequence[int]) -> Estimate:
    """`sum(counts) / sum(totals)`, for queries that bring `totals[i]` words each, of which `counts[i]` are counted.

    Words of one query are no independent trials: the score interval (Wilson 1927) is taken at the number of trials that
    would vary as the ratio of these queries does (Cochran 1977, "Sampling techniques", ch. 6). Where there is nothing
    to count, the value is NaN and the interval is [0, 1].
    """
    part, whole = np.asarray(counts, np.float64), np.asarray(totals, np.float64)
    n, trials = len(whole), float(whole.sum())
    if trials <= 0:
        return Estimate(value=math.nan, low=0.0, high=1.0)
    ratio = float(part.sum()) / trials
    if n > 1:
        variance = float(np.square(part - ratio * whole).sum()) / (n * (n - 1)) / float(whole.mean()) ** 2
        if variance > 0:
            trials = min(trials, max(1.0, ratio * (1 - ratio) / variance))
    low, high = wilson(ratio, trials)
    return Estimate(value=ratio, low=low, high=high)
