"""Who is near whom: each figure against its definition or against spaces whose figures are known."""

import numpy as np
import pytest

from service.core.ids import Vectors
from service.diagnostics import neighbours
from service.diagnostics.neighbours import NearestNeighbours
from tests.unit_vectors import unit


def gaussian(rows: int, dimensions: int, seed: int = 1) -> Vectors:
    return unit(np.random.default_rng(seed).normal(size=(rows, dimensions)))


@pytest.mark.parametrize(("rows", "k"), [(1_100, 10), (37, 5), (4, 10), (2, 1), (1, 10)])
def test_neighbours_are_those_of_a_full_sort(rows: int, k: int) -> None:
    vectors = gaussian(rows, 6)
    found = neighbours.nearest_neighbours(vectors, k)
    near = vectors @ vectors.T
    np.fill_diagonal(near, -np.inf)
    expected = np.argsort(-near, axis=1)[:, : min(k, rows - 1)]
    np.testing.assert_array_equal(found.ids, expected)
    np.testing.assert_allclose(found.cosines, np.take_along_axis(near, expected, axis=1), atol=1e-6)


def test_neighbours_of_other_groups_leave_out_the_own_one() -> None:
    vectors, groups = gaussian(700, 6), np.arange(700) // 3
    near = vectors @ vectors.T
    near[groups[:, None] == groups] = -np.inf
    found = neighbours.nearest_neighbours(vectors, 5, groups)
    np.testing.assert_array_equal(found.ids, np.argsort(-near, axis=1)[:, :5])


def test_no_rows_have_no_neighbours() -> None:
    found = neighbours.nearest_neighbours(np.zeros((0, 4), np.float32))
    assert found.ids.shape[0] == 0
    assert neighbours.antihubs(neighbours.occurrences(found)) == 0.0


def test_occurrences_count_who_is_near_to_others() -> None:
    star = unit(np.array([[1.0, 0.0, 0.0], [1.0, 0.4, 0.0], [1.0, -0.4, 0.0], [1.0, 0.0, 0.4]]))
    counts = neighbours.occurrences(neighbours.nearest_neighbours(star, 1))
    assert (counts[0], counts.sum(), neighbours.antihubs(counts)) == (3, 4, 0.5)


def test_skewness_is_the_third_standardised_moment() -> None:
    counts = np.array([0, 0, 1, 2, 30])
    deviations = counts - counts.mean()
    assert neighbours.skewness(counts) == pytest.approx((deviations**3).mean() / (deviations**2).mean() ** 1.5)
    assert neighbours.skewness(np.full(5, 10)) == 0.0


def test_hubs_grow_with_the_dimension() -> None:
    """Radovanovic et al. 2010, figure 1, on the cosine of points that are not centred."""
    chance = np.random.default_rng(2)
    spaces = [unit(chance.uniform(size=(2_000, dimensions))) for dimensions in (3, 20, 100)]
    found = [neighbours.skewness(neighbours.occurrences(neighbours.nearest_neighbours(rows))) for rows in spaces]
    assert found[0] < 1
    assert found[0] + 0.5 < found[1] < found[2]


@pytest.mark.parametrize(("dimensions", "within"), [(2, 0.1), (4, 0.1), (8, 0.2)])
def test_a_cube_has_its_own_intrinsic_dimension(dimensions: int, within: float) -> None:
    """The more dimensions, the more of a cube is border, where too few neighbours are on one side."""
    cube = np.random.default_rng(3).uniform(size=(3_000, dimensions))
    turned = np.linalg.qr(np.random.default_rng(4).normal(size=(40, 40)))[0][: dimensions + 1]
    lifted = np.concatenate([np.ones((3_000, 1)), cube], axis=1) @ turned
    found = neighbours.distance_ratios(neighbours.nearest_neighbours(unit(lifted), 2))
    assert neighbours.intrinsic_dimension(found) == pytest.approx(dimensions, rel=within)


def test_its_error_is_that_of_other_samples() -> None:
    found = [neighbours.distance_ratios(neighbours.nearest_neighbours(gaussian(800, 6, seed), 2)) for seed in range(20)]
    spread = float(np.std([neighbours.intrinsic_dimension(one) for one in found], ddof=1))
    assert 0.5 * spread < neighbours.bootstrap_error(found[0], neighbours.intrinsic_dimension) < 2 * spread


def test_duplicates_do_not_make_the_dimension_infinite() -> None:
    rows = gaussian(200, 5)
    found = neighbours.distance_ratios(neighbours.nearest_neighbours(np.concatenate([rows, rows]), 2))
    assert np.isfinite(found).all()
    assert neighbours.intrinsic_dimension(np.zeros(0)) == 0.0


def test_pairs_above_a_cosine_are_listed_once() -> None:
    rows = gaussian(50, 20)
    rows[7] = rows[3]
    rows[9] = unit(rows[3:4] + 0.05 * rows[5:6])[0]
    near = neighbours.nearest_neighbours(rows)
    assert neighbours.pairs_above(near, 0.99) == [(3, 7), (3, 9), (7, 9)]
    assert neighbours.pairs_above(near, 1 - 1e-6) == [(3, 7)]


def test_overlap_is_the_share_that_both_have() -> None:
    cosines = np.zeros((2, 2), np.float32)
    first = NearestNeighbours(ids=np.array([[1, 2], [0, 2]]), cosines=cosines)
    second = NearestNeighbours(ids=np.array([[2, 1], [3, 2]]), cosines=cosines)
    assert neighbours.neighbour_overlap(first, second).tolist() == [1.0, 0.5]


def test_a_cone_changes_nothing_once_it_is_taken_away() -> None:
    rows = gaussian(400, 32)
    cone = unit(0.3 * rows + np.eye(32)[0])
    near = [neighbours.nearest_neighbours(neighbours.centred_directions(one)) for one in (rows, cone)]
    assert neighbours.neighbour_overlap(*near).mean() > 0.85
    assert not neighbours.centred_directions(np.ones((3, 4), np.float32)).any()


def test_separation_is_counted_in_deviations_of_the_others() -> None:
    others = np.random.default_rng(5).normal(0.2, 0.1, size=(50, 400))
    assert neighbours.sensitivity_index(np.full(50, 0.7), others) == pytest.approx(5.0, rel=0.03)
    assert neighbours.sensitivity_index(others[0], others) == pytest.approx(0.0, abs=0.15)
    cone = neighbours.sensitivity_index(np.full(50, 0.97), 0.9 + 0.1 * others)
    assert cone == pytest.approx(5.0, rel=0.03), "a cone plays no part"
    assert neighbours.sensitivity_index(np.ones(3), np.ones((3, 5))) == 0.0


def test_the_error_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(6).normal(size=900)
    assert neighbours.bootstrap_error(values, lambda some: float(some.mean())) == pytest.approx(1 / 30, rel=0.25)
    assert neighbours.bootstrap_error(np.zeros(1), lambda some: float(some.mean())) == 0.0
