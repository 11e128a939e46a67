"""Vectors as directions: normalisation and cosine. Pure: no I/O."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from service.core.ids import Vector, Vectors

F = TypeVar("F", np.float32, np.float64)

HALF_PRECISION = 1e-3
"""How far from 1 the length of a unit vector may be when it is rounded to 16 bits a dimension."""

MIN_MEAN_LENGTH = 1e-3
"""The direction of a mean vector that is shorter than this is rounding noise: 16 bits a dimension are exact to about
this much."""


def finite(values: Vectors) -> npt.NDArray[np.bool_]:
    """Whether each row of [n, d] can be stored. NaN, infinity and length 0 cannot: cosine is undefined there."""
    norms = np.linalg.norm(values.astype(np.float64), axis=1)
    usable: npt.NDArray[np.bool_] = np.isfinite(values).all(axis=1) & np.isfinite(norms) & (norms > 0.0)
    return usable


def unit(values: Sequence[float]) -> Vector | None:
    """The vector of length 1 in the direction of these numbers; None for zero, NaN or infinite ones."""
    wide = np.asarray(values, dtype=np.float64)
    largest = float(np.abs(wide).max(initial=0.0))
    if not math.isfinite(largest) or largest == 0.0:
        return None
    wide = wide / largest  # or the squares of very large or small numbers would overflow or vanish
    return (wide / np.linalg.norm(wide)).astype(np.float32)


def storable_rows(rows: npt.NDArray[np.float64]) -> Vectors:
    """The rows of [n, d] at length 1, in single precision. What has it up to half precision stays as it is: a vector
    that is read and written again is the same. Rows of length 0 stay 0."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scaled = np.divide(rows, largest, out=np.zeros_like(rows), where=largest != 0)
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(scaled, axis=1, keepdims=True) * largest
    return np.where(np.abs(lengths - 1.0) < HALF_PRECISION, rows, unit_rows(scaled)).astype(np.float32)


def unit_rows(rows: npt.NDArray[F]) -> npt.NDArray[F]:
    """The rows of [n, d] at length 1, in the precision in which they come. Rows of length 0 stay 0."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: npt.NDArray[F] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit


def direction(mean: npt.NDArray[np.floating[Any]]) -> Vector | None:
    """The vector of length 1 in the direction of a mean of unit vectors; None where they cancel each other out."""
    wide = mean.astype(np.float64)
    length = float(np.linalg.norm(wide))
    return (wide / length).astype(np.float32) if length >= MIN_MEAN_LENGTH else None


def cosine(a: Vector, b: Vector) -> float:
    """Cosine of the angle between two vectors of one space; NaN where either has length 0."""
    product = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.dot(a, b)) / product if product else math.nan
