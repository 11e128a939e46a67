import numpy as np
import pytest

from service.core.vector_math import direction, unit


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
