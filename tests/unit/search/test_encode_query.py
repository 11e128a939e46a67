import numpy as np
import pytest

from service.core.ids import Vector
from service.search.encode_query import NEGATIVE_WEIGHT, rocchio
from tests.world import unit

X, Y = unit(1, 0), unit(0, 1)


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        ([Y], [], Y),
        ([X, Y], [], unit(1, 1)),
        ([X, X, Y], [], unit(2, 1)),
        ([X], [Y, Y], unit(1, -NEGATIVE_WEIGHT)),
        ([X], [X], X),  # less of the same is still the same direction
    ],
)
def test_positive_examples_attract_and_negative_ones_repel_by_their_weight(
    positive: list[Vector], negative: list[Vector], expected: Vector
) -> None:
    np.testing.assert_allclose(rocchio(positive, negative), expected, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("positive", "negative"), [([X, -X], []), ([X, unit(-1, 1e-4)], []), ([Y, -Y, X], [X * 2 / 3])]
)
def test_examples_that_cancel_each_other_point_nowhere(positive: list[Vector], negative: list[Vector]) -> None:
    assert rocchio(positive, negative) is None
