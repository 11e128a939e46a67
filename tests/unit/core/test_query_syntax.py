"""What is a wish, and how much is only words."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.query_syntax import MAX_CONSTRAINTS, ParsedQuery, TypoTolerance, parse_query


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('heron "grey wing" pond', ParsedQuery(text="heron grey wing pond", quoted=("grey wing",))),
        ("heron +pond -pike", ParsedQuery(text="heron pond", required=("pond",), excluded=("pike",))),
        ('+"grey wing" heron', ParsedQuery(text="grey wing heron", required=("grey wing",))),
        ('heron -"grey wing"', ParsedQuery(text="heron", excluded=("grey wing",))),
        ('Who said "never again"?', ParsedQuery(text="Who said never again?", quoted=("never again",))),
        ("“typographic quotes” heron", ParsedQuery(text="typographic quotes heron", quoted=("typographic quotes",))),
        ("„Wie geht's“ Haus", ParsedQuery(text="Wie geht's Haus", quoted=("Wie geht's",))),
        ("駅 +東京", ParsedQuery(text="駅 東京", required=("東京",))),
        ("call +wait_for, please", ParsedQuery(text="call wait_for please", required=("wait_for",))),
        ("heron -state-of-the-art", ParsedQuery(text="heron", excluded=("state-of-the-art",))),
        ("error +E-7325", ParsedQuery(text="error E-7325", required=("E-7325",))),
        ("driver +x.509 +v2", ParsedQuery(text="driver x.509 v2", required=("x.509", "v2"))),
        ("駅 -東京", ParsedQuery(text="駅", excluded=("東京",))),
        ("नदी -हिंदी", ParsedQuery(text="नदी", excluded=("हिंदी",))),
        ('Jaguar -"Auto"', ParsedQuery(text="Jaguar", excluded=("Auto",))),
    ],
)
def test_wishes(text: str, expected: ParsedQuery) -> None:
    assert parse_query(text) == expected
    assert parse_query(text).has_constraints


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "+", "-", "+ -", '"', '""', '" "', '"!?" heron', '"unbalanced heron', 'unbalanced" heron', '+"', '-"x',
        "c++", "c++ -", "-5 degrees", "+1 position", "E2f-1, -2, -3", "e-mail", "state-of-the-art", "- a point\n- two",
        "ls -l /tmp", "--help", "++i", "a+b", '6" pipe', '4" x 6" print', 'say"x"y', '"x"y', "a - b", "5 -3", "-pike",
        '-pike -"grey heron"', "\ud800 +\ud800", "+🙂",
    ],
)  # fmt: skip
def test_all_else_is_words(text: str) -> None:
    assert parse_query(text) == ParsedQuery(text=text)


@pytest.mark.parametrize(
    ("text", "as_words"),
    [
        ("what does tar -xf do", ("-xf",)),
        ("rm -rf /tmp", ("-rf",)),
        ("set -Xmx512m -Xms64m", ("-Xmx512m", "-Xms64m")),
        ("gcc -Wall -Werror -std=c++17", ("-Wall", "-Werror", "-std=c++17")),
        ("Berlin -Hamburg", ("-Hamburg",)),
        ("Thanks -Anna", ("-Anna",)),
        ("docker run -it ubuntu", ("-it",)),
        ("-import os\n+import sys", ("-import", "+import")),
        ('-"name": "a"\n+"name": "b"', ('-"name"', '+"name"')),
        ("apple +pie -pie", ("+pie", "-pie")),
        ("Apple pie -apple", ("-apple",)),
    ],
)
def test_signs_that_are_not_clearly_operators_belong_to_the_text(text: str, as_words: tuple[str, ...]) -> None:
    words = parse_query(text)
    assert words.as_words == as_words
    assert not words.required
    assert not words.excluded
    assert set(re.findall(r"\w+", words.text)) == set(re.findall(r"\w+", text))


def test_the_caller_names_constraints_that_are_words() -> None:
    assert parse_query('java -jar "a b" +lib', as_words=frozenset({"-jar", "a b"})) == ParsedQuery(
        text='java -jar "a b" lib', required=("lib",), as_words=("-jar", '"a b"')
    )


@given(st.text(st.sampled_from('ab \n+-"A1.東')))
def test_no_text_loses_a_word_but_to_an_exclusion(text: str) -> None:
    words = parse_query(text)
    left = re.findall(r"\w+", f"{words.text} {' '.join(words.excluded)}")
    assert sorted(left) == sorted(re.findall(r"\w+", text))


def test_plain_is_plain() -> None:
    assert parse_query('"heron" +pond -pike', "plain") == ParsedQuery(text='"heron" +pond -pike')


@pytest.mark.parametrize("text", ["heron", '"heron"'])
def test_typos_are_passed_on(text: str) -> None:
    assert parse_query(text, typos=TypoTolerance()).typos == TypoTolerance()


def test_of_very_many_wishes_the_first_bind_and_the_others_are_words() -> None:
    words = parse_query(" ".join(f"+word{chr(97 + n % 26)}{n}" for n in range(3 * MAX_CONSTRAINTS)))
    assert len(words.required) == MAX_CONSTRAINTS
    assert f"worda{2 * MAX_CONSTRAINTS + 14}" in words.text.replace("+", "")


@pytest.mark.parametrize("text", ['"' * 10_000, '"a ' * 3_000, "-" * 10_000])
def test_a_long_text_of_quotation_marks_is_read_in_no_time(text: str) -> None:
    assert parse_query(text).text


@pytest.mark.parametrize(
    ("word", "edits"),
    [("cat", 0), ("herd", 1), ("heron", 1), ("herons", 2), ("h2o2x", 0), ("2024", 0), ("x" * 41, 0), ("цапля", 1)],
)
def test_short_words_and_numbers_allow_fewer_typos(word: str, edits: int) -> None:
    assert TypoTolerance().max_edits_for(word) == edits
    assert TypoTolerance(max_edits=1).max_edits_for(word) == min(edits, 1)
