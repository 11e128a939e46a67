"""Recall@k of one search: what counts as found."""

import pytest

from service.core.recall import recall_at_k

TRUTH = [("a", 0.9), ("b", 0.8), ("c", 0.7)]


@pytest.mark.parametrize(
    ("found", "recall", "by_distance"),
    [
        (TRUTH, 1.0, 1.0),
        ([("a", 0.9), ("c", 0.7)], 2 / 3, 2 / 3),
        # Exactly as near as the last one: an exact scan would have chosen among them as blindly.
        ([("a", 0.9), ("b", 0.8), ("d", 0.7)], 1.0, 1.0),
        # A little farther is a neighbour lost, but not by distance.
        ([("a", 0.9), ("b", 0.8), ("d", 0.6995)], 2 / 3, 1.0),
        ([("a", 0.9), ("b", 0.8), ("d", 0.5)], 2 / 3, 2 / 3),
        # Nearer than the last of the truth is no neighbour lost either: it was written in between.
        ([("a", 0.9), ("new", 0.85), ("b", 0.8), ("c", 0.7)], 1.0, 1.0),
        ([], 0.0, 0.0),
    ],
)
def test_recall_by_id_and_by_distance(found: list[tuple[str, float]], recall: float, by_distance: float) -> None:
    assert recall_at_k(TRUTH, found, k=3) == pytest.approx((recall, by_distance))


def test_of_fewer_than_k_there_are_no_more_to_find() -> None:
    assert recall_at_k(TRUTH[:1], TRUTH[:1], k=10) == (1.0, 1.0)
    assert recall_at_k([], [], k=10) == (1.0, 1.0)
