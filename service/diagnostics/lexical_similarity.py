"""Passages as their words alone: which are alike by them, and pieces that say which passage they are from.

What a space makes of a text should have to do with what the text says, and its words are the one thing that is known
of that without a judgment. Pure: no I/O.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from service.core.ids import Vectors
from service.core.text import text_units

PIECE = 10
"""Words of a piece: about as many as a question has."""
LEAST = 6
"""Words of a text that a piece can be taken of: half of them, for the whole would be no question but the text again."""
_TRIES = 4
"""Pieces of one text, of which the most telling one is taken."""
_PLACES = 4_096
"""That words are hashed to. Of the 100 different words of a passage, one or two share theirs with another."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPiece:
    """A run of words of the text of this number."""

    text: str
    source: int


def rows_of(texts: Sequence[str]) -> Vectors:
    """tf-idf with logarithmic counts, hashed: [n, 4096], rows of length 1, or 0 of a text without words.

    Salton and Buckley 1988, "Term-weighting approaches in automatic text retrieval"; hashed as by Weinberger et al.
    2009, "Feature hashing for large scale multitask learning".
    """
    return _rows([_words(text, text_units(text)[1]) for text in texts])


def pieces(texts: Sequence[str], most: int, seed: int = 0) -> list[TextPiece]:
    """Of each of the first texts one that by its words is nearer to this text than to any other; at most `most`.

    Boilerplate, which stands in many texts, belongs to none of them, and no embedder could say to which. Of a few
    random pieces the one is taken that is nearest to its text.
    """
    chance = random.Random(seed)  # noqa: S311  no secret
    borders = [text_units(text)[1] for text in texts]
    tried = [
        TextPiece(text=text, source=source)
        for source, whole in enumerate(texts[: 2 * most])
        for text in _tries(whole, chance)
    ]
    # A piece is read as the text is that it was cut from: alone it may be too short to tell how it is written.
    bags = [_words(text, between) for text, between in zip(texts, borders, strict=True)]
    rows = _rows([*bags, *(_words(one.text, borders[one.source]) for one in tried)])
    near = rows[len(texts) :] @ rows[: len(texts)].T
    sources = np.array([one.source for one in tried], np.intp)
    at = np.arange(len(tried))
    own = near[at, sources].copy()
    near[at, sources] = -1.0
    telling = own > near.max(axis=1, initial=0.0)
    best: dict[int, int] = {}
    for number in np.flatnonzero(telling).tolist():
        source = tried[number].source
        if source not in best or own[number] > own[best[source]]:
            best[source] = number
    return [tried[number] for number in best.values()][:most]


def _tries(text: str, chance: random.Random) -> list[str]:
    own, between = text_units(text)
    if len(own) < LEAST:
        return []
    length = min(PIECE, len(own) // 2)
    starts = (chance.randrange(len(own) - length + 1) for _ in range(_TRIES))
    return [between.join(own[start : start + length]) for start in starts]


def _words(text: str, between: str) -> list[str]:
    """In small letters; pairs of neighbouring characters where nothing stands between words."""
    small = text.lower()
    return _WORD.findall(small) if between else [small[at : at + 2] for at in range(len(small) - 1)]


def _rows(bags: Sequence[Sequence[str]]) -> Vectors:
    counted = [Counter(bag) for bag in bags]
    spread = Counter(word for bag in counted for word in bag)
    rows = np.zeros((len(bags), _PLACES), np.float32)
    for row, bag in zip(rows, counted, strict=True):
        for word, times in bag.items():
            row[crc32(word.encode()) % _PLACES] += (1.0 + np.log(times)) * np.log(len(bags) / spread[word])
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Vectors = np.divide(rows, lengths, out=rows, where=lengths > 0)
    return unit
