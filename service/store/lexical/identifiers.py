"""Identifiers in a text: version numbers, addresses, error codes, part numbers, paths, `C++` and the like.

The analyzer cuts `1.2.3` into the words 1, 2 and 3, and `C++` into c. An identifier is therefore indexed once more as a
whole, in a field of its own, so that a query can tell `1.2.3` from `1.3.2` and C from C++.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import regex

from service.store.lexical.folding import SYLLABIC, UNSPACED, unify

_JOINERS = re.escape(".-/:_+#@\\=&?~%*$€£")
# Runs without spaces; a comma only within a number.
_RUN = re.compile(rf"[\w{_JOINERS}]+(?:(?<=\d),(?=\d)[\w{_JOINERS}]+)*")
_WITHOUT_SPACES = regex.compile(f"(?V1)[{SYLLABIC}[{UNSPACED}]]+")
_LEADING = re.compile(r"^(?:[^\w.]|\.(?![^\W\d_])|\.(?=\.))*(?:(?<=\.)\.)?")
_TRAILING = re.compile(r"[^\w+#]+$")
_SIGNED = re.compile(r"^(?:\.[^\W\d_]+|[^\W\d_]{1,3}(?:\+{1,2}|#))$")
"""`.NET`, `C++`, `C#`: the sign belongs to the name."""
_DIGITS = re.compile(r"\d")
_TELLING_JOINER = re.compile(r"(?<=\w)[._/:@\\=&~%](?=\w)|\w::\w")
_INNER_JOINER = re.compile(rf"(?<=\w)[{_JOINERS},](?=[\w{_JOINERS}])")
_MIXED_CASE = regex.compile(r"[\p{L}\p{Nd}]*(?:\p{Ll}\p{Lu}|\p{Lu}{2}(?!s(?!\p{Ll}))\p{Ll})[\p{L}\p{Nd}]*")
"""`getUserById`, `HTTPServer`: capitals within the word."""
_HYPHENATED = re.compile(r"^[^\W_]+(?:-[^\W_]+){2,}$")
_VERSION = re.compile(r"v\d")
_LONGEST = 200
"""Characters. Longer runs (base64, tracking links) are not indexed as a whole."""
QUERY_LIMIT = 64
"""Identifiers of one query that are searched, the first ones; each costs a term query and a phrase query."""
_BARE = re.compile(r"^[A-Z]{1,4}$")
_LETTER = re.compile(r"^[B-HJ-Z]$")
_NUMBER = re.compile(r"(?<![\w.])[+(]?\d(?:[\d]|[- /()]{1,2}(?=\d))*(?!\w)")
_OPTION = re.compile(r"-(?:(?<=[^\s-] -)|(?<=[`\"'(\[]-))-?([^\W\d_]\w*(?:-\w+)*)")
_LEAST_DIGITS, _MOST_DIGITS = 7, 20
_MAYBE_LONG_NUMBER = re.compile(rf"\d(?:[- /()]{{0,2}}\d){{{_LEAST_DIGITS - 1}}}")
_CACHED_RUNS = 2**16
"""Of a long number (telephone, ISBN, account), which is also indexed as its digits alone, however it is grouped."""


class Identifier(NamedTuple):
    """`form`: as it is indexed, folded in case unless capitals tell it apart. `text`: as it stands in the text."""

    form: str
    text: str


def identifiers(text: str) -> Iterator[Identifier]:
    """Every identifier of a text, in order, and short words in capitals, as the counterpart of `C++` and `.NET`.

    A word that is only hyphenated is none (`anti-inflammatory`), unless twice and more (`get-user-by-id`).
    """
    runs = _RUN.findall(text)
    if max(map(len, runs), default=0) > _LONGEST:  # asked first: stripping a long run of signs takes quadratic time
        runs = [run for run in runs if len(run) <= _LONGEST]
    return chain.from_iterable(map(_identifiers_of, runs))


@lru_cache(_CACHED_RUNS)
def _identifiers_of(run: str) -> tuple[Identifier, ...]:
    """Cached: nearly all runs are words that come again and again."""
    if len(run) > 1 and run.isalpha() and (run.islower() or run.istitle()):
        return ()  # as most words are
    run = _TRAILING.sub("", _LEADING.sub("", run, count=1))
    if run.endswith(("+", "#")) and not _SIGNED.match(run):
        run = run.rstrip("+#")
    found: list[Identifier] = []
    joined = bool(_INNER_JOINER.search(run)) and bool(_DIGITS.search(run) or _TELLING_JOINER.search(run))
    if joined or _HYPHENATED.match(run) or _SIGNED.match(run) or _BARE.match(run):
        form = run.casefold()
        found.append(Identifier(form, run))
        if _VERSION.match(form):
            found.append(Identifier(form[1:], run[1:]))
    # As it is written, so that getUserByID is told from getUserById.
    if not (run.islower() or run.isupper()):
        found += (Identifier(word, word) for word in _MIXED_CASE.findall(run))
    return tuple(found)


def long_numbers(text: str) -> Iterator[Identifier]:
    """Numbers of many digits, with or without separators; the form is `#` and the digits."""
    if not _MAYBE_LONG_NUMBER.search(text):
        return
    for match in _NUMBER.finditer(text):
        digits = "".join(sign for sign in match.group() if sign.isdecimal())
        if _LEAST_DIGITS <= len(digits) <= _MOST_DIGITS:
            yield Identifier(f"#{digits}", match.group())


def options(text: str) -> Iterator[Identifier]:
    """Words with a hyphen before them, as in `java -jar` (form `-jar`). The items of a list are none."""
    for match in _OPTION.finditer(text):
        yield Identifier(f"-{match[1]}".casefold(), match[1])


def _spaced(text: str) -> str:
    """Full-width signs and digits of any script are ASCII; words of a script without spaces belong to no identifier."""
    return text if text.isascii() else str(_WITHOUT_SPACES.sub(" ", unify(text)))


def index_terms(text: str) -> list[str]:
    """The identifiers of a document as terms of the index."""
    text = _spaced(text)
    found = (*identifiers(text), *long_numbers(text), *options(text))
    return [one.form for one in found if len(one.form) <= _LONGEST]


def query_identifiers(text: str) -> list[Identifier]:
    """The identifiers of a query. A short word in capitals is one only as a single letter or as nearly all of it."""
    text = _spaced(text)
    bare = _BARE if len(text.split()) <= 2 else _LETTER
    found = [one for one in identifiers(text) if bare.match(one.text) or not _BARE.match(one.text)]
    return list(dict.fromkeys((*found, *long_numbers(text), *options(text))))[:QUERY_LIMIT]
