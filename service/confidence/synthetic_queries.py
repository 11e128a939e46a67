"""Texts like queries, to calibrate a version with: made of a collection's own documents, and foreign ones."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from service.core.ids import DocumentId
from service.core.text import text_units

REPLACED_SHARE = 0.3
"""Share of words that are replaced by others of the collection. Real queries use other words than the documents:
without this, queries made of documents would have higher BM25 scores than real ones."""
MIN_LENGTH, MAX_LENGTH = 7, 16
"""Words of a perturbed sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticQuery:
    """`source`: the document that it was made of, where that must not count as a hit for it."""

    text: str
    source: DocumentId | None = None
    subject: str = ""


@cache
def foreign_texts() -> tuple[SyntheticQuery, ...]:
    """Short out-of-domain texts about many subjects, which are part of the package."""
    found, subject = [], ""
    for line in files(__package__).joinpath("foreign_texts.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            subject = line.removeprefix("## ")
        elif line and not line.startswith("#"):
            found.append(SyntheticQuery(text=line, subject=subject))
    return tuple(found)


def perturbed_sentences(texts: Sequence[str], chance: random.Random) -> Iterator[str]:
    """A run of words of each text, some of them replaced by words of other texts."""
    vocabulary = [unit for text in texts for unit in text_units(text)[0]]
    for text in texts:
        units, separator = text_units(text)
        length = min(len(units), chance.randint(MIN_LENGTH, MAX_LENGTH))
        start = chance.randrange(len(units) - length + 1)
        part = units[start : start + length]
        yield separator.join(chance.choice(vocabulary) if chance.random() < REPLACED_SHARE else unit for unit in part)
