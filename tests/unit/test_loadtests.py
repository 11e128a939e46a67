"""What the benchmarks measure with must itself be right."""

import numpy as np
import pytest

from loadtests import questions
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


def test_questions_are_asked_of_answers_that_do_not_say_them() -> None:
    documents = [
        {"_id": f"d{at}", "title": f"What is {at // 2}?" if at < 40 else "", "text": f"answer {at}"} for at in range(50)
    ]
    documents += [
        {"_id": f"often{at}", "title": "What is said?", "text": "anything"} for at in range(questions.MOST + 1)
    ]
    made = questions.split(documents, 1_000, 0.25, seed=1)
    assert made == questions.split(documents, 1_000, 0.25, seed=1)
    assert {row["_id"] for row in made.corpus} == {document["_id"] for document in documents}
    assert not any(row["title"] for row in made.corpus)
    train, test = (dict.fromkeys(query for query, _ in made.qrels[name]) for name in ("train", "test"))
    assert (len(train), len(test), set(train) & set(test)) == (15, 5, set())
    asked = {document["_id"]: document["title"] for document in documents}
    for query, right in made.qrels["train"] + made.qrels["test"]:
        assert made.queries[query] == asked[right]
    assert len(made.qrels["train"]) == 30  # both who answer a question
    assert "What is said?" not in made.queries.values()
    assert len(questions.split(documents, 10, 0.25, seed=1).corpus) == 10
