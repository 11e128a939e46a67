"""What a text is to the lexical leg: the terms that its language makes of it, and where in the text each stands.

Documents, queries and highlights go through one chain, so what was indexed is what is looked up and what is marked. The
chain is data, and its digest is the analyzer's version: an index made by another chain, by another Tantivy or with
other tables of Unicode is never searched (`lexical.py`).

1. Words are runs of letters, digits and their combining signs; runs of a script that is written without spaces are cut
   into n-grams of characters instead, in whatever language: a text may mix both.
2. A word is brought to NFKC and folded in case; the spellings of its language are brought together (`languages.py`).
3. Stemmer and accents. Snowball stemmers read accents, so these are folded after the stemmer, except in English.

Stop words are indexed but not looked for, unless there is nothing else: "to be or not to be" is a query too.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple
from functools import lru_cache
from importlib.metadata import version
from typing import NamedTuple

import regex
import tantivy

from service.store.lexical.language_detection import detected, detector
from service.store.lexical.languages import AUTO, LANGUAGES, UNDETERMINED, Language

_FORMAT = 2
"""Raised when this file makes other terms of the same chain."""

_SYLLABIC = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}ー々〆"
_UNSPACED = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_INVISIBLE = "\u00ad\u200c\u200d"
"""Soft hyphens and joiners stand inside words and are no part of them."""

_TOKENS = regex.compile(
    rf"(?V1)(?P<syllabic>[{_SYLLABIC}]+)|(?P<unspaced>[{_UNSPACED}]+)"
    rf"|[[\p{{L}}\p{{N}}]--[{_SYLLABIC}{_UNSPACED}]][[\p{{L}}\p{{N}}\p{{M}}{_INVISIBLE}]--[{_SYLLABIC}{_UNSPACED}]]*"
)
# The same where there are no such runs, and where all is ASCII: two and four times as fast.
_RUN = regex.compile(rf"[{_SYLLABIC}{_UNSPACED}]")
_WORDS = regex.compile(rf"[\p{{L}}\p{{N}}][\p{{L}}\p{{N}}\p{{M}}{_INVISIBLE}]*")
_ASCII_WORDS = re.compile(r"[^\W_]+")
_GRAMS = {"syllabic": (1, 2), "unspaced": (2, 3)}
"""Shortest and longest n-grams, in characters. A character of Thai or Khmer is a letter, one of Chinese a syllable."""

_LONGEST_TERM = 255
"""Bytes. Longer runs (base64, sequences) are not indexed; a SHA-512 in hexadecimal still is."""

_REMEMBERED = 2**16
"""Words of a chain whose terms are kept in memory: most of what is said is said with few words."""

_TAG = "~"
"""In a collection of several languages a term names its own, so that no word meets a stem of another language."""


class Token(NamedTuple):
    """`text[start:end]`, in code points, and the term that it became. `part`: of a longer n-gram that begins there."""

    start: int
    end: int
    term: str
    part: bool = False


class LanguageAnalyzer:
    """The terms of one language. `tag`: what they begin with."""

    def __init__(self, code: str, language: Language, tag: str = "") -> None:
        self.code = code
        self.tag = tag
        self._language = language
        self._letters = str.maketrans(dict(zip(language.letters[::2], language.letters[1::2], strict=True)))
        self._stem = _stemming(language)
        self._stops = None if language.stop_words is None else _raw(tantivy.Filter.stopword(language.stop_words))
        self.term = lru_cache(_REMEMBERED)(self._term)
        self.says_nothing = lru_cache(_REMEMBERED)(self._says_nothing)

    def tokens(self, text: str, *, looked_for: bool = False) -> Iterator[Token]:
        """In the order of the text. `looked_for`: without stop words."""
        for match in _TOKENS.finditer(text):
            start, end = match.span()
            if match.lastgroup is None:
                word = match.group()
                if not (looked_for and self.says_nothing(word)) and (term := self.term(word)):
                    yield Token(start, end, term)
            else:
                yield from _grams(match.group(), start, *_GRAMS[match.lastgroup])

    def terms(self, text: str) -> list[str]:
        """Every term, in order."""
        if _RUN.search(text):
            return [token.term for token in self.tokens(text)]
        words: list[str] = (_ASCII_WORDS if text.isascii() else _WORDS).findall(text)
        return [term for word in words if (term := self.term(word))]

    def query_terms(self, text: str) -> Counter[str]:
        """The terms to look for and how often the query says each."""
        return Counter(token.term for token in self.tokens(text, looked_for=True)) or Counter(self.terms(text))

    def marked_terms(self, text: str) -> frozenset[str]:
        """What a highlight of this query marks: of n-grams the longest, for single characters are everywhere."""
        tokens = list(self.tokens(text, looked_for=True)) or list(self.tokens(text))
        return frozenset(token.term for token in tokens if not token.part)

    def _term(self, word: str) -> str:
        """Empty where the word is none."""
        folded = unicodedata.normalize("NFKC", word.translate(self._letters)).casefold()
        folded = unicodedata.normalize("NFC", "".join(c for c in folded if c not in _INVISIBLE and not c.isspace()))
        if self._language.folding == "points":
            folded = "".join(c for c in folded if unicodedata.category(c) != "Mn")
        if len(folded.encode()) > _LONGEST_TERM:
            return ""
        (term,) = self._stem.analyze(folded) or ("",)
        # Numbers are the same in all languages.
        return term if not term or term.isdecimal() else f"{self.tag}{term}"

    def _says_nothing(self, word: str) -> bool:
        return self._stops is not None and not self._stops.analyze(unicodedata.normalize("NFC", word.lower()))


class Analyzer:
    """The terms of documents and queries in a collection whose `language` is this."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.automatic = language == AUTO
        self.version = _digest(language)
        self._chains: dict[str, LanguageAnalyzer] = {}

    def language_of(self, text: str) -> str:
        """The language that a document is analysed in; `languages.UNKNOWN` where it cannot be told."""
        return detected(text) if self.automatic else self.language

    def chain(self, code: str) -> LanguageAnalyzer:
        """What analyses documents of this language."""
        if code not in self._chains:
            language = LANGUAGES.get(code, UNDETERMINED)
            self._chains[code] = LanguageAnalyzer(code, language, f"{code}{_TAG}" if self.automatic else "")
        return self._chains[code]


@lru_cache(maxsize=64)
def analyzer_for(language: str) -> Analyzer:
    return Analyzer(language)


def population(term: str) -> tuple[str, ...] | None:
    """The languages in whose documents such a term of an `auto` collection can stand; None: in all."""
    code, tagged, _ = term.partition(_TAG)
    if tagged:
        return (code,)
    match = _TOKENS.match(term)
    return None if match is None or match.lastgroup is None else _WRITTEN_IN[match.lastgroup]


_WRITTEN_IN = {"syllabic": ("ja", "ko", "zh"), "unspaced": ("km", "lo", "my", "th")}


def _grams(run: str, start: int, shortest: int, longest: int) -> Iterator[Token]:
    """N-grams by place, and from short to long: so those of a phrase follow each other as they do in a document.

    A run of decomposed characters is composed first; its terms stand for the whole of it then.
    """
    composed = unicodedata.normalize("NFKC", run)
    composed = "".join(c for c in composed if not c.isspace())
    same, length = composed == run, len(composed)
    for at in range(length):
        for size in range(min(shortest, length), longest + 1):
            if at + size <= length:
                part = size < min(longest, length)
                first, last = (start + at, start + at + size) if same else (start, start + len(run))
                yield Token(first, last, composed[at : at + size], part)


def _raw(*filters: tantivy.Filter) -> tantivy.TextAnalyzer:
    """One that is given single words."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw())
    for one in filters:
        builder = builder.filter(one)
    return builder.build()


def _stemming(language: Language) -> tantivy.TextAnalyzer:
    stem = [] if language.stemmer is None else [tantivy.Filter.stemmer(language.stemmer)]
    fold = [] if language.folding == "none" else [tantivy.Filter.ascii_fold()]
    return _raw(*(fold + stem if language.folding == "latin_first" else stem + fold))


def _digest(language: str) -> str:
    """Names what terms are made of: another name, another index."""
    languages = LANGUAGES if language == AUTO else {language: LANGUAGES.get(language, UNDETERMINED)}
    made_of = [_FORMAT, version("tantivy"), version("regex"), unicodedata.unidata_version, _LONGEST_TERM, _GRAMS]
    made_of.append({code: astuple(one) for code, one in languages.items()})
    if language == AUTO:
        made_of.append(detector())
    return f"{language}-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:10]}"
