"""The shape of a space: is there room between its vectors, or have they collapsed onto each other?

A broken embedder still gives neighbours. What gives it away without any judgment is how its vectors lie: all in one
place, along one line, or equal for different texts. The limits below are so far out that only broken spaces reach them;
docs/decisions/0013 has the measurements. Whether a space with room is any good, only judgments tell.

`vectors`: a sample of a space, shape [n, dimensions], rows without zeros and NaN, of any length.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.domain import Vectors

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
    rows = vectors.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    variances = _variances(rows)
    total = variances.sum()
    return Geometry(
        rows=rows.shape[0],
        dimensions=rows.shape[1],
        mean_cosine=mean_cosine(rows),
        first_share=float(variances.max(initial=0.0) / total) if total > 0 else 1.0,
        effective_rank=_effective_rank(variances),
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


def mean_cosine(rows: npt.NDArray[np.float64]) -> float:
    """The mean over all pairs of different rows of length 1, without forming the pairs.

    The sum over all ordered pairs is the squared length of the sum of the rows; n of them are rows with themselves.
    """
    n = rows.shape[0]
    return float((np.square(rows.sum(axis=0)).sum() - n) / (n * (n - 1))) if n > 1 else 1.0


def repeated(vectors: Vectors) -> npt.NDArray[np.intp]:
    """The rows whose vector occurs more than once."""
    _, group, sizes = np.unique(_bytes(vectors), return_inverse=True, return_counts=True)
    return np.flatnonzero(sizes[group] > 1)


def _variances(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The squared singular values of the centred rows, by the smaller of the two Gram matrices."""
    if not len(rows):
        return np.zeros(0)
    centred = rows - rows.mean(axis=0)
    gram = centred @ centred.T if centred.shape[0] < centred.shape[1] else centred.T @ centred
    values = np.linalg.eigvalsh(gram)
    floor = values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps  # below it there is only rounding
    kept: npt.NDArray[np.float64] = np.where(values > floor, values, 0.0)
    return kept


def _effective_rank(variances: npt.NDArray[np.float64]) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli 2007, "The effective rank")."""
    singular = np.sqrt(variances[variances > 0])
    if not singular.size:
        return 0.0
    shares = singular / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


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
