"""Who is near whom in a sample of a space: hubs, dimension, doubles, and whether words and places agree.

Pure: no I/O. `rows` has shape [n, dimensions], float32, each of length 1; distances are those of unit vectors,
sqrt(2 - 2 cosine). Every figure is of the sample: among more points the nearest are nearer, and hubs are larger.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.ids import Vectors

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Counts = npt.NDArray[np.int64]

K = 10
"""NearestNeighbours of a row that are looked at."""
_BLOCK = 512
"""Rows that are compared with all others at once: 10 MB for 5,000 rows."""
_SAME_PLACE = 1e-3
"""Distance below which two rows are at one place as far as 32 bits tell."""
_FITTED = 0.9
"""Share of the ratios that the dimension is fitted to: the largest are of rows that lie alone."""
_RESAMPLES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class NearestNeighbours:
    """Of each row, nearest first, itself left out: `ids` and `cosines` have shape [n, min(k, n - 1)]."""

    ids: Indices
    cosines: npt.NDArray[np.float32]


def neighbours(rows: Vectors, k: int = K, groups: Indices | None = None) -> NearestNeighbours:
    """Exact. Time grows with n * n * dimensions: a second for 5,000 rows of 384.

    `groups`: a number for each row, whose neighbours are then of other groups; each must leave k rows outside itself.
    """
    n = len(rows)
    k = min(k, max(0, n - 1))
    ids, cosines = np.empty((n, k), np.intp), np.empty((n, k), np.float32)
    for start in range(0, n, _BLOCK):
        part = slice(start, min(start + _BLOCK, n))
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


# ---------------------------------------------------------------- hubs


def occurrences(near: NearestNeighbours) -> Counts:
    """How often each row is among the k nearest of others, [n]: its mean is k."""
    counts: Counts = np.bincount(near.ids.ravel(), minlength=len(near.ids))
    return counts


def skewness(counts: npt.NDArray[np.number]) -> Floats:
    """The standardised third moment of the occurrences along the last axis: large where a few rows are near all.

    Radovanovic, Nanopoulos and Ivanovic, "Hubs in space" (JMLR 2010). It grows with the intrinsic dimension, and where
    a space has lost its meaning the rows at its centre are everybody's neighbours. 0 where all counts are equal.
    """
    deviations = counts - counts.mean(axis=-1, keepdims=True)
    spread = deviations.std(axis=-1)
    third = (deviations**3).mean(axis=-1)
    skew: Floats = np.divide(third, spread**3, out=np.zeros_like(third), where=spread > 0)
    return skew


def antihubs(counts: Counts) -> float:
    """The share of rows that are among the nearest of nobody: documents that hardly any question brings up."""
    return float((counts == 0).mean()) if counts.size else 0.0


# ---------------------------------------------------------------- dimension


def ratios(near: NearestNeighbours) -> Floats:
    """Of the distance to the second neighbour and that to the first, of each row; at least 1.

    Rows with another at the very same place are left out, for theirs is infinite.
    """
    if near.cosines.shape[1] < 2:
        return np.zeros(0)
    distances = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * near.cosines[:, :2].astype(np.float64)))
    apart = distances[distances[:, 0] > _SAME_PLACE]
    return apart[:, 1] / apart[:, 0]


def intrinsic_dimension(found: Floats) -> Floats:
    """TwoNN along the last axis of such `ratios`; 0 of too few.

    Facco, d'Errico, Rodriguez and Laio, "Estimating the intrinsic dimension of datasets by a minimal neighborhood
    information" (Scientific Reports 2017). Where the density hardly changes from a row to its second neighbour,
    -log(1 - F) grows with log(ratio) by the dimension; the line through the origin is fitted to the smaller nine
    tenths.
    """
    n = found.shape[-1]
    kept = int(_FITTED * n)
    logs = np.log(np.sort(found, axis=-1)[..., :kept])
    expected = -np.log1p(-np.arange(1, kept + 1) / n) if kept else np.zeros(0)
    squares, products = np.square(logs).sum(axis=-1), (logs * expected).sum(axis=-1)
    dimension: Floats = np.divide(products, squares, out=np.zeros_like(squares), where=squares > 0)
    return dimension


# ---------------------------------------------------------------- doubles


def doubles(near: NearestNeighbours, cosine: float) -> list[tuple[int, int]]:
    """Pairs of rows whose cosine is above this, each once, as far as one is among the nearest of the other."""
    at, place = np.nonzero(near.cosines > cosine)
    pairs = {(min(a, b), max(a, b)) for a, b in zip(at.tolist(), near.ids[at, place].tolist(), strict=True)}
    return sorted(pairs)


# ---------------------------------------------------------------- meaning


def overlap(first: NearestNeighbours, second: NearestNeighbours) -> Floats:
    """Of each row the share of its neighbours that it has in both, [n]."""
    pairs = zip(first.ids.tolist(), second.ids.tolist(), strict=True)
    shares = [len(set(one) & set(other)) / max(1, len(one)) for one, other in pairs]
    return np.array(shares, np.float64)


def centred(rows: Vectors) -> Vectors:
    """Seen from the middle of all rows: what they have in common is taken away. Of length 1 again."""
    moved = rows - rows.mean(axis=0)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    seen: Vectors = np.divide(moved, lengths, out=np.zeros_like(moved), where=lengths > 0)
    return seen


def separation(own: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> float:
    """How far texts lie nearer to where they belong than to anything else, in deviations of the latter.

    The sensitivity index d' (Green and Swets 1966, "Signal detection theory and psychophysics") over the cosines
    `own` [m] and `others` [m, n], taken over all queries at once: a space in which some queries are near to everything
    is worse for it. It does not depend on how many others there are. As a share of one query it is the ratio of
    Arampatzis and Kamps 2009, on which `background.certainty` stands.
    """
    spread = float(np.std(others))
    return float((np.mean(own) - np.mean(others)) / spread) if spread > 0 else 0.0


# ---------------------------------------------------------------- errors


def resampled(values: npt.NDArray[np.number], statistic: Callable[[Floats], Floats]) -> float:
    """Standard error of a statistic (along the last axis) of these values, by the bootstrap (Efron 1979)."""
    n = values.shape[-1]
    if n < 2:
        return 0.0
    chance, wide = np.random.default_rng(0), values.astype(np.float64)
    return float(np.std([statistic(wide[chance.integers(n, size=n)]) for _ in range(_RESAMPLES)], ddof=1))
