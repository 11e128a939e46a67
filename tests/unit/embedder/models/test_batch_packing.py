"""Packing by tokens, on examples. Its laws are in `tests/property/test_packing.py`."""

import pytest

from service.embedder.models.batch_packing import pack


@pytest.mark.parametrize(
    ("lengths", "budget", "batches"),
    [([10, 100, 12, 90], 200, [[1, 3], [2, 0]]), ([5, 900, 5], 100, [[1], [0, 2]]), ([], 100, [])],
    ids=["longest first", "a text longer than the budget goes alone", "nothing"],
)
def test_packing(lengths: list[int], budget: int, batches: list[list[int]]) -> None:
    assert pack(lengths, budget) == batches
