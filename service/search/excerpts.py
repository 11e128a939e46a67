"""The part of a passage that a cross-encoder reads to judge whether the whole passage is worth reading. Pure."""

import math
import re
from collections import Counter
from collections.abc import Set as AbstractSet

from service.core.text import sentence_starts

EXCERPT_LENGTH = 180
"""Code points: about 40 tokens of English, a fifth of a passage."""
TITLE_SHARE = 1 / 3
"""Of an excerpt, which the first line may take: it mostly is the title."""
_STEM = 6
"""Letters by which words are compared: `treatment` stands for `treated`."""
_WORD = re.compile(r"\w+")


def terms(text: str) -> frozenset[str]:
    """The words of a query as passages are searched for them."""
    return frozenset(word[:_STEM] for word in _WORD.findall(text.casefold()))


def excerpt(query: AbstractSet[str], text: str) -> str:
    """The sentences of a passage with the most `terms` of a query, in their order, after the first line.

    A term counts log(1 + n / m) where m of the n sentences have it, so that common words hardly count. Of the last
    sentence chosen a part is taken, from about its first term on. Where no sentence has a term it is the beginning. A
    short passage is returned as it is.
    """
    if len(text) <= EXCERPT_LENGTH:
        return text
    head = text.find("\n") + 1
    kept = [(0, min(head, int(TITLE_SHARE * EXCERPT_LENGTH)))]
    left = EXCERPT_LENGTH - kept[0][1]
    starts = [head, *(start for start in sentence_starts(text) if start > head)]
    spans = list(zip(starts, [*starts[1:], len(text)], strict=True))
    found = [_first_places(query, text[start:end]) for start, end in spans]
    frequency = Counter(term for one in found for term in one)
    gains = [sum(math.log(1 + len(spans) / frequency[term]) for term in one) for one in found]
    for at in sorted(range(len(spans)), key=lambda at: -gains[at]):
        start, end = spans[at]
        if end - start > left:
            start = max(start, min(start + min(found[at].values(), default=0) - left // 8, end - left))
            end = start + left
        kept.append((start, end))
        left -= end - start
        if not left:
            break
    return "\n".join(filter(None, (text[start:end].strip() for start, end in sorted(kept))))


def _first_places(query: AbstractSet[str], sentence: str) -> dict[str, int]:
    """Where each term of a query that a sentence has comes first."""
    places: dict[str, int] = {}
    for word in _WORD.finditer(sentence.casefold()):
        if (term := word.group()[:_STEM]) in query:
            places.setdefault(term, word.start())
    return places
