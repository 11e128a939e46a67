"""The shape of a space: is there room between its vectors, or have they collapsed onto each other?

A broken embedder still gives neighbours. What gives it away without any judgment is how its vectors lie: all in one
place, along one line, or equal for different texts. The limits below are so far out that only broken spaces reach them;
docs/decisions/0013 has the measurements: they decide over promotions. What an operator is told beyond that is in
`symptoms.py`, who is near whom in `neighbourhood.py`.

`vectors`: a sample of a space, shape [n, dimensions], rows without zeros and NaN, of any length.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.ids import Vectors

Floats = npt.NDArray[np.float64]

LEAST_ROWS = 50
"""Fewer vectors than that say nothing about a space: ten texts of one subject may well lie close together."""
MEAN_COSINE = 0.95
"""Random weights reach 0.98. Sound models stay below 0.9, also those that lie in a narrow cone as a whole, such as E5,
and also where they do not know the language."""
FIRST_SHARE = 0.75
"""Of the variance, along one direction. Two languages of which a model knows one reach 0.46, for they lie apart."""
EFFECTIVE_RANK = 3.0
"""Or half the dimensions, where there are fewer than six."""
DUPLICATES = 0.5
"""Share of rows that have the vector of a different text."""
_GROUPS = 10
"""Parts that the jackknife leaves out one by one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """`mean_cosine`: of all pairs of rows; `first_share`: of the variance, along its strongest direction;
    `effective_rank`: of the centred rows; `duplicates`: share of rows whose vector a different text has too.
    """

    rows: int
    dimensions: int
    mean_cosine: float
    first_share: float
    effective_rank: float
    duplicates: float


def measure(vectors: Vectors, texts: Sequence[Hashable] | None = None) -> Geometry:
    """`texts[i]` stands for the text of row i: equal where the texts are. None: all of them differ.

    Time grows with n * d * min(n, d); a third of a second for 2,000 x 1,024.
    """
    rows = unit(vectors)
    found = variances(rows)
    return Geometry(
        rows=rows.shape[0],
        dimensions=rows.shape[1],
        mean_cosine=mean_cosine(rows),
        first_share=leading_share(found, 1),
        effective_rank=effective_rank(found),
        duplicates=_duplicates(vectors, texts),
    )


def collapsed(geometry: Geometry) -> tuple[str, ...]:
    """What is wrong with it, in words; nothing where it has room."""
    reasons = []
    if geometry.mean_cosine > MEAN_COSINE:
        reasons.append(f"the mean cosine of two vectors is {geometry.mean_cosine:.4f} (at most {MEAN_COSINE})")
    if geometry.first_share > FIRST_SHARE:
        reasons.append(f"one direction holds {geometry.first_share:.0%} of the variance (at most {FIRST_SHARE:.0%})")
    least_rank = min(EFFECTIVE_RANK, geometry.dimensions / 2)
    if geometry.effective_rank < least_rank:
        reasons.append(f"the effective rank is {geometry.effective_rank:.1f} (at least {least_rank:g})")
    if geometry.duplicates > DUPLICATES:
        reasons.append(f"{geometry.duplicates:.0%} of the vectors stand for several texts (at most {DUPLICATES:.0%})")
    return tuple(reasons)


def unit(vectors: Vectors) -> Floats:
    """Rows of length 1, in 64 bits."""
    rows = vectors.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


# ---------------------------------------------------------------- cosines


def mean_cosine(rows: Floats) -> float:
    """The mean over all pairs of different rows of length 1, without forming the pairs.

    The sum over all ordered pairs is the squared length of the sum of the rows; n of them are rows with themselves.
    """
    n = rows.shape[0]
    return float((np.square(rows.sum(axis=0)).sum() - n) / (n * (n - 1))) if n > 1 else 1.0


def mean_cosine_error(rows: Floats) -> float:
    """Standard error of `mean_cosine`: twice that of the mean over rows of each row's mean cosine with the others.

    The projection of a U-statistic of two arguments (Hoeffding 1948, "A class of statistics with asymptotically normal
    distribution"): pairs that share a row do not vary apart.
    """
    n = rows.shape[0]
    if n < 2:
        return 0.0
    of_rows = (rows @ rows.sum(axis=0) - 1.0) / (n - 1)
    return float(2.0 * of_rows.std(ddof=1) / np.sqrt(n))


def cosines(rows: Floats, pairs: int, chance: np.random.Generator) -> Floats:
    """Of random pairs of different rows, [pairs]; nothing of fewer than two rows."""
    n = rows.shape[0]
    if n < 2:
        return np.zeros(0)
    first = chance.integers(n, size=pairs)
    second = (first + chance.integers(1, n, size=pairs)) % n
    parts = (slice(start, start + _PAIRS) for start in range(0, pairs, _PAIRS))
    return np.concatenate([np.einsum("ij,ij->i", rows[first[part]], rows[second[part]]) for part in parts])


_PAIRS = 1_000
"""At once: 64 MB in two arrays of 4,000 dimensions."""


# ---------------------------------------------------------------- directions


def variances(rows: Floats) -> Floats:
    """Along the principal directions, largest first: squared singular values of the centred rows.

    By the smaller of the two Gram matrices.
    """
    if not len(rows):
        return np.zeros(0)
    centred = rows - rows.mean(axis=0)
    gram = centred @ centred.T if centred.shape[0] < centred.shape[1] else centred.T @ centred
    values = np.linalg.eigvalsh(gram)[::-1]
    floor = values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps  # below it there is only rounding
    kept: Floats = np.where(values > floor, values, 0.0)
    return kept


def leading_share(found: Floats, directions: int) -> float:
    """Of all variance, along the strongest directions (Mu and Viswanath 2018, "All-but-the-top"); 1 where none is."""
    total = found.sum()
    return float(found[:directions].sum() / total) if total > 0 else 1.0


def effective_rank(found: Floats) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli 2007, "The effective rank")."""
    singular = np.sqrt(found[found > 0])
    if not singular.size:
        return 0.0
    shares = singular / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def participation_ratio(found: Floats) -> float:
    """How many directions share the variance: its squared sum over the sum of its squares.

    Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement". Counts strong directions
    alone, where the effective rank counts faint ones too.
    """
    squares = float(np.square(found).sum())
    return float(found.sum() ** 2 / squares) if squares > 0 else 0.0


def plane(rows: Floats) -> tuple[Floats, tuple[float, float]]:
    """The rows on the two strongest principal directions, [n, 2], and the shares of the variance that these show.

    Pearson 1901, "On lines and planes of closest fit". Of fewer than two dimensions the missing one is 0.
    """
    centred = rows - rows.mean(axis=0) if len(rows) else rows
    if rows.shape[0] < rows.shape[1]:
        values, left = np.linalg.eigh(centred @ centred.T)
        placed = left[:, ::-1][:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0.0))
    else:
        values, directions = np.linalg.eigh(centred.T @ centred)
        placed = centred @ directions[:, ::-1][:, :2]
    total = values.sum()
    shares = [float(max(0.0, value) / total) if total > 0 else 0.0 for value in values[::-1][:2]]
    missing = 2 - placed.shape[1]
    first, second = (*shares, *[0.0] * missing)
    return np.pad(placed, ((0, 0), (0, missing))), (first, second)


def directions(rows: Floats, places: Floats) -> tuple[Floats, Floats]:
    """What brings any vector onto the plane that `plane` gave of these rows: subtract the first, [d], and take the
    products with the second, [2, d]. A direction that is missing is 0."""
    middle = rows.mean(axis=0)
    lengths = np.square(places).sum(axis=0)
    along: Floats = (places / np.where(lengths > 0, lengths, 1.0)).T @ (rows - middle)
    return middle, along


def jackknife(rows: Floats, statistic: Callable[[Floats], Floats], groups: int = _GROUPS) -> Floats:
    """Standard errors of what `statistic` gives, leaving out one group of the rows after another.

    Quenouille 1956, "Notes on bias in estimation"; by groups as in Kunsch 1989. NaN of fewer rows than groups.
    """
    n = len(rows)
    if n < groups:
        return np.full_like(statistic(rows), np.nan)
    at = np.arange(n) % groups
    left_out = np.stack([statistic(rows[at != group]) for group in range(groups)])
    spread: Floats = np.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean(axis=0)).sum(axis=0))
    return spread


# ---------------------------------------------------------------- doubles


def repeated(vectors: Vectors) -> npt.NDArray[np.intp]:
    """The rows whose vector occurs more than once."""
    _, group, sizes = np.unique(_bytes(vectors), return_inverse=True, return_counts=True)
    return np.flatnonzero(sizes[group] > 1)


def _duplicates(vectors: Vectors, texts: Sequence[Hashable] | None) -> float:
    rows = _bytes(vectors)
    by_vector: dict[bytes, set[Hashable]] = {}
    named = range(len(rows)) if texts is None else texts
    keys = [row.tobytes() for row in rows]
    for key, text in zip(keys, named, strict=True):
        by_vector.setdefault(key, set()).add(text)
    return sum(len(by_vector[key]) > 1 for key in keys) / len(keys) if keys else 0.0


def _bytes(vectors: Vectors) -> npt.NDArray[np.void]:
    """Each row as one value that can be compared."""
    rows = np.ascontiguousarray(vectors)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
