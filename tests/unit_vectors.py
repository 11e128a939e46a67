"""Vectors of length 1, as the store keeps them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from service.core.ids import Vectors
from service.core.vector_math import unit_rows


def unit(rows: npt.NDArray[Any]) -> Vectors:
    return unit_rows(rows.astype(np.float64)).astype(np.float32)
