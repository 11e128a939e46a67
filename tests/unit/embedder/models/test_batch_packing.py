"""Packing by tokens, on examples."""

from service.embedder.models.batch_packing import pack


def test_alike_lengths_share_a_batch_longest_first() -> None:
    assert pack([10, 100, 12, 90], budget=200) == [[1, 3], [2, 0]]


def test_a_text_longer_than_the_budget_goes_alone() -> None:
    assert pack([5, 900, 5], budget=100) == [[1], [0, 2]]


def test_nothing_packs_to_nothing() -> None:
    assert pack([], budget=100) == []
