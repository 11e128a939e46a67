"""Vectors as directions: what cosine needs of them. Pure: no I/O."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.core.ids import Vector, Vectors


def finite(values: Vectors) -> npt.NDArray[np.bool_]:
    """For each row of [n, d]: can it be stored? NaN, infinity and zero length cannot (cosine is undefined there)."""
    norms = np.linalg.norm(values.astype(np.float64), axis=1)
    usable: npt.NDArray[np.bool_] = np.isfinite(values).all(axis=1) & np.isfinite(norms) & (norms > 0.0)
    return usable


def unit(values: Sequence[float]) -> Vector | None:
    """The vector of length 1 in the direction of these numbers; None where it has none (zero, NaN, infinite)."""
    wide = np.asarray(values, dtype=np.float64)
    largest = float(np.abs(wide).max(initial=0.0))
    if not math.isfinite(largest) or largest == 0.0:
        return None
    wide = wide / largest  # or the squares of very large or small numbers would overflow or vanish
    return (wide / np.linalg.norm(wide)).astype(np.float32)


FAINT = 1e-3
"""Of a mean of vectors that is shorter than this the direction is rounding: 16 bits a dimension are exact to about so
much."""


def direction(mean: npt.NDArray[np.floating[Any]]) -> Vector | None:
    """The vector of length 1 in the direction of a mean of such vectors; None where they cancel each other."""
    wide = mean.astype(np.float64)
    length = float(np.linalg.norm(wide))
    return (wide / length).astype(np.float32) if length >= FAINT else None


def cosine(a: Vector, b: Vector) -> float:
    """Cosine of the angle between two vectors of one space; NaN where either has no direction."""
    product = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.dot(a, b)) / product if product else math.nan
