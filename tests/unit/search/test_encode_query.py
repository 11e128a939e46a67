import numpy as np
import pytest

from service.core.ids import Vector
from service.core.vector_math import direction
from service.search.encode_query import NEGATIVE_WEIGHT, rocchio
from tests.world import unit

X, Y = unit(1, 0), unit(0, 1)


def same(found: Vector | None, expected: Vector) -> bool:
    return found is not None and bool(np.allclose(found, expected, atol=1e-6))


def test_one_example_is_its_own_direction() -> None:
    assert same(rocchio([Y], []), Y)


def test_positive_examples_meet_in_the_middle() -> None:
    assert same(rocchio([X, Y], []), unit(1, 1))
    assert same(rocchio([X, X, Y], []), unit(2, 1))


def test_negative_examples_push_away_by_their_weight() -> None:
    assert same(rocchio([X], [Y, Y]), unit(1, -NEGATIVE_WEIGHT))
    assert same(rocchio([X], [X]), X), "less of the same is still the same direction"


@pytest.mark.parametrize(
    ("positive", "negative"), [([X, -X], []), ([X, unit(-1, 1e-4)], []), ([Y, -Y, X], [X * 2 / 3])]
)
def test_examples_that_cancel_each_other_point_nowhere(positive: list[Vector], negative: list[Vector]) -> None:
    assert rocchio(positive, negative) is None


def test_a_direction_has_length_one() -> None:
    found = direction(np.array([3.0, 4.0]) / 100)
    assert found is not None
    assert same(found, unit(3, 4))
    assert found.dtype == np.float32
    assert direction(np.zeros(2)) is None
