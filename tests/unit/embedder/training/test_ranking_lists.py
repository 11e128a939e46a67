"""Wrong answers and the lists that are made of them."""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from service.embedder.training import ranking_lists
from service.embedder.training.hard_negatives import Bm25Index, CandidateIndex, RankedNegatives, Vectors, mine_documents
from service.embedder.training.ranking_lists import RankingList
from service.embedder.training.reranker_data import Material
from service.embedder.training.training_queries import TrainingQuery, keywords

TEXTS = [
    "sorted returns a new list in order",
    "sorted returns a new list in order!",  # the same text again
    "list.sort sorts a list in place",
    "a task is cancelled after a timeout",
    "wait for a task with a timeout",
    "files are opened for reading",
]


def encode(texts: Sequence[str]) -> Vectors:
    """Words at places: texts that share words are near to each other."""
    vectors = np.zeros((len(texts), 64), dtype=np.float32)
    for row, text in zip(vectors, texts, strict=True):
        for word in text.lower().strip("!").split():
            row[sum(map(ord, word)) % 64] += 1
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def material(titles: Sequence[str] | None = None) -> Material:
    return Material(
        name="tiny",
        titles=list(titles or [""] * len(TEXTS)),
        texts=TEXTS,
        foreign=frozenset(),
        hidden=frozenset(),
        queries=[],
        held_out=[],
    )


def mine(
    query: TrainingQuery, titles: Sequence[str] | None = None, excluded: frozenset[int] = frozenset()
) -> RankedNegatives:
    of = material(titles)
    passages = [of.passage(at, titled=True) for at in range(len(TEXTS))]
    (found,) = mine_documents([query], of, CandidateIndex(passages, encode(passages)), encode, excluded)
    return found


def ask(text: str, *right: int, titled: bool = True) -> TrainingQuery:
    return TrainingQuery(text=text, part="train", right=right, titled=titled)


def test_what_is_found_and_wrong_comes_best_first() -> None:
    found = mine(ask("sorted list", 0))
    assert found.wrong[0] == 2
    assert found.scores == sorted(found.scores, reverse=True)
    assert found.right_scores[0] > found.scores[0]
    assert sorted(found.wrong) == [2, 3, 4, 5]  # neither the right one nor its twin


def test_right_and_barred_documents_are_never_wrong() -> None:
    found = mine(ask("a task with a timeout", 3, 4), excluded=frozenset({2, 5}))
    assert sorted(found.wrong) == [0, 1]
    assert len(found.right_scores) == 2


def test_where_the_title_was_the_question_its_namesakes_answer_it() -> None:
    titles = ["sort", "other", "sort", "task", "task", "file"]
    assert 2 not in mine(ask("sort", 0, titled=False), titles).wrong
    assert 2 in mine(ask("sort", 0), titles).wrong


def test_a_question_without_words_is_found_by_meaning_alone() -> None:
    assert Bm25Index(TEXTS).search("the of ...", 10) == {}
    assert mine(ask("...", 5)).wrong


def test_words_are_stemmed_and_ranked() -> None:
    found = Bm25Index(TEXTS).search("sorting lists", 10)
    assert next(iter(found)) == 2
    assert list(found.values()) == sorted(found.values(), reverse=True)


SCORES = [0.9, 0.5, 0.4, 0.3, 0.2]


def draw(query: TrainingQuery, size: int) -> RankingList:
    """Of the right document 0 and the wrong ones 1 to 5."""
    negatives = RankedNegatives(material(), query, [1, 2, 3, 4, 5], SCORES, [0.8])
    drawn = ranking_lists.draw(negatives, size, random.Random(7))
    assert drawn is not None
    return drawn


def test_a_list_begins_with_what_is_right() -> None:
    drawn = draw(ask("sorted list", 0), 4)
    assert drawn.passages[0] == TEXTS[0]
    assert len(set(drawn.passages)) == 4
    assert drawn.first_stage[0] == 0.8
    assert [SCORES[TEXTS.index(text) - 1] for text in drawn.passages[1:]] == drawn.first_stage[1:]
    assert drawn.part == "tiny/train"


def test_few_candidates_make_a_short_list_and_none_no_list() -> None:
    assert len(draw(ask("x", 0), 40).passages) == 6
    assert ranking_lists.draw(RankedNegatives(material(), ask("x", 0), [], [], [0.5]), 8, random.Random(7)) is None


def test_an_answer_of_its_own_is_shown_instead() -> None:
    query = TrainingQuery(text="x", part="sentences", right=(0,), answer="what is left", titled=False)
    assert draw(query, 3).passages[0] == "what is left"


def test_the_target_is_a_distribution_that_is_never_certain() -> None:
    drawn = draw(ask("x", 0), 6)
    assert sum(drawn.target) == pytest.approx(1)
    assert 1 - ranking_lists.SOFT_SHARE < drawn.target[0] < 1
    by_first_stage = sorted(zip(drawn.first_stage[1:], drawn.target[1:], strict=True), reverse=True)
    assert [share for _, share in by_first_stage] == sorted(drawn.target[1:], reverse=True)


def test_the_best_candidates_are_drawn_most_often() -> None:
    dice, drawn = random.Random(7), Counter[int]()
    for _ in range(2000):
        drawn.update(ranking_lists.sample_ranks(50, 7, dice))
    assert all(drawn[rank] > drawn[rank + 20] for rank in range(10))
    assert 0.35 < sum(drawn[rank] for rank in range(10)) / drawn.total() < 0.6
    assert set(drawn) == set(range(50))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("What are the treatments for Aortic stenosis ? (Also called: valve stenosis)", "treatments Aortic stenosis"),
        ("who are you", "who are you"),
        ("TCP/IP in O'Reilly's books", "TCP/IP O'Reilly's books"),
    ],
)
def test_keywords(text: str, left: str) -> None:
    assert keywords(text) == left


def test_accuracy_counts_who_put_the_right_passage_on_top() -> None:
    lists = [
        RankingList(query="q", passages=["x"] * 2, first_stage=scores, part=part)
        for part, scores in (("a", [0.9, 0.1]), ("a", [0.2, 0.5]), ("b", [0.9, 0.1]))
    ]
    assert ranking_lists.accuracy(lists, [[1.0, 0.0], [3.0, 2.0], [0.0, 1.0]]) == {
        "a": ranking_lists.Accuracy(lists=2, first_stage=0.5, reranker=1.0),
        "b": ranking_lists.Accuracy(lists=1, first_stage=1.0, reranker=0.0),
    }
