"""Pairs of documents that are nearly the same, by exact comparison of all with all. Pure."""

import numpy as np

from service.core.ids import Vectors

_ROWS_AT_ONCE = 256
"""Rows that are compared with all others at once: 50 MB for 50,000."""

Pair = tuple[int, int, float]


def nearest_pairs(rows: Vectors, threshold: float, limit: int) -> tuple[list[Pair], int]:
    """The `limit` pairs of rows with the highest cosines of at least `threshold`, best first, and how many there are.

    `rows`: [n, dimensions], of length 1. Time grows with n * n * dimensions: a second for 10,000 rows of 384.
    """
    kept, count = np.zeros(0, [("score", np.float32), ("one", np.intp), ("other", np.intp)]), 0
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        cosines = rows[start : start + _ROWS_AT_ONCE] @ rows[start:].T
        cosines[np.tri(*cosines.shape, dtype=np.bool_)] = -np.inf
        count += int(np.count_nonzero(cosines >= threshold))
        one, other = np.nonzero(cosines > kept["score"][-1] if len(kept) == limit else cosines >= threshold)
        found = np.empty(len(one), kept.dtype)
        found["score"], found["one"], found["other"] = cosines[one, other], one + start, other + start
        kept = np.concatenate([kept, found])
        kept = kept[np.argsort(-kept["score"], kind="stable")[:limit]]
    return [(one, other, min(1.0, score)) for score, one, other in kept.tolist()], count
