"""The words of a text and their places, and the runs of scripts that are written without spaces."""

import re
from collections.abc import Iterator
from typing import TypeAlias

import regex

from service.store.lexical.folding import IGNORABLE, SYLLABIC, UNSPACED
from service.store.lexical.word_parts import LONGEST_WORD

Match: TypeAlias = re.Match[str] | regex.Match[str]
"""Of a word or, with the name of its group, of a run: `syllabic` or `unspaced`."""

_SIGNS = r"[\u02b9-\u02bf\u20e3]"
"""Apostrophes that are letters by their category, for a word is cut at any apostrophe; the sign of keycaps (1️⃣)."""

_LETTER = rf"[\p{{L}}\p{{N}}]--{_SIGNS}"
_IN_WORD = rf"[\p{{L}}\p{{N}}\p{{M}}{IGNORABLE}]--{_SIGNS}"
TOKENS = regex.compile(
    rf"(?V1)(?P<syllabic>[{SYLLABIC}][{SYLLABIC}{IGNORABLE}]*)|(?P<unspaced>[{UNSPACED}][[{UNSPACED}]{IGNORABLE}]*)"
    rf"|[[{_LETTER}]--[{SYLLABIC}[{UNSPACED}]]][[{_IN_WORD}]--[{SYLLABIC}[{UNSPACED}]]]*"
)
# For texts without such runs, and for ASCII texts: two and four times as fast.
_MAYBE_RUN = re.compile("[\u0e00-\u1fff\u2e80-\U0010ffff]")
_RUN = regex.compile(rf"(?V1)[{SYLLABIC}[{UNSPACED}]]")
_WORD = rf"[{_LETTER}][{_IN_WORD}]*"
_WORDS = regex.compile(f"(?V1){_WORD}")
_ASCII_WORDS = re.compile(r"[^\W_]+")
_ASCII_BORDERS = {at: " " for at in range(128) if not chr(at).isalnum()}
# The same at a given place, which may be within a word.
_WHOLE_WORD = regex.compile(rf"(?V1)(?<![{_LETTER}][[{_IN_WORD}]--[{_LETTER}]]*){_WORD}")
_WHOLE_ASCII_WORD = re.compile(r"(?<![^\W_])[^\W_]+")


def words_and_runs(text: str) -> Iterator[Match]:
    return (_ASCII_WORDS if text.isascii() else TOKENS).finditer(text)


def all_words(text: str) -> list[str]:
    """Of a text without runs. In ASCII as `_ASCII_WORDS` finds them, in a third of the time."""
    return text.translate(_ASCII_BORDERS).split() if text.isascii() else _WORDS.findall(text)


def places_of(word: str, text: str) -> Iterator[Match]:
    """Where it stands as a whole word of a text without runs."""
    whole = _WHOLE_ASCII_WORD if text.isascii() else _WHOLE_WORD
    at = text.find(word)
    while at >= 0:
        match, at = whole.match(text, at), at + len(word)
        if match is not None and match.end() == at:
            yield match
        at = text.find(word, at)


def has_run(text: str) -> bool:
    return not text.isascii() and _MAYBE_RUN.search(text) is not None and _RUN.search(text) is not None


def words_of(text: str) -> list[str]:
    """Without runs of scripts that are written without spaces, and without runs that are too long for a word."""
    if has_run(text):
        found = [match.group() for match in TOKENS.finditer(text) if match.lastgroup is None]
    else:
        found = all_words(text)
    longest = max(map(len, found), default=0)
    return found if longest <= LONGEST_WORD else [one for one in found if len(one) <= LONGEST_WORD]
