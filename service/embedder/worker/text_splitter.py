"""Split a document's text into passages that fit the embedder. Pure arithmetic on token offsets.

Cuts fall, in order of preference, after sentences, at line ends, between words, between tokens. In a text with
headings, tables or code they fall rather before a heading or a paragraph, and inside tables and code at line ends.
"""

import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from service.core.documents import Chunk
from service.core.passage_context import Part, context_at, estimated_tokens, parts_of
from service.core.text import WHITE_SPACE, break_long_words, sentence_starts

Offsets = npt.NDArray[np.int64]
"""Shape [n, 2]: start and end of each token, in code points."""

Room = Callable[[int], int]
"""Tokens of a passage, by where it starts: its context takes some."""

_HEADING = 2
_BORDERS = {"heading": _HEADING, "lead": 1, "text": 1}
"""How good a place for a cut is before each kind of part; others: 0."""
_LINE_END = re.compile(r"\n")


@dataclass(frozen=True, slots=True)
class _Unit:
    """A stretch that is kept together: `text[start:end]`, and the number of tokens that begin in it.

    `sentence`: a whole sentence, which may be repeated as overlap; parts of one may not. `border`: see `_BORDERS`.
    """

    start: int
    end: int
    tokens: int
    sentence: bool
    border: int = 0


def split_document(
    title: str,
    text: str,
    title_offsets: Offsets,
    text_offsets: Offsets,
    *,
    max_tokens: int,
    overlap_tokens: int,
    overhead: int,
    context_tokens: int | None = None,
) -> tuple[Chunk, ...]:
    """Split one document. Chunks cover every character of the text that is not white space, in order.

    `max_tokens`: what the embedder takes; `overhead`: tokens of it for special tokens and prompt. A chunk's text is the
    title, the context (`passage_context.context_at`) and the passage, in lines; a title longer than half of the room is
    shortened. `context_tokens`: the length of a chunk for which the context is made, `max_tokens` by default.
    Neighbours share whole sentences of up to `overlap_tokens` (at most half a chunk). A document that fits is one chunk
    over the whole text.
    """
    room = max(1, max_tokens - overhead)
    if not text.strip():
        heading, cost, cut = _heading(title, title_offsets, room)
        heading = break_long_words(heading)
        return (Chunk(number=0, start=0, end=len(text), text=heading, tokens=overhead + cost, truncated=cut),)
    heading, cost, _ = _heading(title, title_offsets, room // 2 - 1)
    prefix, prefix_tokens = (heading + "\n", cost + 1) if heading.strip() else ("", 0)
    budget = max(1, room - prefix_tokens)
    starts = np.maximum.accumulate(text_offsets[:, 0]) if len(text_offsets) else np.zeros(0, np.int64)
    parts = [] if len(starts) <= budget else parts_of(text)

    @cache
    def context_of(start: int) -> tuple[str, int]:
        context = context_at(parts, start, title, context_tokens or max_tokens)
        cost = estimated_tokens(context) + 1
        return (context + "\n", cost) if context and prefix_tokens + cost <= room // 2 else ("", 0)

    def room_at(start: int) -> int:
        return budget - context_of(start)[1]

    if len(starts) <= budget:
        spans = [(0, len(text), len(starts))]
    else:
        units = _units(text, starts, parts, room_at)
        spans = []
        for first, last in _groups(units, budget, min(overlap_tokens, budget // 2), room_at):
            start, end = units[first].start, units[last - 1].end
            start, end = end - len(text[start:end].lstrip()), start + len(text[start:end].rstrip())
            if start < end:
                spans.append((start, end, sum(unit.tokens for unit in units[first:last])))
    chunks = []
    for number, (start, end, tokens) in enumerate(spans):
        context, cost = context_of(start)
        own = break_long_words(prefix + context + text[start:end])
        chunks.append(
            Chunk(number=number, start=start, end=end, text=own, tokens=overhead + prefix_tokens + cost + tokens)
        )
    return tuple(chunks)


def _units(text: str, starts: npt.NDArray[np.int64], parts: Sequence[Part], room_at: Room) -> list[_Unit]:
    """The sentences of a text, the rows of its tables and the lines of its code; parts of those that are too long.

    Headings, table headers and opening fences are one unit with what follows, so that none ends a chunk, unless they
    fill half of it.
    """
    kinds: dict[int, str] = {part.start: part.kind for part in parts}
    for start in sentence_starts(text):
        if not parts or parts[bisect_right(parts, start, key=lambda part: part.start) - 1].kind == "text":
            kinds.setdefault(start, "sentence")
    units: list[_Unit] = []
    held: list[_Unit] = []
    for whole in _cut(text, starts, 0, len(text), sorted(kinds), sentence=True):
        kind, room = kinds[whole.start], room_at(whole.start)
        unit = replace(whole, sentence=kind != "row", border=_BORDERS.get(kind, 0)) if parts else whole
        leads = kind in ("heading", "lead") and unit.tokens <= room // 2
        taken = sum(one.tokens for one in held)
        if taken + unit.tokens * leads > room // 2:
            units += held
            held, taken = [], 0
        held.append(unit)
        if not leads:
            start, border = held[0].start, held[0].border
            room = min(room, room_at(start)) - taken
            pieces = [unit]
            if kind == "row" and unit.tokens > room:
                borders = [unit.start + border for border in sentence_starts(text[unit.start : unit.end])]
                pieces = _cut(text, starts, unit.start, unit.end, borders, sentence=False)
            first, *others = (part for piece in pieces for part in _parts(text, starts, piece, room))
            units += (replace(first, start=start, border=border, tokens=taken + first.tokens), *others)
            held = []
    return units + held


def _heading(title: str, offsets: Offsets, most: int) -> tuple[str, int, bool]:
    """The title in at most `most` tokens, its number of tokens, and whether it was shortened."""
    if len(offsets) <= most:
        return title, len(offsets), False
    if most < 1:
        return "", 0, True
    end = int(offsets[most - 1, 1])
    if not title[end : end + 1].isspace():
        words = WHITE_SPACE.split(title[:end])
        end -= len(words[-1]) if len(words) > 1 and words[0] else 0
    return title[:end].rstrip(), most, True


def _cut(
    text: str, token_starts: npt.NDArray[np.int64], start: int, end: int, borders: Sequence[int], *, sentence: bool
) -> list[_Unit]:
    """Cut `text[start:end]` at the borders. A token counts where it begins; one before the first counts there."""
    inner = sorted({start, *(border for border in borders if start < border < end)})
    edges = np.searchsorted(token_starts, np.asarray([*inner[1:], end]), side="left")
    if end == len(text):
        edges[-1] = len(token_starts)
    first = int(np.searchsorted(token_starts, start, side="left"))
    counts = np.diff(edges, prepend=first)
    return [
        _Unit(left, right, int(count), sentence)
        for left, right, count in zip(inner, [*inner[1:], end], counts, strict=True)
    ]


def _parts(text: str, token_starts: npt.NDArray[np.int64], unit: _Unit, budget: int) -> Iterator[_Unit]:
    """The unit itself if it fits; otherwise balanced parts of it, cut at lines, then words, then tokens."""
    if unit.tokens <= budget:
        yield unit
        return
    for borders in _finer_borders(text, token_starts, unit):
        smaller = _cut(text, token_starts, unit.start, unit.end, borders, sentence=False)
        if len(smaller) > 1:
            pieces = [part for piece in smaller for part in _parts(text, token_starts, piece, budget)]
            for first, last in _groups(pieces, budget, 0):
                tokens = sum(piece.tokens for piece in pieces[first:last])
                yield _Unit(pieces[first].start, pieces[last - 1].end, tokens, sentence=False)
            return
    yield unit  # one code point, or one run of equal token starts, that alone exceeds the budget


def _finer_borders(text: str, token_starts: npt.NDArray[np.int64], unit: _Unit) -> Iterator[Sequence[int]]:
    for separator in (_LINE_END, WHITE_SPACE):
        yield [match.end() for match in separator.finditer(text, unit.start, unit.end)]
    first, last = np.searchsorted(token_starts, (unit.start, unit.end), side="left")
    yield [int(start) for start in np.unique(token_starts[first:last])]


def _groups(
    units: Sequence[_Unit], budget: int, overlap: int, room_at: Room = lambda _: sys.maxsize
) -> list[tuple[int, int]]:
    """Group neighbouring units into the fewest chunks and, among those, into the most even ones.

    Full chunks would leave a last one of a few words, whose vector says little and which ranks by chance. So the
    smallest budget with the same number of chunks is searched for (the linear partition problem, by bisection on its
    answer); it bounds the longest chunk and so evens out the others. It must not lose cuts at good places.
    """

    def goodness(groups: Sequence[tuple[int, int]]) -> int:
        return sum(units[last].border for _, last in groups[:-1])

    best = _fill(units, budget, overlap, room_at)
    low, high = 1, budget
    while low < high and len(best) > 1:
        middle = (low + high) // 2
        candidate = _fill(units, middle, overlap, room_at)
        if len(candidate) <= len(best) and goodness(candidate) >= goodness(best):
            best, high = candidate, middle
        else:
            low = middle + 1
    return best


def _fill(units: Sequence[_Unit], budget: int, overlap: int, room_at: Room) -> list[tuple[int, int]]:
    """Fill one chunk after another; each begins with the last sentences of the previous one, within `overlap`.

    A chunk ends before a heading in its second half, or before a paragraph in its last quarter, where there is one.
    """
    groups: list[tuple[int, int]] = []
    first = new = 0
    while new < len(units):
        most = min(budget, room_at(units[first].start))
        tokens = sum(unit.tokens for unit in units[first:new])
        last = new
        while last < len(units) and (last == new or tokens + units[last].tokens <= most):
            tokens += units[last].tokens
            last += 1
        if last < len(units):
            best = last
            for at in range(last - 1, new, -1):
                tokens -= units[at].tokens
                if tokens < most // 2:
                    break
                if units[at].border > units[best].border and tokens >= most * (4 - units[at].border) // 4:
                    best = at
            last = best
        groups.append((first, last))
        previous, first, new = first, last, last
        if new == len(units):
            break
        repeated = 0
        while first - 1 > previous and units[first - 1].sentence and units[first].border < _HEADING:
            repeated += units[first - 1].tokens
            most = min(budget, room_at(units[first - 1].start))
            if repeated > overlap or repeated + units[new].tokens > most:
                break
            first -= 1
    return groups
