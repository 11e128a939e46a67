"""The reliability diagram of the benchmark."""

import numpy as np
import pytest

from loadtests.confidence import Table, at_share, pooled, python_docs, shifted, trials

FOUND: Table = {
    ("a", "a"): np.array([0.9, 0.8]),
    ("a", "b"): np.array([0.1, 0.85]),
    ("a", "c"): np.array([0.2]),
    ("b", "b"): np.array([1.0]),
    ("b", "a"): np.array([0.0, 0.0]),
    ("b", "c"): np.array([0.0]),
}


def test_a_pair_is_own_questions_against_those_of_another() -> None:
    found = {(one.collection, one.foreign): one for one in trials(FOUND, ["a", "b"])}
    assert found["a", "b"].auroc == pytest.approx(0.75)
    assert found["b", "a"].auroc == 1.0
    assert found["b", "a"].error == pytest.approx(0.0)
    own, foreign = pooled(FOUND, "a")
    assert own.tolist() == [0.9, 0.8]
    assert sorted(foreign.tolist()) == [0.1, 0.2, 0.2, 0.85]  # each of the others counts the same


def test_other_shares_and_what_bayes_makes_of_a_probability_there() -> None:
    probabilities, outcomes = at_share(np.full(100, 0.8), np.full(50, 0.2), 0.1)
    assert outcomes.mean() == pytest.approx(0.1, abs=0.01)
    assert set(probabilities[outcomes]) == {0.8}
    assert shifted(np.array([0.5, 0.0, 1.0]), 0.1).tolist() == pytest.approx([0.1, 0.0, 1.0])
    assert shifted(np.array([0.3]), 0.5).tolist() == pytest.approx([0.3])


def test_the_questions_about_python_are_many_and_each_once() -> None:
    subject = python_docs(queries=1_000)
    assert len(subject.queries) == len(set(subject.queries)) >= 100
