"""Cutting at sentence borders: the rule itself, and what the cuts look like on real shapes of text."""

import re
from itertools import pairwise

import numpy as np
import pytest

from service.core.documents import Chunk
from service.core.text import sentence_starts
from service.embedder.worker.text_splitter import split_document

WORDS = re.compile(r"\w+|[^\w\s]")


def offsets(text: str) -> np.ndarray:
    return np.array([match.span() for match in WORDS.finditer(text)], dtype=np.int64).reshape(-1, 2)


def cut(text: str, title: str = "", most: int = 20, overlap: int = 0, overhead: int = 2) -> tuple[Chunk, ...]:
    return split_document(
        title, text, offsets(title), offsets(text), max_tokens=most, overlap_tokens=overlap, overhead=overhead
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It costs 3.14 euros. Yes.", ["It costs 3.14 euros.", "Yes."]),
        ("Dr. Smith met J. R. Tolkien. They spoke.", ["Dr. Smith met J. R. Tolkien.", "They spoke."]),
        ("Fruit, e.g. Apples. Nuts, i.e. Almonds.", ["Fruit, e.g. Apples.", "Nuts, i.e. Almonds."]),
        ("See Fig. 3 and No. 5. Oh no. 7 men left.", ["See Fig. 3 and No. 5.", "Oh no. 7 men left."]),
        ("He asked “Why?” and left. She stayed.", ["He asked “Why?” and left.", "She stayed."]),
        ('"Go." He went.', ['"Go."', "He went."]),
        ("wait... then go. Now.", ["wait... then go.", "Now."]),
        ("A heading\n\nA paragraph\nof two lines.", ["A heading", "A paragraph\nof two lines."]),
        ("Items:\n- one\n- two\n3. three", ["Items:", "- one", "- two", "3. three"]),
        ("これは文です。次の文。「終わり。」続く", ["これは文です。", "次の文。", "「終わり。」", "続く"]),
        ("ما هذا؟ هذا كتاب.", ["ما هذا؟", "هذا كتاب."]),
        ("\n\n  Leading space. End.  \n", ["Leading space.", "End."]),
        ("no border at all", ["no border at all"]),
    ],
)
def test_sentence_borders(text: str, expected: list[str]) -> None:
    starts = sentence_starts(text)
    assert [text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True)] == expected


def test_a_short_document_is_one_chunk_over_the_whole_text() -> None:
    text = "  A short text. Two sentences.\n"
    (only,) = cut(text, title="Title")
    assert (only.number, only.start, only.end) == (0, 0, len(text))
    assert only.text == "Title\n" + text
    assert not only.truncated


def test_a_title_alone_is_one_chunk_and_is_cut_visibly_if_it_does_not_fit() -> None:
    (only,) = cut("", title="Only a title")
    assert (only.start, only.end, only.text, only.tokens) == (0, 0, "Only a title", 5)
    (shortened,) = cut("", title="word " * 40, most=12)
    assert (shortened.text, shortened.truncated) == (" ".join(["word"] * 10), True)


def test_cuts_fall_between_sentences_and_the_title_is_in_every_chunk() -> None:
    text = "One two three four five. " * 6
    chunks = cut(text, title="The title", most=20)
    assert len(chunks) == 3
    assert all(part.text == "The title\n" + text[part.start : part.end] for part in chunks)
    assert all(text[part.start : part.end].startswith("One") and part.text.endswith("five.") for part in chunks)


def test_the_last_chunk_is_not_a_tiny_rest() -> None:
    text = "One two three. " * 9  # 36 tokens in sentences of 4, room for 32: filled to the brim the rest would be 4
    assert [part.tokens - 2 for part in cut(text, most=34)] == [20, 16]


def test_neighbours_share_whole_sentences() -> None:
    text = " ".join(f"Sentence number {word} here." for word in "abcdefghij")
    chunks = cut(text, most=22, overlap=6)
    assert len(chunks) > 2
    for left, right in pairwise(chunks):
        shared = text[right.start : left.end]
        assert re.fullmatch(r"Sentence number \w here\.", shared)


def test_sentences_longer_than_the_overlap_are_not_repeated() -> None:
    text = "one two three four five six seven. " * 4
    chunks = cut(text, most=18, overlap=4)
    assert all(left.end <= right.start for left, right in pairwise(chunks))


def test_a_sentence_longer_than_a_chunk_is_cut_at_lines_then_words() -> None:
    lines = "\n".join("alpha beta gamma delta" for _ in range(6))
    assert {part.text for part in cut(lines, most=10)} == {"alpha beta gamma delta\nalpha beta gamma delta"}
    words = " ".join(["word"] * 50)
    chunks = cut(words, most=12)
    assert [part.tokens - 2 for part in chunks] == [10] * 5
    assert all(re.fullmatch(r"word( word)*", part.text) for part in chunks)


def test_a_word_longer_than_a_chunk_is_cut_between_tokens() -> None:
    text = "!?" * 30
    chunks = cut(text, most=12)
    assert "".join(part.text for part in chunks) == text
    assert max(part.tokens for part in chunks) <= 12


def test_a_long_title_leaves_half_of_the_room_to_the_text() -> None:
    title = " ".join(f"title{n}" for n in range(30))
    chunks = cut("One two three. " * 10, title=title, most=22)
    headings = {part.text.split("\n")[0] for part in chunks}
    assert headings == {" ".join(f"title{n}" for n in range(9))}
    assert max(part.tokens for part in chunks) <= 22


def test_a_shortened_title_ends_with_a_whole_word() -> None:
    title = "plain words then un-break-able-compound"
    (heading,) = {part.text.split("\n")[0] for part in cut("One two three. " * 10, title=title, most=14)}
    assert heading == "plain words then"


def test_white_space_alone_never_makes_a_chunk() -> None:
    text = "a b c d e f g h." + " \t" * 50 + "\n" * 20 + "i j k l m n o p."
    assert [part.text for part in cut(text, most=11)] == ["a b c d e f g h.", "i j k l m n o p."]


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["!?.", "a.", ". ", "。」", "\n ", '"', "\t", "- \n"])
def test_long_runs_of_anything_take_time_in_proportion(piece: str) -> None:
    text = piece * 60_000  # the square of which would be hours
    chunks = cut("x" + text + "x", most=256)
    assert max(part.tokens for part in chunks) <= 256
