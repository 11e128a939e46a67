"""What is a wish, and how much is only words."""

import pytest

from service.core.query_syntax import MOST_WISHES, Typos, Words, read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('heron "grey wing" pond', Words(text="heron grey wing pond", quoted=("grey wing",))),
        ("heron +pond -pike", Words(text="heron pond", required=("pond",), excluded=("pike",))),
        ('+"grey wing" heron', Words(text="grey wing heron", required=("grey wing",))),
        ('heron -"grey wing"', Words(text="heron", excluded=("grey wing",))),
        ('Who said "never again"?', Words(text="Who said never again?", quoted=("never again",))),
        ("“typographic quotes” heron", Words(text="typographic quotes heron", quoted=("typographic quotes",))),
        ("„Wie geht's“ Haus", Words(text="Wie geht's Haus", quoted=("Wie geht's",))),
        ("駅 +東京", Words(text="駅 東京", required=("東京",))),
        ("call +wait_for, please", Words(text="call wait_for please", required=("wait_for",))),
        ("heron -state-of-the-art", Words(text="heron", excluded=("state-of-the-art",))),
    ],
)
def test_wishes(text: str, expected: Words) -> None:
    assert read(text) == expected
    assert read(text).binding


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
    assert read(text) == Words(text=text)


def test_plain_is_plain() -> None:
    assert read('"heron" +pond -pike', "plain") == Words(text='"heron" +pond -pike')


def test_typos_are_passed_on() -> None:
    assert read("heron", typos=Typos()).typos == read('"heron"', typos=Typos()).typos == Typos()


def test_of_very_many_wishes_the_first_bind_and_the_others_are_words() -> None:
    words = read(" ".join(f"+word{chr(97 + n % 26)}{n}" for n in range(3 * MOST_WISHES)))
    assert len(words.required) == MOST_WISHES
    assert f"worda{2 * MOST_WISHES + 14}" in words.text.replace("+", "")


def test_a_long_text_of_quotation_marks_is_read_in_no_time() -> None:
    assert read('"' * 10_000).text
    assert read('"a ' * 3_000).text
    assert read("-" * 10_000).text


@pytest.mark.parametrize(
    ("word", "edits"),
    [("cat", 0), ("herd", 1), ("heron", 1), ("herons", 2), ("h2o2x", 0), ("2024", 0), ("x" * 41, 0), ("цапля", 1)],
)
def test_short_words_and_numbers_allow_fewer_typos(word: str, edits: int) -> None:
    assert Typos().allowed(word) == edits
    assert Typos(max_edits=1).allowed(word) == min(edits, 1)
