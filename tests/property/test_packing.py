"""Laws of packing: nothing lost, nothing twice, the budget kept."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.embedder.packing import pack


@given(lengths=st.lists(st.integers(0, 600), max_size=200), budget=st.integers(1, 4096))
def test_packing(lengths: list[int], budget: int) -> None:
    batches = pack(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert longest * len(batch) <= budget or len(batch) == 1
    # No two neighbouring batches could have been one.
    for left, _ in pairwise(batches):
        longest = max(lengths[index] for index in left)
        assert longest * (len(left) + 1) > budget
