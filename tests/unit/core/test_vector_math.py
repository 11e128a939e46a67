import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.core.vector_math import direction, storable_rows, unit


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1.0, 1e200, 1.7e308])
def test_a_direction_survives_whatever_its_length(scale: float) -> None:
    vector = unit((0.0, -scale, scale))
    assert vector is not None
    np.testing.assert_allclose(vector, [0.0, -np.sqrt(0.5), np.sqrt(0.5)], rtol=1e-6)
    assert vector.dtype == np.float32


@pytest.mark.parametrize("values", [(), (0.0, -0.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_what_has_no_direction(values: tuple[float, ...]) -> None:
    assert unit(values) is None


def test_a_direction_has_length_one() -> None:
    found = direction(np.array([3.0, 4.0]) / 100)
    assert found is not None
    np.testing.assert_allclose(found, [0.6, 0.8], atol=1e-6)
    assert found.dtype == np.float32
    assert direction(np.zeros(2)) is None


@given(rows=arrays(np.float64, (3, 7), elements=st.floats(0.01, 1e12) | st.floats(-1e12, -0.01)))
def test_what_is_stored_in_half_precision_is_stored_the_same_again(rows: npt.NDArray[np.float64]) -> None:
    stored = storable_rows(rows).astype(np.float16)
    again = storable_rows(stored.astype(np.float64)).astype(np.float16)
    assert np.array_equal(stored, again)
    assert np.allclose(np.linalg.norm(stored.astype(np.float64), axis=1), 1.0, atol=1e-3)


@pytest.mark.parametrize("length", [5e-324, 1e-40, 1e-3, 1e6, 1e300])
def test_rows_of_any_length_can_be_stored(length: float) -> None:
    assert storable_rows(np.array([[length, 0.0], [0.0, -length]])).tolist() == [[1.0, 0.0], [0.0, -1.0]]
