"""Laws of packing: nothing lost, nothing twice, the budget kept, and where it is to be cheap, nothing cheaper."""

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from service.embedder.models.batch_packing import cheapest_packing, pack


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


@given(lengths=st.lists(st.integers(1, 600), max_size=200), budget=st.integers(1, 4096), overhead=st.integers(0, 100))
def test_the_cheapest_packing_of_many_is_within_the_budget_and_no_dearer(
    lengths: list[int], budget: int, overhead: int
) -> None:
    def cost(batches: list[list[int]]) -> int:
        return sum(max(lengths[index] for index in batch) * len(batch) + overhead for batch in batches)

    packed = cheapest_packing(lengths, budget, overhead)
    assert sorted(index for batch in packed for index in batch) == list(range(len(lengths)))
    assert all(max(lengths[index] for index in batch) * len(batch) <= budget or len(batch) == 1 for batch in packed)
    assert cost(packed) <= cost(pack(lengths, budget))


def splits(items: list[int]) -> Iterator[list[list[int]]]:
    """Every way to cut a list into parts that are not empty."""
    if not items:
        yield []
    for end in range(1, len(items) + 1):
        for rest in splits(items[end:]):
            yield [items[:end], *rest]


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), max_size=8), budget=st.integers(20, 200), overhead=st.sampled_from([0, 5, 500])
)
def test_no_packing_within_the_budget_is_cheaper(lengths: list[int], budget: int, overhead: int) -> None:
    def cost(batches: list[list[int]]) -> int:
        return sum(max(batch) * len(batch) + overhead for batch in batches)

    def allowed(batches: list[list[int]]) -> bool:
        return all(max(batch) * len(batch) <= budget or len(batch) == 1 for batch in batches)

    packed = cheapest_packing(lengths, budget, overhead)
    assert sorted(index for batch in packed for index in batch) == list(range(len(lengths)))
    found = [[lengths[index] for index in batch] for batch in packed]
    assert allowed(found)
    assert cost(found) == min(cost(split) for split in splits(sorted(lengths)) if allowed(split))
