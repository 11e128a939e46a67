"""The parts of German compounds: `krankenversicherung` is also found by `versicherung`.

A word is split where both sides are nouns of simplemma's dictionary (MIT, offline; 1.1 million forms, 20 MB of
memory, 9 µs a look-up). The left side may be joined by an s, or have lost its final e (Schul|bus).
"""

from collections.abc import Mapping
from functools import lru_cache

_SHORTEST, _LONGEST = 8, 64
"""Letters of a word that is split."""

_SHORTEST_PART = 4
_SHORT_HEADS = frozenset(["amt", "bad", "bau", "bus", "hof", "rad", "see", "tag", "tor", "tür", "uhr", "weg", "zug"])
_NO_MODIFIERS = frozenset(["durch", "gegen", "hinter", "nach", "nieder", "ober", "über", "unter", "wider", "wieder"])
_NO_HEADS = frozenset(["ende", "enden", "native", "nisse", "nissen", "schaft", "schaften"])


def split_compound(word: str) -> list[str]:
    """The simple words of a compound in lower case; the word alone where it is none."""
    if not _SHORTEST <= len(word) <= _LONGEST:
        return [word]
    for at in range(_SHORTEST_PART, len(word) - 2):
        # In Arbeit|stag and Arbeits|tag the s more often joins than begins.
        joined = at + 1 if word[at] == "s" and _splits(word, at + 1) else at
        if _splits(word, joined):
            left = word[:joined] if _is_noun(word[:joined]) else word[:joined].removesuffix("s")
            return [*split_compound(left), *split_compound(word[joined:])]
    return [word]


def _splits(word: str, at: int) -> bool:
    left, right = word[:at], word[at:]
    if len(right) < _SHORTEST_PART and right not in _SHORT_HEADS:
        return False
    if right in _NO_HEADS or left.removesuffix("s") in _NO_MODIFIERS or not _is_noun(right):
        return False
    return any(map(_is_noun, (left, left.removesuffix("s"), f"{left}e", f"{left}en")))


@lru_cache(2**16)
def _is_noun(word: str) -> bool:
    return len(word) > 2 and word.capitalize() in _dictionary()


@lru_cache(maxsize=1)
def _dictionary() -> Mapping[str, str]:
    """Imported and loaded on first use: half a second of processor time."""
    from simplemma.strategies.dictionaries import StreamDictionaryFactory

    return StreamDictionaryFactory().get_dictionary("de")
