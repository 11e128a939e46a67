"""The shape of a space: is there room between its vectors, or have they collapsed onto each other?

A broken embedder still returns neighbours. The geometry of its vectors gives it away without any relevance judgment:
all in one place, along one line, or equal for different texts. The limits below are so far out that only broken spaces
reach them, because they decide over promotions (docs/decisions/0013 has the measurements).

`vectors`: a sample of a space, shape [n, dimensions], without zero or NaN rows. `rows`: the same at length 1.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.ids import Vectors
from service.core.vector_math import unit_rows

Floats = npt.NDArray[np.float64]

MIN_ROWS = 50
"""Fewer vectors say nothing about a space: ten texts of one subject may well lie close together."""
MAX_MEAN_COSINE = 0.95
"""Random weights reach 0.98. Sound models stay below 0.9, also those that lie in a narrow cone as a whole, such as E5,
and also where they do not know the language."""
MAX_FIRST_SHARE = 0.75
"""Of the variance, along one direction. Two languages of which a model knows one reach 0.46, because they lie apart."""
MIN_EFFECTIVE_RANK = 3.0
"""Or half the dimensions, where there are fewer than six."""
MAX_DUPLICATES = 0.5
"""Share of rows that have the vector of a different text."""
_PAIRS_AT_ONCE = 1_000
"""64 MB in two arrays of 4,000 dimensions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """`mean_cosine`: of all pairs of rows. `first_share`: of the variance, along its strongest direction.
    `effective_rank`: of the centred rows. `duplicates`: share of rows whose vector a different text has too."""

    rows: int
    dimensions: int
    mean_cosine: float
    first_share: float
    effective_rank: float
    duplicates: float


def measure_geometry(vectors: Vectors, texts: Sequence[Hashable] | None = None) -> Geometry:
    """`texts[i]` stands for the text of row i: equal where the texts are equal. None: all texts differ.

    Time grows with n * d * min(n, d); a third of a second for 2,000 x 1,024.
    """
    rows = unit_rows(vectors.astype(np.float64))
    variances = principal_variances(rows)
    return Geometry(
        rows=rows.shape[0],
        dimensions=rows.shape[1],
        mean_cosine=mean_cosine(rows),
        first_share=leading_variance_share(variances, 1),
        effective_rank=effective_rank(variances),
        duplicates=_duplicate_share(vectors, texts),
    )


def collapse_reasons(geometry: Geometry) -> tuple[str, ...]:
    """Each limit that the space violates, in words; none for a sound space."""
    found = []
    if geometry.mean_cosine > MAX_MEAN_COSINE:
        found.append(f"the mean cosine of two vectors is {geometry.mean_cosine:.4f} (at most {MAX_MEAN_COSINE})")
    if geometry.first_share > MAX_FIRST_SHARE:
        found.append(f"one direction holds {geometry.first_share:.0%} of the variance (at most {MAX_FIRST_SHARE:.0%})")
    if geometry.effective_rank < (least := min(MIN_EFFECTIVE_RANK, geometry.dimensions / 2)):
        found.append(f"the effective rank is {geometry.effective_rank:.1f} (at least {least:g})")
    if geometry.duplicates > MAX_DUPLICATES:
        found.append(f"{geometry.duplicates:.0%} of the vectors stand for several texts (at most {MAX_DUPLICATES:.0%})")
    return tuple(found)


def mean_cosine(rows: Floats) -> float:
    """The mean over all pairs of different rows, without forming the pairs.

    The sum over all ordered pairs is the squared length of the sum of the rows; n of them pair a row with itself.
    """
    n = rows.shape[0]
    return float((np.square(rows.sum(axis=0)).sum() - n) / (n * (n - 1))) if n > 1 else 1.0


def mean_cosine_error(rows: Floats) -> float:
    """Standard error of `mean_cosine`: twice that of the mean over rows of each row's mean cosine with the others.

    The projection of a U-statistic of two arguments (Hoeffding 1948, "A class of statistics with asymptotically normal
    distribution"), because pairs that share a row are not independent.
    """
    n = rows.shape[0]
    if n < 2:
        return 0.0
    of_rows = (rows @ rows.sum(axis=0) - 1.0) / (n - 1)
    return float(2.0 * of_rows.std(ddof=1) / np.sqrt(n))


def random_pair_cosines(rows: Floats, pairs: int, random: np.random.Generator) -> Floats:
    """Cosines of random pairs of different rows, [pairs]; empty for fewer than two rows."""
    n = rows.shape[0]
    if n < 2:
        return np.zeros(0)
    first = random.integers(n, size=pairs)
    second = (first + random.integers(1, n, size=pairs)) % n
    parts = (slice(start, start + _PAIRS_AT_ONCE) for start in range(0, pairs, _PAIRS_AT_ONCE))
    return np.concatenate([np.einsum("ij,ij->i", rows[first[part]], rows[second[part]]) for part in parts])


def principal_variances(rows: Floats) -> Floats:
    """Squared singular values of the centred rows, largest first, by the smaller of the two Gram matrices."""
    if not len(rows):
        return np.zeros(0)
    centred = rows - rows.mean(axis=0)
    gram = centred @ centred.T if centred.shape[0] < centred.shape[1] else centred.T @ centred
    values = np.linalg.eigvalsh(gram)[::-1]
    floor = values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps  # below it there is only rounding
    variances: Floats = np.where(values > floor, values, 0.0)
    return variances


def leading_variance_share(variances: Floats, directions: int) -> float:
    """Of the variance, along the strongest directions (Mu and Viswanath 2018, "All-but-the-top"); 1 where it is 0."""
    total = variances.sum()
    return float(variances[:directions].sum() / total) if total > 0 else 1.0


def effective_rank(variances: Floats) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli 2007, "The effective rank")."""
    singular = np.sqrt(variances[variances > 0])
    if not singular.size:
        return 0.0
    shares = singular / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def participation_ratio(variances: Floats) -> float:
    """How many directions share the variance: its squared sum over the sum of its squares.

    Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement". Faint ones hardly count.
    """
    squares = float(np.square(variances).sum())
    return float(variances.sum() ** 2 / squares) if squares > 0 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaneProjection:
    """A principal component analysis onto two directions (Pearson 1901, "On lines and planes of closest fit").

    `coordinates`: of the rows, [n, 2]. `variance_shares`: of each direction. A vector less `mean`, [d], times the
    `directions`, [2, d], gives its coordinates. Where there are fewer than two directions, the missing ones are 0.
    """

    coordinates: Floats
    variance_shares: tuple[float, float]
    mean: Floats
    directions: Floats


def project_on_plane(rows: Floats) -> PlaneProjection:
    """The projection of at least one row, by the smaller of the two Gram matrices."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    wide = rows.shape[0] < rows.shape[1]
    values, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    values, vectors = np.maximum(values[::-1][:2], 0.0), vectors[:, ::-1][:, :2]
    coordinates = vectors * np.sqrt(values) if wide else centred @ vectors
    missing = 2 - len(values)
    coordinates = np.pad(coordinates, ((0, 0), (0, missing)))
    total = float(np.square(centred).sum())
    first, second = np.pad(values / total if total > 0 else np.zeros_like(values), (0, missing)).tolist()
    lengths = np.square(coordinates).sum(axis=0)
    directions = (coordinates / np.where(lengths > 0, lengths, 1.0)).T @ centred
    return PlaneProjection(coordinates=coordinates, variance_shares=(first, second), mean=mean, directions=directions)


def jackknife_error(rows: Floats, statistic: Callable[[Floats], Floats], groups: int = 10) -> Floats:
    """Standard errors of what `statistic` gives, by leaving out one group of the rows after another.

    Quenouille 1956, "Notes on bias in estimation"; by groups as in Kunsch 1989. NaN for fewer rows than groups.
    """
    n = len(rows)
    if n < groups:
        return np.full_like(statistic(rows), np.nan)
    group_of = np.arange(n) % groups
    left_out = np.stack([statistic(rows[group_of != group]) for group in range(groups)])
    errors: Floats = np.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean(axis=0)).sum(axis=0))
    return errors


def duplicate_rows(vectors: Vectors) -> npt.NDArray[np.intp]:
    """The rows whose vector occurs more than once."""
    _, group, sizes = np.unique(_row_keys(vectors), return_inverse=True, return_counts=True)
    return np.flatnonzero(sizes[group] > 1)


def _duplicate_share(vectors: Vectors, texts: Sequence[Hashable] | None) -> float:
    groups = np.unique(_row_keys(vectors), return_inverse=True)[1].tolist()
    distinct = set(zip(groups, range(len(groups)) if texts is None else texts, strict=True))
    texts_of = Counter(group for group, _ in distinct)
    return sum(texts_of[group] > 1 for group in groups) / max(1, len(groups))


def _row_keys(vectors: Vectors) -> npt.NDArray[np.void]:
    """Each row as one value that can be compared."""
    rows = np.ascontiguousarray(vectors)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
