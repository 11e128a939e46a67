"""Texts as their words, and excerpts that identify the text they are from."""

import numpy as np

from service.diagnostics.lexical_similarity import EXCERPT_WORDS, MIN_WORDS, sample_excerpts, tfidf_vectors

TEXTS = [
    "whales sing long songs in the deep sea while their calves listen and learn to answer them",
    "sailors mend torn sails in the harbour before the storm of the autumn reaches the coast",
    "bakers knead dough at night so that bread is warm when the market opens in the morning",
    "too short for it",
]
BOILERPLATE = "this information is not a substitute for the advice of a doctor and comes without any warranty"


def test_a_text_is_nearest_to_texts_with_its_rare_words() -> None:
    rows = tfidf_vectors([*TEXTS[:3], "the sea, the songs: whales", ""])
    np.testing.assert_allclose(np.linalg.norm(rows[:4], axis=1), 1.0, rtol=1e-5)
    assert not rows[4].any()
    assert int(np.argmax(rows[:3] @ rows[3])) == 0


def test_words_in_all_texts_have_no_weight() -> None:
    assert not tfidf_vectors(["the same", "the same"]).any()


def test_an_excerpt_is_a_run_of_at_most_half_of_its_text() -> None:
    found = sample_excerpts(TEXTS, 10)
    assert [one.source for one in found] == [0, 1, 2]
    for one in found:
        assert one.text in TEXTS[one.source]
        assert MIN_WORDS // 2 <= len(one.text.split()) <= min(EXCERPT_WORDS, len(TEXTS[one.source].split()) // 2)
    assert sample_excerpts(TEXTS, 10) == found, "the same every time"
    assert len(sample_excerpts(TEXTS, 2)) == 2


def test_boilerplate_gives_no_excerpts() -> None:
    found = sample_excerpts([BOILERPLATE, BOILERPLATE, *TEXTS[:3]], 10)
    assert [one.source for one in found] == [2, 3, 4]


def test_scripts_without_spaces_give_excerpts_too() -> None:
    texts = ["今天天气很好我们去公园散步吧孩子们在草地上奔跑", "这家餐厅的面条非常好吃价格也便宜每天都有很多人排队"]
    found = sample_excerpts(texts, 10)
    assert [one.source for one in found] == [0, 1]
    assert all(one.text in texts[one.source] for one in found)


def test_texts_without_words_give_no_excerpts() -> None:
    assert sample_excerpts([], 10) == []
    assert sample_excerpts(["", "one two"], 10) == []
