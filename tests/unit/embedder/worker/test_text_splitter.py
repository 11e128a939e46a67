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


def body(chunk: Chunk, text: str) -> str:
    return text[chunk.start : chunk.end]


def prose(word: str, sentences: int = 8) -> str:
    return " ".join(f"{word.title()} one two three." for _ in range(sentences))


def test_later_chunks_of_a_section_carry_title_and_headings() -> None:
    text = f"# Guide\n\n## Linux\n\n{prose('a')}\n\n### Proxy\n\n{prose('b', 20)}\n\n## Windows\n\n{prose('c')}\n"
    chunks = cut(text, title="Guide", most=42)
    carried = [part.text.removesuffix(body(part, text)) for part in chunks]
    assert set(carried) == {"Guide\n" + path for path in ("", "Linux\n", "Linux > Proxy\n", "Windows\n")}
    for before, part in zip(carried, chunks, strict=True):
        assert (before == "Guide\nLinux > Proxy\n") == ("Proxy" not in body(part, text) and "B one" in body(part, text))
    assert all(part.tokens <= 42 for part in chunks)
    assert all(not body(part, text).splitlines()[-1].startswith("#") for part in chunks)


def test_a_cut_falls_rather_before_a_heading_or_a_paragraph_than_in_a_paragraph() -> None:
    for below, start in (("## Next\n\n", "## Next"), ("", "B one"), ("## A\n\n## B\n\n", "## A")):
        text = f"# Top\n\n{prose('a', 7)}\n\n{below}{prose('b')}"
        first, second, *_ = cut(text, most=46)
        assert body(first, text).endswith("A one two three.")
        assert body(second, text).startswith(start)


def test_the_text_of_a_document_that_fits_is_unchanged() -> None:
    text = "# A heading\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert [part.text for part in cut(text, title="Title", most=99)] == ["Title\n" + text]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("head", "row", "header"),
    [
        ("| Part | Price |{end}|---|---|", "| AB{n} | {n} |", "Part | Price"),
        ("part,price", "AB{n},{n}", "part,price"),
        ("part\tprice\tstock", "AB{n}\t{n}\t7", "part\tprice\tstock"),
    ],
)
def test_tables_are_cut_between_rows_and_carry_their_header(head: str, row: str, header: str, end: str) -> None:
    rows = [row.format(n=n) for n in range(40)]
    text = end.join(["# Prices", "", "Here they are.", "", head.format(end=end), *rows, "", "That is all.", ""])
    chunks = cut(text, title="Shop", most=45)
    assert len(chunks) >= 4
    for part in chunks[1:-1]:
        assert part.text == f"Shop\nPrices\n{header}\n{body(part, text)}"
        assert set(body(part, text).split(end)) <= {*rows, "", "That is all."}
    assert head.format(end=end) + end + rows[0] in body(chunks[0], text)


def test_code_is_cut_between_lines() -> None:
    lines = [f'print("Line {n}. One. Two!")  # Yes. No.' for n in range(20)]
    text = "# Use\n\nLike this:\n\n```python\n" + "\n".join(lines) + "\n```\n\nDone. Good.\n"
    chunks = cut(text, most=60)
    assert len(chunks) > 4
    assert {line for part in chunks for line in body(part, text).splitlines()} == set(text.splitlines())
    assert all(not body(part, text).startswith("```\n") for part in chunks)
    assert all(not body(part, text).endswith("```python") for part in chunks)


def test_a_row_or_line_longer_than_a_chunk_is_cut_at_words() -> None:
    text = "| a | b |\n|---|---|\n| x | " + "word " * 60 + "|\n| y | z |\n"
    chunks = cut(text, most=24)
    assert max(part.tokens for part in chunks) <= 24
    assert [part.text.startswith("a | b\n") for part in chunks] == [False] + [True] * (len(chunks) - 1)


def test_a_line_of_code_longer_than_a_chunk_is_cut_at_sentences() -> None:
    text = "```\n" + prose("a", 30) + "\n```\n"
    assert all(body(part, text).removesuffix("\n```").endswith("three.") for part in cut(text, most=33))


def test_context_takes_at_most_half_of_a_chunk() -> None:
    text = "".join(f"{'#' * n} Heading {n} of many words in a row\n\n" for n in range(1, 7)) + prose("x", 40)
    for most in (16, 24, 48, 96):
        chunks = cut(text, title="A title of words", most=most)
        assert max(part.tokens for part in chunks) <= most
        assert all(len(WORDS.findall(part.text.removesuffix(body(part, text)))) <= most // 2 for part in chunks)


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece", ["!?.", "a.", ". ", "。」", "\n ", '"', "\t", "- \n", "# a\n\n", "|a|\n|-|\n", "```\n", "a,1\n"]
)
def test_long_runs_of_anything_take_time_in_proportion(piece: str) -> None:
    text = piece * 60_000  # the square of which would be hours
    chunks = cut("x" + text + "x", most=256)
    assert max(part.tokens for part in chunks) <= 256
