"""What counts as a heading, a table or code, and what a passage is told of the text above it."""

import time
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.passage_context import context_at, parts_of


def passage_contexts(title: str, text: str, starts: Sequence[int], max_tokens: int) -> list[str]:
    parts = parts_of(text)
    return [context_at(parts, start, title, max_tokens) for start in starts]


def paths(text: str) -> list[str]:
    """The path of each heading, itself included, as the text below it has it."""
    parts = parts_of(text)
    return [" > ".join(below.path) for part, below in pairwise(parts) if part.kind == "heading"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A\n\nText.\n\n## B ##\n\nText.\n\n### C {#c}\nText.\n\n# D\n\nx", ["A", "A > B", "A > B > C", "D"]),
        ("# **Bold** and `code`\n\n## [Link](http://x.example)\n\nText.", ["Bold and code", "Bold and code > Link"]),
        ("# Überschrift\r\n\r\nText.\r\n\r\n## 見出し\r\n\r\n本文。\r\n", ["Überschrift", "Überschrift > 見出し"]),
        ("\ufeff# First\n\nText.", ["First"]),
        ("# Project\n[![Build](x.svg)](y)\n\n## Use\nRun it.", ["Project", "Project > Use"]),
        ("Title\n=====\n\nText.\n\nPart\n---\n\nText.", ["Title", "Title > Part"]),
        ("***\nI\n***\n\nOne\n===\n\nA\n---\n\nB\n~~~\n\nx", ["I", "I > One", "I > One > A", "I > One > A > B"]),
        ("<h1>Doc</h1><p>Text</p><H2 class='a'>Sub <b>part</b></H2><p>x", ["Doc", "Doc > Sub part"]),
        ("= A\n\n== B\n\nText.\n\n==Wiki==\n\n=== Deep ===\n\nx", ["A", "A > B", "A > Wiki", "A > Wiki > Deep"]),
        ("1 Intro\n\nText.\n\n1.1 Scope\n\nText.\n\n2 Terms\n\nText.", ["1 Intro", "1 Intro > 1.1 Scope", "2 Terms"]),
    ],
)  # fmt: skip
def test_headings(text: str, expected: list[str]) -> None:
    assert paths(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/sh\n\n# Install\n\nls\n",
        "# install things\napt-get update\n\n# remove them\nrm -rf x\n# set\nexport A=1\n",
        "import os\n\n# A comment\n# of two lines\n\ndef f():\n    # inside\n    pass\n\n# another\nx = 1\n",
        "# where\nhost: example\n# which\nport: 8080\n\n# who\nuser: me\n",
        "# Base image\nFROM python:3.12\n# Dependencies\nRUN pip install x\n",
        "Text.\n\n```sh\n# a comment\n```\n\n~~~\n# another\n~~~\n",
        "````md\n```\n# inside\n```\n# inside, too\n````\n",
        "```\n# a fence that is never closed\n\n# and goes on\n",
        "1. First item\n\n2. Second item\n\n3. Third item\n",
        "We are #1 and #hashtag\n#nospace\n####### seven\n    # indented code\n",
        "A sentence of a letter.\n-----\nanother\n",
        "---\ntitle: Front matter\n---\n\nText.",
        "---\ntitle: Front matter\ntags: [a]\n---\n\nText.",
        "Two lines of\na paragraph\n---\n\nmore text",
        "# " + "a line of code points without end " * 10,
    ],
)
def test_what_is_no_heading(text: str) -> None:
    assert not paths(text + "\n\nText.")


@pytest.mark.parametrize(
    ("table", "header"),
    [
        ("| Part | Price |\n|------|------:|\n| A-1 | 2 |\n| B-2 | 3 |", "Part | Price"),
        ("Part | Price\r\n--- | ---\r\nA | 2\r\nB | 3", "Part | Price"),
        (" id | name\n----+------\n  1 | x\n  2 | y", "id | name"),
        ("| a | b |\n+===+===+\n| 1 | 2 |\n+---+---+\n| 3 | 4 |", "a | b"),
        ("part,price\nA-1,2.50\nB-2,3\nC,4", "part,price"),
        ("name;city\nAnna;Ulm\nBob;Rom", "name;city"),
        ('name,note\nA,"x, y"\nB,"two\nlines, z"\nC,4', "name,note"),
        ("a\tb\tc\nx\ty\tz\nx\t\tz", "a\tb\tc"),
        ("Country,2019,2020\nFrance,1,2\nSpain,3,4", "Country,2019,2020"),
        ("name, weight (kg), price\nbolt, 2.5, 1 €\nnut, 3, 2 €", "name, weight (kg), price"),
    ],
)
def test_rows_of_a_table_know_its_header(table: str, header: str) -> None:
    text = f"Before it.\n\n{table}\n\nBehind it."
    rows = [part for part in parts_of(text) if part.kind == "row"]
    assert rows
    assert {row.header for row in rows} == {header}
    starts = [0, text.index(table.strip()), rows[0].start, rows[-1].start, text.index("Behind")]
    assert passage_contexts("", text, starts, 256) == ["", "", header, header, ""]


@pytest.mark.parametrize(
    "text",
    [
        "Roses are red, violets are blue\nSugar is sweet, and so are you\nand one more, for good\n",
        "I came, I saw, I won\nyou came, you saw, you lost\nhe came, he saw, he left\n",
        "I have 3 cats, 2 dogs\nYou have 4 cats, 5 dogs\nWe have 6 cats, 7 dogs\n",
        "Anna,12\nBob,13\nCarl,14\n",
        "foo(1,2)\nbar(3,4)\nbaz(5,6)",
        "name,price\nA,1\n",
        "one line, with commas, alone",
        "a | b\nc | d\ne | f",
        '"unbalanced\n",\n"\n"',
    ],
)
def test_plain_text_has_no_parts(text: str) -> None:
    assert not parts_of(text)


def test_the_path_of_a_passage_and_its_limits() -> None:
    text = "# Manual\n\n## Linux\n\n### Proxy\n\nbody\n\n## Windows\n\nend"
    starts = [0, text.index("### "), text.index("body"), text.index("## Windows"), text.index("end")]
    full = ["", "Manual > Linux", "Manual > Linux > Proxy", "Manual", "Manual > Windows"]
    assert passage_contexts("", text, starts, 256) == full
    assert passage_contexts("MANUAL", text, starts, 256) == ["", "Linux", "Linux > Proxy", "", "Windows"]
    assert passage_contexts("", text, starts, 18)[2] == "Linux > Proxy"  # a third of 18, and the highest goes first
    assert passage_contexts("a long title of many words", text, starts, 16) == [""] * 5
    rows = "# Prices\n\n| Part number | Price | " + "Column | " * 50 + "\n|---|---|\n" + "| A | 2 |\n" * 9
    assert passage_contexts("", rows, [len(rows) - 10], 64) == ["Prices\nPart number | Price | Column | Column"]


LINES = [
    "# A",
    "## B",
    "===",
    "---",
    "```",
    "~~~",
    "| a | b |",
    "|--|--|",
    "a,b",
    "1,2",
    '"',
    "",
    " \r",
    "x\ty",
    "1.1 A",
]


@given(st.lists(st.sampled_from([*LINES, "<h2>x</h2> y", "Text."]), max_size=60).map("\n".join) | st.text())
def test_any_text_has_parts(text: str) -> None:
    starts = [part.start for part in parts_of(text)]
    assert starts == sorted(set(starts))
    assert all(0 <= start <= len(text) for start in starts)
    assert all(text[start - 1 : start].isspace() or not start or "<h" in text for start in starts)
    assert all(len(context) <= 4 * 64 for context in passage_contexts("", text, range(len(text)), 192))


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        "# A\n\n",
        "## A\nx\n",
        "```\n",
        "| a |\n|--|\n",
        "a,b\n",
        '"\n',
        'a,b\n"x\n',
        "<h1>",
        "A\n==\n",
        "1.1 A\n\n",
        "\n",
    ],
)
def test_long_texts_take_time_in_proportion(piece: str) -> None:
    text = piece * 100_000  # the square of which would be hours
    started = time.process_time()
    parts_of(text)
    assert time.process_time() - started < 20
