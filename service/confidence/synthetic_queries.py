"""Texts like questions, for learning how a version answers: made of a collection's own documents, and foreign ones."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from service.core.ids import DocumentId
from service.core.text import text_units

NOISE = 0.3
"""Share of words that another of the collection's stands for. Real questions say things otherwise than the documents:
without it the best BM25 scores of questions made of documents would be higher than those of real ones."""
SHORTEST, LONGEST = 7, 16
"""Words of a disturbed sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticQuery:
    """Something to ask. `source`: the document that it was made of, where that must not be found for it."""

    text: str
    source: DocumentId | None = None
    subject: str = ""


@cache
def foreign() -> tuple[SyntheticQuery, ...]:
    """Short texts over many subjects: ours, and part of the package."""
    found, subject = [], ""
    for line in files(__package__).joinpath("foreign_texts.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            subject = line.removeprefix("## ")
        elif line and not line.startswith("#"):
            found.append(SyntheticQuery(text=line, subject=subject))
    return tuple(found)


def disturbed(texts: Sequence[str], chance: random.Random) -> Iterator[str]:
    """A run of words of each, some of them replaced by words of others."""
    vocabulary = [unit for text in texts for unit in text_units(text)[0]]
    for text in texts:
        own, between = text_units(text)
        length = min(len(own), chance.randint(SHORTEST, LONGEST))
        begin = chance.randrange(len(own) - length + 1)
        part = own[begin : begin + length]
        yield between.join(chance.choice(vocabulary) if chance.random() < NOISE else unit for unit in part)
