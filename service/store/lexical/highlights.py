"""Where a passage says what the query asked: every place, and the fragment with the most and rarest of its terms."""

import html
from bisect import bisect_left
from collections.abc import Callable, Sequence

from service.core.query_syntax import Highlights
from service.store.lexical.analyzer import LanguageAnalyzer

FRAGMENT_LENGTH = 200
"""Longest fragment, in characters."""

_WORD_REACH = 30
"""A fragment begins and ends between words, where one ends within so many characters."""

Span = tuple[int, int]
"""[start, end) in code points of the passage."""


def highlighted(
    passage: str, chains: Sequence[LanguageAnalyzer], marked: Callable[[LanguageAnalyzer, str], float]
) -> Highlights:
    """`marked`: what a term counts in the chain that made it; 0 where the query does not say it."""
    worth: dict[Span, tuple[float, str]] = {}
    for chain in chains:
        for token in chain.tokens(passage):
            weight = marked(chain, token.term)
            if weight > 0:
                span = (token.start, token.end)
                worth[span] = max(worth.get(span, (0.0, "")), (weight, token.term))
    if not worth:
        return Highlights()
    spans = joined(sorted(worth))
    start, end = _best(passage, worth)
    inside = [(max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and b > start]
    return Highlights(fragments=(as_html(passage[start:end], inside),), spans=tuple(spans))


def joined(spans: Sequence[Span]) -> list[Span]:
    """Overlapping and touching ones become one: n-grams overlap. `spans` are sorted."""
    together: list[Span] = []
    for start, end in spans:
        if together and start <= together[-1][1]:
            together[-1] = (together[-1][0], max(end, together[-1][1]))
        else:
            together.append((start, end))
    return together


def as_html(fragment: str, spans: Sequence[Span]) -> str:
    """Matches in <mark>, all else escaped. A lone surrogate, which no encoding can carry, becomes a question mark."""
    parts: list[str] = []
    done = 0
    for start, end in spans:
        parts += [_escaped(fragment[done:start]), "<mark>", _escaped(fragment[start:end]), "</mark>"]
        done = end
    return "".join([*parts, _escaped(fragment[done:])])


def _escaped(text: str) -> str:
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))


def _best(passage: str, worth: dict[Span, tuple[float, str]]) -> Span:
    """The window whose different terms are worth most; of equals the first. It begins at a match, less some context."""
    places = sorted(worth)
    starts = [start for start, _ in places]

    def value(first: int) -> float:
        last = bisect_left(starts, starts[first] + FRAGMENT_LENGTH)
        said = {
            worth[place][1]: worth[place][0]
            for place in places[first:last]
            if place[1] - starts[first] <= FRAGMENT_LENGTH
        }
        return sum(said.values())

    first = max(range(len(places)), key=lambda at: (value(at), -at))
    inside = [end for start, end in places[first:] if end - starts[first] <= FRAGMENT_LENGTH]
    last = max(inside, default=starts[first] + FRAGMENT_LENGTH)
    context = (FRAGMENT_LENGTH - (last - starts[first])) // 2
    start = max(0, starts[first] - context)
    end = min(len(passage), start + FRAGMENT_LENGTH)
    return _between_words(passage, max(0, end - FRAGMENT_LENGTH), end, starts[first], last)


def _between_words(passage: str, start: int, end: int, first: int, last: int) -> Span:
    """The same window without the pieces of words at its ends; what is marked stays inside."""
    if start > 0 and not passage[start - 1].isspace():
        space = passage.find(" ", start, min(first, start + _WORD_REACH))
        start = space + 1 if space >= 0 else start
    if end < len(passage) and not passage[end].isspace():
        space = passage.rfind(" ", max(last, end - _WORD_REACH), end)
        end = space if space >= 0 else end
    return start, end
