"""Do two samples of queries come from one distribution? Measures of how far apart they are, each with its error. Pure.

centroid shift   how far the middle of one sample lies from that of the other
mmd              the maximum mean discrepancy: how far all of one distribution lies from the other, not its middle alone
                 (Gretton, Borgwardt, Rasch, Schoelkopf and Smola, "A kernel two-sample test", JMLR 13, 2012)
ks               the largest difference of two distribution functions, for one number a query (Kolmogorov 1933, Smirnov
                 1939)

A p-value says how probable so large a difference is where there is none. With many queries the smallest difference is
beyond chance; whether it matters, its size says.

`sample`, `reference`: shape [m, dimensions] and [n, dimensions], rows of length 1; at least two rows each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.statistics import Z, wilson

Floats = npt.NDArray[np.float64]

PERMUTATIONS = 400
"""Of the pooled rows: the least p-value is 1 / (PERMUTATIONS + 1)."""
_BANDWIDTH_ROWS = 500
_TERMS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """How far two samples are apart, with its 95 % interval. `p`: of so large a gap by chance alone; None: untold."""

    value: float
    low: float
    high: float
    p: float | None = None


# ---------------------------------------------------------------- vectors


def mmd(sample: npt.ArrayLike, reference: npt.ArrayLike, *, seed: int = 0) -> Gap:
    """The MMD with a Gaussian kernel as wide as the median distance of two rows (the "median heuristic"); in [0, 1].

    The root of the unbiased estimate (Gretton et al. 2012, eq. 3), 0 where that is negative.
    """
    x, y = np.asarray(sample, np.float64), np.asarray(reference, np.float64)
    rows = np.concatenate([x, y])
    squares = _squared_distances(rows)
    width = _median_square(squares, len(x))
    return _gap(np.exp(squares / (-2.0 * width)), len(x), seed)


def centroid_shift(sample: npt.ArrayLike, reference: npt.ArrayLike, *, seed: int = 0) -> Gap:
    """The distance of the two mean vectors, in units of the root mean square distance of the reference from its mean.

    That is the MMD with a linear kernel, and estimated so: the plain distance of two means of few rows is never 0,
    whether they moved or not.
    """
    x, y = np.asarray(sample, np.float64), np.asarray(reference, np.float64)
    rows = np.concatenate([x, y])
    moved = _gap(rows @ rows.T, len(x), seed)
    spread = math.sqrt(float(np.square(y - y.mean(axis=0)).sum()) / (len(y) - 1))
    if spread <= 0:  # all alike: any shift is infinitely many spreads
        spread = np.finfo(np.float64).eps
    return Gap(value=moved.value / spread, low=moved.low / spread, high=moved.high / spread, p=moved.p)


def _squared_distances(rows: Floats) -> Floats:
    lengths = np.square(rows).sum(axis=1)
    squares: Floats = np.maximum(0.0, lengths[:, None] + lengths[None, :] - 2.0 * rows @ rows.T)
    return squares


def _median_square(squares: Floats, m: int) -> float:
    """Of the distances of different rows; as many rows of either sample, so that none decides because it is larger."""
    each = min(m, len(squares) - m, _BANDWIDTH_ROWS)
    chosen = np.r_[0:each, m : m + each]
    part = squares[np.ix_(chosen, chosen)]
    median = float(np.median(np.sqrt(part[np.triu_indices(len(part), k=1)])))
    return median**2 if median > 0 else 1.0


def _gap(kernel: Floats, m: int, seed: int) -> Gap:
    """The root of the unbiased MMD^2 of the first m rows against the others.

    p: by permutation of all rows, the observed order counted too, so that it is never 0 (Phipson and Smyth 2010,
    "Permutation p-values should never be zero"). The interval: of a U-statistic of two samples, with the variance of
    its first-order part (Serfling 1980, "Approximation theorems of mathematical statistics", ch. 5), plus that under
    the null, where the first-order part vanishes.
    """
    n = len(kernel) - m
    between = kernel.copy()
    np.fill_diagonal(between, 0.0)
    sides = np.zeros((len(kernel), PERMUTATIONS + 1))
    sides[:m, 0] = 1.0
    chance = np.random.default_rng(seed)
    for at in range(1, PERMUTATIONS + 1):
        sides[chance.permutation(len(kernel))[:m], at] = 1.0
    squares = _unbiased(between, sides, m, n)
    observed, null = float(squares[0]), squares[1:]
    p = (1 + int((null >= observed).sum())) / (PERMUTATIONS + 1)
    within_x = between[:m, :m].sum(axis=1) / (m - 1) - between[:m, m:].mean(axis=1)
    within_y = between[m:, m:].sum(axis=1) / (n - 1) - between[m:, :m].mean(axis=1)
    variance = 4.0 * (float(within_x.var(ddof=1)) / m + float(within_y.var(ddof=1)) / n) + float(null.var())
    half = Z * math.sqrt(variance)
    value, low, high = (math.sqrt(max(0.0, square)) for square in (observed, observed - half, observed + half))
    return Gap(value=value, low=low, high=high, p=p)


def _unbiased(between: Floats, sides: Floats, m: int, n: int) -> Floats:
    """MMD^2 for each column of `sides`, which is 1 for the rows of the one sample and 0 for those of the other.

    `between`: the kernel with a diagonal of 0.
    """
    sums = between.sum(axis=1)
    xx = (sides * (between @ sides)).sum(axis=0)
    xy = sums @ sides - xx
    yy = float(sums.sum()) - xx - 2.0 * xy
    squares: Floats = xx / (m * (m - 1)) + yy / (n * (n - 1)) - 2.0 * xy / (m * n)
    return squares


# ---------------------------------------------------------------- one number a query


def ks(sample: npt.ArrayLike, reference: npt.ArrayLike) -> Gap:
    """The Kolmogorov-Smirnov statistic of two samples of numbers: in [0, 1], 1 where none of one is among the other.

    p: the limit for large samples, with the correction for small ones of Stephens (1970, "Use of the
    Kolmogorov-Smirnov, Cramer-von Mises and related statistics without extensive tables"). The interval: what the
    bands of both distribution functions allow, 97.5 % each (Dvoretzky, Kiefer and Wolfowitz with the constant of
    Massart 1990); wider than it need be, never too narrow.
    """
    a, b = np.sort(np.asarray(sample, np.float64)), np.sort(np.asarray(reference, np.float64))
    places = np.concatenate([a, b])
    below_a = np.searchsorted(a, places, side="right") / len(a)
    below_b = np.searchsorted(b, places, side="right") / len(b)
    value = float(np.abs(below_a - below_b).max())
    half = sum(math.sqrt(math.log(2 / 0.025) / (2 * size)) for size in (len(a), len(b)))
    root = math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    p = _kolmogorov((root + 0.12 + 0.11 / root) * value)
    return Gap(value=value, low=max(0.0, value - half), high=min(1.0, value + half), p=p)


def _kolmogorov(reach: float) -> float:
    """The chance that the supremum of a Brownian bridge is beyond `reach`."""
    if reach < 0.2:  # the series converges slowly, to 1 within 1e-12
        return 1.0
    terms = (-2.0 * (-1.0) ** at * math.exp(-2.0 * (at * reach) ** 2) for at in range(1, _TERMS + 1))
    return min(1.0, max(0.0, sum(terms)))


# ---------------------------------------------------------------- shares


def share(counts: Sequence[int], totals: Sequence[int]) -> Gap:
    """`sum(counts) / sum(totals)`, of queries that bring `totals[i]` words each of which `counts[i]` are counted.

    Words of one query are no independent trials: the score interval (Wilson 1927) is taken at as many trials as would
    vary like the ratio of these queries does (Cochran 1977, "Sampling techniques", ch. 6). All that is possible where
    there is nothing to count.
    """
    part, whole = np.asarray(counts, np.float64), np.asarray(totals, np.float64)
    if whole.sum() <= 0:
        return Gap(value=math.nan, low=0.0, high=1.0)
    n, ratio = len(whole), float(part.sum() / whole.sum())
    trials = float(whole.sum())
    if n > 1:
        residuals = part - ratio * whole
        variance = float(np.square(residuals).sum()) / (n * (n - 1)) / float(whole.mean()) ** 2
        if variance > 0:
            trials = min(trials, max(1.0, ratio * (1 - ratio) / variance))
    low, high = wilson(ratio, trials)
    return Gap(value=ratio, low=low, high=high)
