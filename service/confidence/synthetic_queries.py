"""Texts like questions, for learning how a version answers: made of a collection's own documents, and foreign ones."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from service.core.domain import DocumentId

NOISE = 0.3
"""Share of words that another of the collection's stands for. Real questions say things otherwise than the documents:
without it the best BM25 scores of questions made of documents would be higher than those of real ones."""
SHORTEST, LONGEST = 7, 16
"""Words of a disturbed sentence."""
LEAST_WORDS = 4
"""Of a sentence that says something."""
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*|\n+")
_LONGEST_WORD = 20
"""Characters. A sentence whose words are longer on average is not written in words."""
_PIECE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """Something to ask. `source`: the document that it was made of, where that must not be found for it."""

    text: str
    source: DocumentId | None = None
    subject: str = ""


@cache
def foreign() -> tuple[Text, ...]:
    """Short texts over many subjects: ours, and part of the package."""
    found, subject = [], ""
    for line in files(__package__).joinpath("foreign_texts.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            subject = line.removeprefix("## ")
        elif line and not line.startswith("#"):
            found.append(Text(text=line, subject=subject))
    return tuple(found)


def sentences(text: str) -> list[str]:
    """Those that say something; the whole text where none does."""
    parts = [part.strip() for part in _SENTENCE_END.split(text)]
    whole = text.strip()
    return [part for part in parts if len(units(part)[0]) >= LEAST_WORDS] or ([whole] if whole else [])


def units(sentence: str) -> tuple[list[str], str]:
    """Its words and what stands between them; pairs of characters where it is not written in words."""
    words = sentence.split()
    if len(sentence) > _LONGEST_WORD * max(1, len(words)):
        return [sentence[at : at + _PIECE] for at in range(0, len(sentence), _PIECE)], ""
    return words, " "


def disturbed(texts: Sequence[str], chance: random.Random) -> Iterator[str]:
    """A run of words of each, some of them replaced by words of others."""
    vocabulary = [unit for text in texts for unit in units(text)[0]]
    for text in texts:
        own, between = units(text)
        length = min(len(own), chance.randint(SHORTEST, LONGEST))
        begin = chance.randrange(len(own) - length + 1)
        part = own[begin : begin + length]
        yield between.join(chance.choice(vocabulary) if chance.random() < NOISE else unit for unit in part)
