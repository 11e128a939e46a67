"""Laws of cutting: everything is covered, in order, within the budget, whatever the text and the tokenizer."""

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.embedder.worker.text_splitter import split_document

TOKENIZERS = {
    "words": re.compile(r"\w+|[^\w\s]"),
    "pieces": re.compile(r"\w{1,3}|[^\w\s]"),
    "characters": re.compile(r"\S|\s"),
}
CHARACTERS = st.one_of(st.sampled_from("ab cd. E\n!。」- 1\t"), st.characters(codec="utf-8"))
WORDS = st.lists(st.sampled_from(["Word", "two", "Dr.", "End.", "\n\n", "- x", "長い文。", "!?"]), max_size=120)
MARKUP = """# One|## Two three|### long long long long long long long|Title\n=====|```|x = 1  # c|  y. Z|1.1 A|\r||
a¦b\n--¦--|1¦2|n,m\na,1\nb,2|Word two. End it.|<h2>x</h2> y. Z|long long long long long long long long long long"""
LINES = st.lists(st.sampled_from(MARKUP.replace("|\n", "|").split("|")), max_size=60).map("\n".join)
TEXT = st.text(alphabet=CHARACTERS, max_size=400) | WORDS.map(" ".join) | LINES.map(lambda text: text.replace("¦", "|"))


@settings(max_examples=300, deadline=None)
@given(
    title=st.text(max_size=60),
    text=TEXT,
    tokenizer=st.sampled_from(sorted(TOKENIZERS)),
    most=st.integers(4, 60),
    overlap=st.integers(0, 40),
    overhead=st.integers(0, 3),
)
def test_chunks_cover_the_text_in_order_and_fit(
    title: str, text: str, tokenizer: str, most: int, overlap: int, overhead: int
) -> None:
    def offsets(value: str) -> np.ndarray:
        spans = [match.span() for match in TOKENIZERS[tokenizer].finditer(value)]
        return np.array(spans, dtype=np.int64).reshape(-1, 2)

    chunks = split_document(
        title, text, offsets(title), offsets(text), max_tokens=most, overlap_tokens=overlap, overhead=overhead
    )

    assert [part.number for part in chunks] == list(range(len(chunks)))
    starts = [part.start for part in chunks]
    assert starts == sorted(set(starts))
    covered = np.zeros(len(text), dtype=bool)
    for part in chunks:
        covered[part.start : part.end] = True
        assert part.text.endswith(text[part.start : part.end]) or not text.strip()
        # What lies in a chunk is counted: the budget is not kept by looking away.
        least = overhead + (len(offsets(text[part.start : part.end].strip())) if text.strip() else 0)
        assert least <= part.tokens <= most
    assert all(covered[i] for i in range(len(text)) if not text[i].isspace())
    if text.strip() and len(chunks) > 1:
        assert all(text[part.start : part.end].strip() == text[part.start : part.end] != "" for part in chunks)
