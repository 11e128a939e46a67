"""The text around a hit: whole chunks, with the hit in it, and never more than was asked for."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.result_options import Neighbours, TextAround
from service.core.search import SearchRequest
from service.search.surroundings import PARENT_LENGTH, neighbourhood, parent
from tests.unit.search.test_pipeline import NAME, Zoo, zoo
from tests.unit.search.test_pipeline_by_chunk import book

__all__ = ["book", "zoo"]

TEXT = (
    "The purring cat hunts small mice. Parliament votes on the budget. "
    "A small cat purrs beside its mice. Rain falls in the mountains."
)


@pytest.mark.parametrize(
    ("around", "expected"),
    [
        (Neighbours(before=1), TEXT[34:101]),
        (Neighbours(after=1), TEXT[66:]),
        (Neighbours(before=1, after=1), TEXT[34:]),
        (Neighbours(before=20, after=20), TEXT),
        (Neighbours(), TEXT[66:101]),
        ("parent", TEXT),
    ],
    ids=str,
)
async def test_neighbours_of_a_chunk(book: Zoo, around: TextAround, expected: str) -> None:
    request = SearchRequest(text="beside its mice", k=9, group_by="chunk", around=around)
    answer = await book.search().run(NAME, request)
    (hit,) = (one for one in answer.hits if (one.id, one.chunk) == ("book", 2))
    assert hit.context is not None
    assert hit.context.text == expected == TEXT[hit.context.start : hit.context.end]
    assert all(one.context is not None and one.text in one.context.text for one in answer.hits)
    assert not answer.degraded


async def test_nothing_around_unless_it_is_wanted(book: Zoo) -> None:
    answer = await book.search().run(NAME, SearchRequest(text="cat", k=9))
    assert {hit.context for hit in answer.hits} == {None}


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    overlap=st.integers(0, 9),
    at=st.data(),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
)
def test_so_many_chunks_as_asked_for(
    lengths: list[int], overlap: int, at: st.DataObject, before: int, after: int
) -> None:
    ends = list(accumulate(lengths))
    spans = [(max(0, start - overlap) if start else 0, end) for start, end in pairwise([0, *ends])]
    number = at.draw(st.integers(0, len(spans) - 1))
    start, end = neighbourhood(spans, *spans[number], Neighbours(before=before, after=after))
    assert start <= spans[number][0] < spans[number][1] <= end
    first, last = max(0, number - before), min(len(spans) - 1, number + after)
    if len({one[0] for one in spans}) == len(spans):
        assert (start, end) == (spans[first][0], spans[last][1])


@given(length=st.integers(1, 100_000), start=st.integers(0, 99_999), size=st.integers(1, 30_000))
def test_a_part_of_a_long_document_has_the_hit_in_it(length: int, start: int, size: int) -> None:
    start = min(start, length - 1)
    end = min(length, start + size)
    found = parent(start, end, length)
    assert 0 <= found[0] <= start < end <= found[1] <= length
    assert found[1] - found[0] == min(length, max(PARENT_LENGTH, end - start))
