"""What the benchmarks measure with must itself be right."""

import numpy as np
import pytest

from loadtests.corpus import Corpus
from loadtests.figures import percentile
from loadtests.space import clustered


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.0), (0.95, 95.0), (1.0, 100.0), (0.0, 1.0)])
def test_percentiles_are_by_nearest_rank_and_in_milliseconds(share: float, expected: float) -> None:
    assert percentile([number / 1e3 for number in range(100, 0, -1)], share) == pytest.approx(expected)


def test_a_corpus_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    corpus = Corpus(
        anchors=[["red", "fox"], ["blue", "sea"], ["old", "oak"]],
        vectors=np.eye(3, 8, dtype=np.float32),
        queries=[],
        words=["the", "and", "rare"],
        frequencies=[100, 50, 1],
    )
    (first, rows), (again, same), (other, _) = (next(corpus.documents(50, seed)) for seed in (1, 1, 2))
    assert [one.text for one in first] == [one.text for one in again] != [one.text for one in other]
    assert np.array_equal(rows, same)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(50), abs=1e-5)


def test_clustered_vectors_are_nearer_to_their_own_than_to_others() -> None:
    rows = clustered(400, 64, seed=1, per_cluster=20)
    cosines = rows @ rows.T - 2 * np.eye(len(rows), dtype=np.float32)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
    assert np.median(cosines.max(axis=1)) > 0.5 > np.median(cosines)
