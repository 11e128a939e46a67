import numpy as np
import pytest

from service.domain import Vector, direction
from service.examples import NEGATIVE_WEIGHT, rocchio
from tests.world import unit

X, Y = unit(1, 0), unit(0, 1)


def test_one_example_is_its_own_direction() -> None:
    np.testing.assert_allclose(rocchio([Y], []), Y)


def test_positive_examples_meet_in_the_middle() -> None:
    np.testing.assert_allclose(rocchio([X, Y], []), unit(1, 1), atol=1e-7)
    np.testing.assert_allclose(rocchio([X, X, Y], []), unit(2, 1), atol=1e-7)


def test_negative_examples_push_away_by_their_weight() -> None:
    np.testing.assert_allclose(rocchio([X], [Y, Y]), unit(1, -NEGATIVE_WEIGHT), atol=1e-7)
    middle = rocchio([X], [X])
    np.testing.assert_allclose(middle, X, err_msg="less of the same is still the same direction")


@pytest.mark.parametrize(
    ("positive", "negative"), [([X, -X], []), ([X, unit(-1, 1e-4)], []), ([Y, -Y, X], [X * 2 / 3])]
)
def test_examples_that_cancel_each_other_point_nowhere(positive: list[Vector], negative: list[Vector]) -> None:
    assert rocchio(positive, negative) is None


def test_a_direction_has_length_one() -> None:
    found = direction(np.array([3.0, 4.0]) / 100)
    np.testing.assert_allclose(found, [0.6, 0.8], rtol=1e-6)
    assert found is not None
    assert found.dtype == np.float32
    assert direction(np.zeros(2)) is None
