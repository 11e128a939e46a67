import numpy as np
import pytest

from service.core.ids import Vector
from service.search.mmr import mmr

A: Vector = np.array([1.0, 0.0], np.float32)
NEAR_A: Vector = np.array([0.8, 0.6], np.float32)
B: Vector = np.array([0.0, 1.0], np.float32)


def test_it_is_the_formula_of_carbonell_and_goldstein() -> None:
    """Scores scaled to 1, 0.9, 0; cosines A-A 1, A-B 0: 0.5 * 0.9 - 0.5 * 1 is less than 0.5 * 0 - 0.5 * 0."""
    picks = mmr([2.0, 1.9, 1.0], [A, A, B], 0.5, 3)
    assert [pick.rank - 1 for pick in picks] == [0, 2, 1]
    assert [pick.mmr for pick in picks] == pytest.approx([0.5, 0.0, 0.45 - 0.5])
    assert [pick.similarity for pick in picks] == [None, 0.0, 1.0]


def test_what_nobody_knows_counts_as_alike_as_hits_are_on_average() -> None:
    """The known pairs are 0.8, 0.0 and 0.6 alike: 0.467 on average. Neither the newest nor a copy of the first."""
    picks = mmr([1.0, 1.0, 1.0, 1.0], [A, NEAR_A, None, B], 1.0, 4)
    assert [pick.rank - 1 for pick in picks] == [0, 3, 2, 1]
    assert [pick.mmr for pick in picks[1:]] == pytest.approx([0.0, -1.4 / 3, -0.8])
    assert [pick.similarity is None for pick in picks] == [True, False, True, False]


def test_where_no_vector_is_known_the_scores_decide() -> None:
    assert [pick.rank - 1 for pick in mmr([0.9, 0.5, 0.4], [None, None, None], 0.7, 2)] == [0, 1]


def test_of_nothing_nothing_is_taken() -> None:
    assert mmr([], [], 0.5, 10) == []
