"""Highlights of a passage: every match, and the fragment with the most and rarest of the query's terms."""

import html
import re
from bisect import bisect_left
from collections.abc import Sequence

import regex

from service.core.query_syntax import Highlights
from service.store.lexical.term_weights import TermWeights

FRAGMENT_LENGTH = 200
"""Longest fragment, in characters."""

_VERBATIM_WEIGHT = 100.0
"""Of an identifier of the query: more than any words together, whose weights are idf."""
_APART_WEIGHT = 5.0
"""Of the parts of a word in their order, about an idf."""

_WORD_REACH = 30
"""A fragment begins and ends between words, where there is a boundary within so many characters."""

_ESCAPED = re.compile("[&<>\"'\ud800-\udfff]")

Span = tuple[int, int]
"""[start, end) in code points of the passage."""


def highlighted(
    passage: str, weights: TermWeights, verbatim: Sequence[str] = (), apart: Sequence["regex.Pattern[str]"] = ()
) -> Highlights:
    """`verbatim`: identifiers, each marked as one where it stands as it is. `apart`: words whose parts may be written
    apart."""
    matches: dict[Span, tuple[float, str]] = {}
    synonyms: dict[str, None] = {}
    for chain in weights.chains:
        tokens = list(chain.tokens(passage, within=True, only=weights.searched(chain)))
        weight_of = weights.weigh(chain, {token.term for token in tokens})
        for token in tokens:
            if token.term in weight_of:
                span = (token.start, token.end)
                matches[span] = max(matches.get(span, (0.0, "")), (weight_of[token.term], token.term))
                if token.term in weights.synonyms.get(chain.code, ()):
                    synonyms[passage[token.start : token.end]] = None
    for pattern in apart:
        for found in pattern.finditer(passage):
            matches.setdefault(found.span(), (_APART_WEIGHT, pattern.pattern))
    for identifier in verbatim:
        for found in re.finditer(rf"(?<!\w){re.escape(identifier)}(?!\w)", passage, re.IGNORECASE):
            matches[found.span()] = (_VERBATIM_WEIGHT, identifier)
    if not matches:
        return Highlights()
    spans = merge_overlapping(sorted(matches))
    start, end = _best_window(passage, matches)
    inside = [(max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and b > start]
    return Highlights(fragments=(as_html(passage[start:end], inside),), spans=tuple(spans), synonyms=tuple(synonyms))


def merge_overlapping(spans: Sequence[Span]) -> list[Span]:
    """Overlapping and touching spans become one, for n-grams overlap. `spans` are sorted."""
    merged: list[Span] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def as_html(fragment: str, spans: Sequence[Span]) -> str:
    """Matches in <mark>, all else escaped. A lone surrogate, which no encoding can represent, becomes "?"."""
    marked, done = "", 0
    for start, end in spans:
        marked += f"{_escaped(fragment[done:start])}<mark>{_escaped(fragment[start:end])}</mark>"
        done = end
    return marked + _escaped(fragment[done:])


def _escaped(text: str) -> str:
    if _ESCAPED.search(text) is None:
        return text  # as most
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))


def _best_window(passage: str, matches: dict[Span, tuple[float, str]]) -> Span:
    """The window with the highest sum of weights of different terms; of equals the first. It begins at a match, with
    some context before it."""
    places = sorted(matches)
    starts = [start for start, _ in places]
    scored = [(matches[place][1], matches[place][0]) for place in places]

    def value(first: int) -> float:
        end = starts[first] + FRAGMENT_LENGTH
        last = bisect_left(starts, end)
        inside = scored[first:last]
        if any(over > end for _, over in places[first:last]):
            inside = [one for one, (_, over) in zip(inside, places[first:last], strict=True) if over <= end]
        return sum(dict(inside).values())

    values = list(map(value, range(len(places))))
    first = values.index(max(values))
    ends = [end for start, end in places[first:] if end - starts[first] <= FRAGMENT_LENGTH]
    last = max(ends, default=starts[first] + FRAGMENT_LENGTH)
    context = (FRAGMENT_LENGTH - (last - starts[first])) // 2
    start = max(0, starts[first] - context)
    end = min(len(passage), start + FRAGMENT_LENGTH)
    return _trimmed_to_words(passage, max(0, end - FRAGMENT_LENGTH), end, starts[first], last)


def _trimmed_to_words(passage: str, start: int, end: int, first: int, last: int) -> Span:
    """The same window without parts of words at its ends; the matches stay inside."""
    if start > 0 and not passage[start - 1].isspace():
        space = passage.find(" ", start, min(first, start + _WORD_REACH))
        start = space + 1 if space >= 0 else start
    if end < len(passage) and not passage[end].isspace():
        space = passage.rfind(" ", max(last, end - _WORD_REACH), end)
        end = space if space >= 0 else end
    return start, end
