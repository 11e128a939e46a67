"""Texts as bags of words: which texts are alike by their words, and excerpts that identify the text they are from.

Vectors should reflect the content of texts, and words are all that is known of it without relevance judgments. Pure.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from zlib import crc32

import numpy as np

from service.core.ids import Vectors
from service.core.text import simple_words, text_units
from service.core.vector_math import unit_rows

EXCERPT_WORDS = 10
"""About as many as a query has."""
MIN_WORDS = 6
"""Of a text that an excerpt can be taken of. An excerpt has at most half of them, since the whole would be no query."""
_TRIES = 4
"""Excerpts of one text, of which the most similar one is taken."""
_DIMENSIONS = 4_096
"""That words are hashed to. Of the 100 different words of a passage, one or two share theirs with another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """A run of words of the text of this number."""

    text: str
    source: int


def tfidf_vectors(texts: Sequence[str]) -> Vectors:
    """tf-idf with logarithmic counts, hashed: [n, 4096], rows of length 1, or 0 for a text without words.

    Salton and Buckley 1988, "Term-weighting approaches in automatic text retrieval"; hashed as by Weinberger et al.
    2009, "Feature hashing for large scale multitask learning". Not scikit-learn's: there a word that is in all texts
    keeps a weight, and boilerplate would count.
    """
    return _tfidf([simple_words(text, text_units(text)[1]) for text in texts])


def sample_excerpts(texts: Sequence[str], most: int, seed: int = 0) -> list[Excerpt]:
    """At most `most` excerpts, each of another text, and each by its words nearer to its text than to any other text.

    Boilerplate, which is in many texts, identifies none of them, and no embedder could tell which it is from. Of a few
    random excerpts the one is taken that is most similar to its text.
    """
    chance = random.Random(seed)  # noqa: S311  no secret
    separators = [text_units(text)[1] for text in texts]
    excerpts = [
        Excerpt(text=text, source=source)
        for source, whole in enumerate(texts[: 2 * most])
        for text in _random_excerpts(whole, chance)
    ]
    # An excerpt is split as its text is: alone it may be too short to tell its script.
    bags = [simple_words(text, separator) for text, separator in zip(texts, separators, strict=True)]
    rows = _tfidf([*bags, *(simple_words(one.text, separators[one.source]) for one in excerpts)])
    similarity = rows[len(texts) :] @ rows[: len(texts)].T
    at, sources = np.arange(len(excerpts)), np.array([one.source for one in excerpts], np.intp)
    own = similarity[at, sources].copy()
    similarity[at, sources] = -1.0
    identifying = np.flatnonzero(own > similarity.max(axis=1, initial=0.0)).tolist()
    of_texts = groupby(identifying, key=lambda number: excerpts[number].source)
    return [excerpts[max(numbers, key=own.__getitem__)] for _, numbers in of_texts][:most]


def _random_excerpts(text: str, chance: random.Random) -> list[str]:
    words, separator = text_units(text)
    if len(words) < MIN_WORDS:
        return []
    length = min(EXCERPT_WORDS, len(words) // 2)
    starts = (chance.randrange(len(words) - length + 1) for _ in range(_TRIES))
    return [separator.join(words[start : start + length]) for start in starts]


def _tfidf(bags: Sequence[Sequence[str]]) -> Vectors:
    counters = [Counter(bag) for bag in bags]
    frequencies = Counter(word for counter in counters for word in counter)
    rows = np.zeros((len(bags), _DIMENSIONS), np.float32)
    for row, counter in zip(rows, counters, strict=True):
        for word, count in counter.items():
            row[crc32(word.encode()) % _DIMENSIONS] += (1.0 + np.log(count)) * np.log(len(bags) / frequencies[word])
    return unit_rows(rows)
