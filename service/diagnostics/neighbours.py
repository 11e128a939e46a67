"""Measures of nearest neighbours in a sample of a space: hubs, intrinsic dimension, near duplicates, agreement.

Pure: no I/O. `rows` has shape [n, dimensions], float32, each of length 1; distances are those of unit vectors,
sqrt(2 - 2 cosine). Every figure is of the sample: among more points the nearest are nearer, and hubs are larger. scipy
is imported on first use, which is in a thread, because that takes a second.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.ids import Vectors
from service.core.vector_math import unit_rows

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Counts = npt.NDArray[np.int64]

K = 10
"""Neighbours of a row that are compared."""
_ROWS_AT_ONCE = 512
"""Rows that are compared with all others at once: 10 MB for 5,000 rows."""
_MIN_DISTANCE = 1e-3
"""Two rows that are nearer are at one place, as far as 32 bits tell."""
_FITTED_SHARE = 0.9
"""Share of the ratios that the dimension is fitted to: the largest ones belong to isolated rows."""
_RESAMPLES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class NearestNeighbours:
    """Of each row, nearest first, without itself: `ids` and `cosines` have shape [n, min(k, n - 1)]."""

    ids: Indices
    cosines: npt.NDArray[np.float32]


def nearest_neighbours(rows: Vectors, k: int = K, groups: Indices | None = None) -> NearestNeighbours:
    """The exact neighbours. Time grows with n * n * dimensions: a second for 5,000 rows of 384.

    `groups`: a number for each row, whose neighbours are then of other groups; each must leave k rows outside itself.
    """
    n = len(rows)
    k = min(k, max(0, n - 1))
    ids, cosines = np.empty((n, k), np.intp), np.empty((n, k), np.float32)
    for start in range(0, n, _ROWS_AT_ONCE):
        part = slice(start, min(start + _ROWS_AT_ONCE, n))
        near = rows[part] @ rows.T
        at = np.arange(len(near))
        near[at, at + start] = -np.inf
        if groups is not None:
            near[groups[part][:, None] == groups[None, :]] = -np.inf
        chosen = np.argpartition(-near, k - 1, axis=1)[:, :k] if k else np.empty((len(near), 0), np.intp)
        order = np.argsort(-near[at[:, None], chosen], axis=1, kind="stable")
        ids[part] = chosen[at[:, None], order]
        cosines[part] = near[at[:, None], ids[part]]
    return NearestNeighbours(ids=ids, cosines=cosines)


def occurrences(near: NearestNeighbours) -> Counts:
    """How often each row is among the k nearest of others, [n]: its mean is k."""
    counts: Counts = np.bincount(near.ids.ravel(), minlength=len(near.ids))
    return counts


def skewness(counts: npt.NDArray[np.number]) -> float:
    """The standardised third moment of the occurrences; 0 where all are equal. It is large where there are hubs.

    Radovanovic, Nanopoulos and Ivanovic, "Hubs in space" (JMLR 2010). It grows with the intrinsic dimension, and where
    a space has lost its meaning the rows at its centre are everybody's neighbours.
    """
    from scipy.stats import skew

    return float(skew(counts)) if np.ptp(counts) else 0.0


def antihubs(counts: Counts) -> float:
    """The share of rows that are among the nearest of no other: documents that hardly any query finds."""
    return float((counts == 0).mean()) if counts.size else 0.0


def distance_ratios(near: NearestNeighbours) -> Floats:
    """Of the distance to the second neighbour and that to the first, for each row; at least 1.

    Rows with another at the very same place are left out, because their ratio is infinite.
    """
    if near.cosines.shape[1] < 2:
        return np.zeros(0)
    distances = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * near.cosines[:, :2].astype(np.float64)))
    apart = distances[distances[:, 0] > _MIN_DISTANCE]
    return apart[:, 1] / apart[:, 0]


def intrinsic_dimension(ratios: Floats) -> float:
    """TwoNN, from `distance_ratios`; 0 for too few.

    Facco, d'Errico, Rodriguez and Laio, "Estimating the intrinsic dimension of datasets by a minimal neighborhood
    information" (Scientific Reports 2017). Where the density hardly changes from a row to its second neighbour,
    -log(1 - F) grows with log(ratio) by the dimension; the line through the origin is fitted to the smaller nine
    tenths.
    """
    kept = int(_FITTED_SHARE * len(ratios))
    logs = np.log(np.sort(ratios)[:kept])
    squares = float(np.square(logs).sum())
    return float(logs @ -np.log1p(-np.arange(1, kept + 1) / len(ratios))) / squares if squares > 0 else 0.0


def pairs_above(near: NearestNeighbours, cosine: float) -> list[tuple[int, int]]:
    """Pairs of rows whose cosine is above this, each once, as far as one is among the nearest of the other."""
    rows, columns = np.nonzero(near.cosines > cosine)
    pairs = np.sort(np.stack([rows, near.ids[rows, columns]], axis=1), axis=1)
    return sorted({(a, b) for a, b in pairs.tolist()})


def neighbour_overlap(first: NearestNeighbours, second: NearestNeighbours) -> Floats:
    """For each row the share of its neighbours that it has in both, [n]."""
    pairs = zip(first.ids.tolist(), second.ids.tolist(), strict=True)
    return np.array([len(set(one) & set(other)) / max(1, len(one)) for one, other in pairs], np.float64)


def centred_directions(rows: Vectors) -> Vectors:
    """The rows less their mean, at length 1 again: what all have in common is taken away."""
    return unit_rows(rows - rows.mean(axis=0))


def sensitivity_index(own: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> float:
    """How much nearer texts lie to where they belong than to anything else, in standard deviations of the latter.

    d' (Green and Swets 1966, "Signal detection theory and psychophysics") over the cosines `own` [m] and `others`
    [m, n], over all queries at once: a space in which some queries are near to everything is worse for it. It does not
    depend on how many others there are. For one query: Arampatzis and Kamps 2009, as in `dense_certainty.certainty`.
    """
    spread = float(np.std(others))
    return float((np.mean(own) - np.mean(others)) / spread) if spread > 0 else 0.0


def bootstrap_error(values: npt.NDArray[np.number], statistic: Callable[[Floats], float]) -> float:
    """Standard error of a statistic of these values, by the bootstrap (Efron 1979)."""
    n = len(values)
    if n < 2:
        return 0.0
    random, wide = np.random.default_rng(0), values.astype(np.float64)
    return float(np.std([statistic(wide[random.integers(n, size=n)]) for _ in range(_RESAMPLES)], ddof=1))
