"""Pairs, groups and labels of vectors, against a plain computation or what they were made of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.analysis import classify, duplicates
from service.analysis.clusters import cluster_words, find_clusters
from tests.unit_vectors import unit

SUBJECTS = ("stars", "bread", "law")


def made(each: int, noise: float = 0.5, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Rows around three places, and their subjects."""
    chance = np.random.default_rng(seed)
    subjects = [subject for subject in SUBJECTS for _ in range(each)]
    places = np.repeat(np.eye(3, 16), each, axis=0)
    return unit(places + noise * chance.normal(size=places.shape) / 4), subjects


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 9), n=st.integers(0, 600), limit=st.integers(1, 30), threshold=st.sampled_from([-1, 0.3, 2]))
def test_the_nearest_pairs_are_those_of_all_pairs(seed: int, n: int, limit: int, threshold: float) -> None:
    rows = unit(np.random.default_rng(seed).normal(size=(n, 4))) if n else np.zeros((0, 4), np.float32)
    found, count = duplicates.nearest_pairs(rows, threshold, limit)
    cosines = (rows @ rows.T)[np.triu_indices(n, 1)]
    expected = np.sort(cosines[cosines >= threshold])[::-1]
    assert count == len(expected)
    assert [score for _, _, score in found] == pytest.approx(expected[:limit].tolist(), abs=1e-6)
    assert all(one < other and rows[one] @ rows[other] == pytest.approx(score, abs=1e-6) for one, other, score in found)


def test_equal_rows_are_all_pairs() -> None:
    found, count = duplicates.nearest_pairs(np.tile(unit(np.ones((1, 4))), (700, 1)), 0.99, 5)
    assert (len(found), count) == (5, 700 * 699 // 2)


def test_subjects_are_found_again_and_named() -> None:
    rows, subjects = made(30)
    texts = {row: f"the {subject} of a day {row}" for row, subject in enumerate(subjects)}
    found = find_clusters(rows, texts, 3, 2)
    assert [len(one.members) for one in found] == [30, 30, 30]
    for one in found:
        (subject,) = {subjects[row] for row in one.members}
        assert one.words[0] == subject
    assert find_clusters(rows, texts, 3, 2) == found


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_few_rows_are_few_clusters(n: int) -> None:
    found = find_clusters(made(2)[0][:n], {}, 4, 3)
    assert sorted(row for one in found for row in one.members) == list(range(n))
    assert all(one.words == () for one in found)


def test_equal_rows_are_one_cluster() -> None:
    (one,) = find_clusters(np.tile(unit(np.ones((1, 4))), (9, 1)), {}, 4, 3)
    assert len(one.members) == 9


def test_clusters_in_a_script_without_spaces_have_names() -> None:
    groups = [["星星很亮，星星很远，星星在天上，人们看星星"] * 3, ["面包很香，面包很软，面包在桌上，人们吃面包"] * 3]
    assert cluster_words(groups, 1) == [("星星",), ("面包",)]


@pytest.mark.parametrize("each", [1, 2, 40])
def test_labels_are_learnt_from_examples(each: int) -> None:
    targets, subjects = made(20, seed=1)
    found = classify.by_examples(targets, *made(each))
    assert np.mean([one == other for one, other in zip(found.labels, subjects, strict=True)]) > 0.9
    assert found.majority == pytest.approx(1 / 3, abs=1e-3)
    assert set(found.accuracy) == {"centroid", "logistic"}
    assert (None in found.accuracy.values()) == (each == 1)
    assert min(found.margins) >= 0


def test_cross_validation_tells_labels_that_cannot_be_learnt() -> None:
    rows, subjects = made(40)
    shuffled = np.random.default_rng(0).permutation(subjects).tolist()
    assert max(one or 0.0 for one in classify.by_examples(rows, rows, shuffled).accuracy.values()) < 0.5


def test_label_texts_need_no_examples() -> None:
    targets, subjects = made(10)
    found = classify.by_label_vectors(targets, SUBJECTS, np.eye(3, 16, dtype=np.float32))
    assert (found.method, list(found.labels), found.accuracy) == ("zero_shot", subjects, {})
