"""Any vector can be brought onto the plane that a sample is drawn on."""

import numpy as np
import pytest

from service.core.vector_math import unit_rows
from service.diagnostics.geometry import project_on_plane


@pytest.mark.parametrize(("rows", "dimensions"), [(60, 200), (200, 60), (40, 2), (3, 8)])
def test_the_rows_themselves_fall_on_their_places(rows: int, dimensions: int) -> None:
    chance = np.random.default_rng(rows)
    sample = unit_rows(chance.normal(size=(rows, dimensions)) + 0.5)
    plane = project_on_plane(sample)
    assert plane.directions.shape == (2, dimensions)
    np.testing.assert_allclose((sample - plane.mean) @ plane.directions.T, plane.coordinates, atol=1e-9)
    np.testing.assert_allclose(plane.directions @ plane.directions.T, np.eye(2), atol=1e-9)


def test_a_line_has_one_direction() -> None:
    sample = np.outer(np.linspace(-1, 1, 20), [1.0, 0.0, 0.0])
    plane = project_on_plane(sample)
    np.testing.assert_allclose(np.abs((sample - plane.mean) @ plane.directions[0]), np.abs(sample[:, 0]), atol=1e-9)
    assert abs(np.linalg.norm(plane.directions[0]) - 1) < 1e-9
