"""The shape of a space: each figure against its definition, and what counts as collapsed."""

import numpy as np
import pytest

from service.core.collections import EmbedderSpec
from service.core.ids import Vectors
from service.core.vector_math import unit_rows
from service.diagnostics import geometry
from service.embedder.models.hashing_encoder import HashingEncoder
from tests.rivals import DOCUMENTS
from tests.unit_vectors import unit

CHANCE = np.random.default_rng(3)
ROWS, DIMENSIONS = 300, 64


def spread(rows: int = ROWS, dimensions: int = DIMENSIONS) -> Vectors:
    return unit(CHANCE.normal(size=(rows, dimensions)))


def test_mean_cosine_is_that_of_all_pairs() -> None:
    rows = unit_rows(spread(40).astype(np.float64))
    pairs = [float(rows[a] @ rows[b]) for a in range(40) for b in range(40) if a != b]
    assert geometry.mean_cosine(rows) == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize(("rows", "dimensions"), [(30, 80), (80, 30)])
def test_effective_rank_and_first_share_by_their_definitions(rows: int, dimensions: int) -> None:
    vectors = spread(rows, dimensions)
    wide = unit_rows(vectors.astype(np.float64))
    singular = np.linalg.svd(wide - wide.mean(axis=0), compute_uv=False)
    singular = singular[singular > 1e-9]
    shares = singular / singular.sum()
    found = geometry.measure_geometry(vectors)
    assert found.effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-9)
    assert found.first_share == pytest.approx(singular[0] ** 2 / (singular**2).sum(), rel=1e-9)


def test_the_length_of_rows_does_not_matter() -> None:
    vectors = spread()
    stretched = (vectors * CHANCE.uniform(0.5, 9, size=(ROWS, 1))).astype(np.float32)
    found, longer = geometry.measure_geometry(vectors), geometry.measure_geometry(stretched)
    assert longer.mean_cosine == pytest.approx(found.mean_cosine, abs=1e-6)
    assert longer.effective_rank == pytest.approx(found.effective_rank, rel=1e-4)


def test_the_error_of_the_mean_cosine_is_that_of_other_samples() -> None:
    def sample(seed: int) -> np.ndarray:
        return unit(np.random.default_rng(seed).normal(size=(200, 16)) + 0.7).astype(np.float64)

    spread = float(np.std([geometry.mean_cosine(sample(seed)) for seed in range(60)], ddof=1))
    assert 0.6 * spread < geometry.mean_cosine_error(sample(99)) < 1.6 * spread


def test_cosines_are_of_pairs_of_different_rows() -> None:
    rows = spread(60).astype(np.float64)
    found = geometry.random_pair_cosines(rows, 5_500, np.random.default_rng(1))
    assert found.shape == (5_500,)
    assert found.mean() == pytest.approx(geometry.mean_cosine(rows), abs=0.02)
    assert found.max() < 0.999, "no row meets itself"
    assert geometry.random_pair_cosines(rows[:1], 10, np.random.default_rng(1)).size == 0


def test_participation_counts_directions_that_share_the_variance() -> None:
    assert geometry.participation_ratio(np.array([2.0, 2.0, 2.0])) == pytest.approx(3)
    assert geometry.participation_ratio(np.array([1.0, 0.0])) == pytest.approx(1)
    assert geometry.participation_ratio(np.zeros(3)) == 0.0
    assert geometry.effective_rank(np.array([1.0, 1e-4])) > geometry.participation_ratio(np.array([1.0, 1e-4]))


def test_leading_directions_are_the_strongest() -> None:
    found = geometry.principal_variances(spread(90, 12).astype(np.float64) * np.arange(1, 13))
    assert (np.diff(found) <= 0).all()
    assert geometry.leading_variance_share(found, 3) == pytest.approx(found[:3].sum() / found.sum())
    assert geometry.leading_variance_share(np.zeros(4), 1) == 1.0


@pytest.mark.parametrize(("rows", "dimensions"), [(30, 80), (80, 30)])
def test_the_map_shows_the_two_strongest_directions(rows: int, dimensions: int) -> None:
    wide = spread(rows, dimensions).astype(np.float64)
    plane = geometry.project_on_plane(wide)
    left, singular, _ = np.linalg.svd(wide - wide.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(abs((plane.coordinates * left[:, :2]).sum(axis=0)), singular[:2], rtol=1e-6)
    np.testing.assert_allclose(plane.variance_shares, singular[:2] ** 2 / (singular**2).sum(), rtol=1e-6)


def test_the_map_of_one_dimension_is_a_line() -> None:
    plane = geometry.project_on_plane(CHANCE.normal(size=(20, 1)))
    assert plane.variance_shares[0] == pytest.approx(1.0)
    assert plane.variance_shares[1] == 0.0
    assert not plane.coordinates[:, 1].any()


@pytest.mark.parametrize(("rows", "dimensions"), [(60, 200), (200, 60), (40, 2), (3, 8)])
def test_the_rows_themselves_fall_on_their_places(rows: int, dimensions: int) -> None:
    chance = np.random.default_rng(rows)
    sample = unit_rows(chance.normal(size=(rows, dimensions)) + 0.5)
    plane = geometry.project_on_plane(sample)
    assert plane.directions.shape == (2, dimensions)
    np.testing.assert_allclose((sample - plane.mean) @ plane.directions.T, plane.coordinates, atol=1e-9)
    np.testing.assert_allclose(plane.directions @ plane.directions.T, np.eye(2), atol=1e-9)


def test_the_jackknife_gives_the_error_of_a_mean() -> None:
    rows = CHANCE.normal(size=(500, 3))
    errors = geometry.jackknife_error(rows, lambda some: some.mean(axis=0))
    np.testing.assert_allclose(errors, 1 / np.sqrt(500), rtol=0.6)
    assert np.isnan(geometry.jackknife_error(rows[:5], lambda some: some.mean(axis=0))).all()


def test_rows_spread_over_all_directions_have_them_all_for_rank() -> None:
    found = geometry.measure_geometry(unit(np.concatenate([np.eye(16), -np.eye(16)] * 4)))
    assert found.effective_rank == pytest.approx(16, abs=1e-6)
    assert found.mean_cosine == pytest.approx(0, abs=0.01)


def test_duplicates_are_equal_vectors_of_different_texts() -> None:
    vectors = spread(10)
    vectors[1] = vectors[0]
    vectors[3] = vectors[2]
    assert list(geometry.duplicate_rows(vectors)) == [0, 1, 2, 3]
    assert geometry.measure_geometry(vectors).duplicates == pytest.approx(0.4)
    texts = ["same", "same", *map(str, range(2, 10))]
    assert geometry.measure_geometry(vectors, texts).duplicates == pytest.approx(0.2), "the same text is no duplicate"


@pytest.mark.parametrize("rows", [0, 1])
def test_samples_of_no_row_and_of_one(rows: int) -> None:
    found = geometry.measure_geometry(np.ones((rows, 8), np.float32))
    assert (found.rows, found.effective_rank, found.duplicates) == (rows, 0.0, 0.0)


HEALTHY = {
    "spread": spread(),
    "narrow cone, as of E5": unit(np.sqrt(0.85) * np.eye(DIMENSIONS)[0] + np.sqrt(0.15) * spread()),
    "eight dimensions kept": unit(spread()[:, :8]),
    "two dimensions in all": spread(dimensions=2),
    "two languages far apart": unit(spread() * 0.6 + np.repeat(np.eye(DIMENSIONS)[:2] - 0.5, ROWS // 2, axis=0)),
    "hashed words": HashingEncoder(EmbedderSpec(model="hashing:64")).encode(list(DOCUMENTS.values()), "document"),
}
COLLAPSED = {
    "one point": (np.repeat(spread(1), ROWS, axis=0), ("mean cosine", "several texts")),
    "one point and noise": (unit(np.eye(DIMENSIONS)[0] + 0.1 * spread()), ("mean cosine",)),
    "one line": (unit(np.eye(DIMENSIONS)[0] * CHANCE.choice([-1, 1], size=(ROWS, 1)) + 0.1 * spread()), ("direction",)),
    "one plane": (unit(spread() * ([1, 1] + [1e-4] * 62)), ("effective rank",)),
    "few points": (np.repeat(spread(5), ROWS // 5, axis=0), ("several texts",)),
}


@pytest.mark.parametrize("vectors", HEALTHY.values(), ids=HEALTHY)
def test_sound_spaces_have_no_collapse_reasons(vectors: Vectors) -> None:
    assert geometry.collapse_reasons(geometry.measure_geometry(vectors)) == ()


@pytest.mark.parametrize(("vectors", "words"), COLLAPSED.values(), ids=COLLAPSED)
def test_collapse_reasons_name_what_is_wrong(vectors: Vectors, words: tuple[str, ...]) -> None:
    reasons = "; ".join(geometry.collapse_reasons(geometry.measure_geometry(vectors)))
    assert [word for word in words if word not in reasons] == []
