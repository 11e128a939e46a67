"""Excerpts of passages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.search.excerpts import EXCERPT_LENGTH, excerpt, terms

FILLER = "This line is about something else and says nothing of interest. "


@given(st.text(max_size=60), st.text(alphabet="ab .\n\u4e2d\u3002\u0130", max_size=1_000))
def test_an_excerpt_is_short_and_made_of_the_passage(query: str, text: str) -> None:
    part = excerpt(terms(query), text)
    assert part == text if len(text) <= EXCERPT_LENGTH else len(part) <= EXCERPT_LENGTH + part.count("\n")
    at = 0
    for piece in part.split("\n"):
        at = text.index(piece, at) + len(piece)  # in the order of the passage


@pytest.mark.parametrize("place", [0, 5, 12])
def test_the_sentence_with_the_words_of_the_query_is_kept_below_the_title(place: int) -> None:
    wanted = "Vitamin D was given to those treated for fractures. "
    text = "Bones and falls\n" + FILLER * place + wanted + FILLER * (12 - place)
    part = excerpt(terms("Does treatment with VITAMINS prevent fractures, this or something?"), text)
    assert part.startswith("Bones and falls\n")
    assert wanted.strip() in part


def test_of_a_long_sentence_the_part_with_the_words_is_kept() -> None:
    part = excerpt(terms("a needle"), "hay " * 200 + "needle " + "hay " * 200)
    assert "needle" in part
    assert len(part) <= EXCERPT_LENGTH


@pytest.mark.parametrize("text", [FILLER * 20, "\u6587" * 900, "word" * 400])
def test_without_a_word_of_the_query_it_is_the_beginning(text: str) -> None:
    assert text.startswith(excerpt(terms("nothing"), text).split("\n")[0])


def test_a_long_title_leaves_room() -> None:
    assert "needle" in excerpt(terms("needle"), "title " * 90 + "\n" + FILLER * 5 + "The needle. " + FILLER)
