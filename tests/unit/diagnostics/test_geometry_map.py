"""Any vector can be brought onto the plane that a sample is drawn on."""

import numpy as np
import pytest

from service.diagnostics import geometry


@pytest.mark.parametrize(("rows", "dimensions"), [(60, 200), (200, 60), (40, 2), (3, 8)])
def test_the_rows_themselves_fall_on_their_places(rows: int, dimensions: int) -> None:
    chance = np.random.default_rng(rows)
    sample = geometry.unit((chance.normal(size=(rows, dimensions)) + 0.5).astype(np.float32))
    places, _ = geometry.plane(sample)
    middle, directions = geometry.directions(sample, places)
    assert directions.shape == (2, dimensions)
    np.testing.assert_allclose((sample - middle) @ directions.T, places, atol=1e-9)
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-9)


def test_a_line_has_one_direction() -> None:
    sample = np.outer(np.linspace(-1, 1, 20), [1.0, 0.0, 0.0])
    places, _ = geometry.plane(sample)
    middle, directions = geometry.directions(sample, places)
    np.testing.assert_allclose(np.abs((sample - middle) @ directions[0]), np.abs(sample[:, 0]), atol=1e-9)
    assert abs(np.linalg.norm(directions[0]) - 1) < 1e-9
