"""The analysis of texts for the lexical leg: the terms of a text in its language, and their places.

Documents, queries and highlights go through one analysis chain, so that indexed, searched and highlighted terms agree.
The chain is data, and its digest is the analyzer's version: an index made by another chain, another Tantivy or other
tables of Unicode is never searched (`lexicon.py`).

1. Words are runs of letters, digits and their combining signs; runs of a script that is written without spaces are cut
   into n-grams of characters instead, in whatever language: a text may mix both.
2. The spellings of a word are folded (`folding.py`), and those of one letter of the language (`languages.py`).
3. German compounds, and words of the Arabic script with a zero-width non-joiner, give the terms of their parts too.
4. Stemming and accents. Snowball stemmers read accents, so these are removed after the stemmer, except in English.

Stop words are indexed but not searched, unless the query has no other words: "to be or not to be".
"""

import hashlib
import json
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import astuple, replace
from functools import lru_cache
from importlib.metadata import version
from itertools import chain, compress
from typing import NamedTuple, TypeVar

import regex
import tantivy

from service.store.lexical.compounds import split_compound
from service.store.lexical.folding import fold, unify
from service.store.lexical.language_detection import detect_language, detector_version
from service.store.lexical.languages import AUTO, LANGUAGES, UNDETERMINED, Language
from service.store.lexical.tokenization import TOKENS, Match, all_words, has_run, places_of, words_and_runs, words_of
from service.store.lexical.word_parts import (
    LONGEST_WORD,
    Span,
    joined_words,
    part_sequences,
    run_grams,
    symbol_terms,
    symbols,
)

T = TypeVar("T")

_FORMAT = 6
"""Increased when this package makes other terms or other fields with the same chain."""

_VISIBLE = regex.compile(r"\X")

_JOINED = regex.compile(r"(?<=\p{Arabic}\p{M}*)\u200c+(?=\p{Arabic})")
"""Between the parts of a Persian or Urdu word, some of which are often written apart."""

_GRAMS = {"syllabic": (1, 2), "unspaced": (2, 3)}
"""Shortest and longest n-grams, in characters. A character of Thai or Khmer is a letter, one of Chinese a syllable."""

_LONGEST_TERM = 255
"""In bytes. Longer runs (base64, sequences) are not indexed; a SHA-512 in hexadecimal still is."""

_PART_WEIGHT = 0.5
"""Of the parts of a word, in queries, beside the word. On XQuAD de nDCG@10 is within .001 of its best from .3 to .7."""

_JOINED_WEIGHT = 0.5
"""Of a word without its signs, in queries, beside its parts."""

_CACHED_WORDS = 2**16
"""Words of a chain whose terms are cached: most texts use few words."""

_CACHED_QUERIES = 32  # each search reads its query several times

_TAG = "~"
"""In a collection of several languages a term names its language, so that no word matches a stem of another one."""


class Token(NamedTuple):
    """`text[start:end]`, in code points, and its term.

    `part`: of a longer n-gram that begins there. `weight`: in queries.
    """

    start: int
    end: int
    term: str
    part: bool = False
    weight: float = 1.0


class _WordCache(dict[str, T]):
    """What a function gives for each word. A look-up takes a third of that of `lru_cache`; a full cache is emptied."""

    def __init__(self, compute: Callable[[str], T]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, word: str) -> T:
        if len(self) >= _CACHED_WORDS:
            self.clear()
        value = self[word] = self._compute(word)
        return value


class LanguageAnalyzer:
    """The analysis chain of one language. `tag`: the prefix of its terms."""

    def __init__(self, code: str, language: Language, tag: str = "") -> None:
        self.code = code
        self.tag = tag
        self.stemmed = language.stemmer is not None
        self._language = language
        self._letters = str.maketrans(dict(zip(language.letters[::2], language.letters[1::2], strict=True)))
        self._stem = _stemming(language)
        self._stops = None if language.stop_words is None else _raw(tantivy.Filter.stopword(language.stop_words))
        self.terms_of_word = _WordCache(self._terms_of_word).__getitem__
        self.parts = _WordCache(self._parts).__getitem__
        self.terms_within = _WordCache(self._terms_within).__getitem__
        self.is_stop_word = _WordCache(self._is_stop_word).__getitem__
        self.query_tokens = lru_cache(_CACHED_QUERIES)(self._query_tokens)

    def tokens(
        self, text: str, *, stop_words: bool = True, within: bool = False, only: Set[str] | None = None
    ) -> Iterator[Token]:
        """In the order of the text, with or without stop words. `within`: also what is found within words (their parts,
        substrings of very long runs), words without their signs, and symbols. `only`: these terms alone."""
        for match in words_and_runs(text) if only is None else self._tokens_with(only, text):
            if match.lastgroup is not None:
                yield from _grams(match.group(), match.start(), *_GRAMS[match.lastgroup], only)
                continue
            word = match.group()
            terms = self.terms_of_word(word) if len(word) <= LONGEST_WORD else ()
            parts = self.parts(word) if within else ()
            start, end = match.span()
            if stop_words or not self.is_stop_word(word):
                for at, term in enumerate(terms):
                    if only is None or term in only:
                        yield Token(start, end, term, weight=_PART_WEIGHT if at else 1.0)
            for one in chain.from_iterable(parts):
                if only is None or one.term in only:
                    yield Token(start + one.start, start + one.end, one.term)
        for place, term in chain(self._joined(text), symbols(text), run_grams(text)) if within else ():
            if only is None or term in only:
                yield Token(*place, term)

    def _tokens_with(self, only: Set[str], text: str) -> Iterable[Match]:
        """Of the words those with such terms, in or within them: each different word is looked up once, and found in
        the text only if it has any. All runs of scripts without spaces."""
        if has_run(text):
            found = TOKENS.finditer(text)
            return (one for one in found if one.lastgroup or not only.isdisjoint(self.terms_within(one.group())))
        words = (word for word in set(all_words(text)) if not only.isdisjoint(self.terms_within(word)))
        return sorted(chain.from_iterable(places_of(word, text) for word in words), key=lambda match: match.start())

    def terms(self, text: str) -> list[str]:
        """Every term, in order."""
        return self._terms_of(text, None if has_run(text) else words_of(text))

    def _terms_of(self, text: str, words: list[str] | None) -> list[str]:
        """`words`: all that the text is made of, where it has no runs of scripts that are written without spaces."""
        if words is not None:
            return list(chain.from_iterable(map(self.terms_of_word, words)))
        terms: list[str] = []
        for match in TOKENS.finditer(text):
            if match.lastgroup is not None:
                terms += _gram_terms(match.group(), *_GRAMS[match.lastgroup])
            elif len(word := match.group()) <= LONGEST_WORD:
                terms += self.terms_of_word(word)
        return terms

    def sequences(self, text: str) -> list[list[str]]:
        """Every term of a document. Terms of a sequence follow each other: first those of its words, then the parts of
        each different word, each word without its signs, its symbols. So a phrase is found across or within words."""
        words = words_of(text)
        parts = (one for sequences in self._compounds_of(words).values() for one in sequences)
        joined = dict.fromkeys(term for _, term in self._joined(text))
        return [
            self._terms_of(text, None if has_run(text) else words),
            *parts,
            *([one] for one in joined),
            symbol_terms(text),
        ]

    def compounds(self, text: str) -> dict[str, list[list[str]]]:
        """The terms of words that are made of parts (`getUserById`), each with the sequences of its parts."""
        return self._compounds_of(words_of(text))

    def _compounds_of(self, words: list[str]) -> dict[str, list[list[str]]]:
        made_of_parts = dict.fromkeys(compress(words, map(self.parts, words)))
        return {
            terms[0]: [[part.term for part in one] for one in self.parts(word)]
            for word in made_of_parts
            if (terms := self.terms_of_word(word))
        }

    def _joined(self, text: str) -> Iterator[tuple[Span, str]]:
        for place, word in joined_words(text):
            yield from ((place, term) for term in self.terms_of_word(word)[:1])

    def _query_tokens(self, text: str) -> tuple[Token, ...]:
        """What is searched of a query: its stop words only where it has no other words."""
        joined = (Token(*place, term, weight=_JOINED_WEIGHT) for place, term in self._joined(text))
        return (*(tuple(self.tokens(text, stop_words=False)) or self.tokens(text)), *joined)

    def query_terms(self, text: str) -> dict[str, float]:
        """The terms to search, each with its weight: how often the query says it."""
        weights: dict[str, float] = defaultdict(float)
        for token in self.query_tokens(text):
            weights[token.term] += token.weight
        return dict(weights)

    def highlight_terms(self, text: str) -> frozenset[str]:
        """The terms that highlights of this query mark: the longest n-grams, for single characters are everywhere."""
        return frozenset(token.term for token in self.query_tokens(text) if not token.part).union(symbol_terms(text))

    def _terms_of_word(self, word: str) -> tuple[str, ...]:
        """Its term and those of its parts; none for a word without a term."""
        parts = _JOINED.split(word)
        if self._language.compounds:
            parts = [simple for part in parts for simple in split_compound(unify(part).lower())]
        words = [word, *parts] if len(parts) > 1 else [word]
        return tuple(term for one in words if (term := self._term(one)))

    def _term(self, word: str) -> str:
        """Empty where the word has no term."""
        folded = fold(word, self._letters)
        if len(folded.encode()) > _LONGEST_TERM:
            return ""
        (term,) = self._stem.analyze(folded) or ("",)
        # Numbers are the same in all languages.
        return term if not term or term.isdecimal() else f"{self.tag}{term}"

    def _parts(self, word: str) -> tuple[tuple[Token, ...], ...]:
        """Sequences of the parts of a word, with their places in it."""
        return tuple(
            tuple(Token(*place, terms[0]) for place in sequence if (terms := self.terms_of_word(word[slice(*place)])))
            for sequence in part_sequences(word)
        )

    def _terms_within(self, word: str) -> tuple[str, ...]:
        """Of a word that may be too long for one, and of its parts."""
        terms = self.terms_of_word(word) if len(word) <= LONGEST_WORD else ()
        return (*terms, *(part.term for part in chain.from_iterable(self.parts(word))))

    def _is_stop_word(self, word: str) -> bool:
        return self._stops is not None and not self._stops.analyze(unify(word).lower())


class Analyzer:
    """The analysis chains of a collection with this `language`."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.automatic = language == AUTO
        self.version = _digest(language)
        self._chains: dict[str, LanguageAnalyzer] = {}

    def language_of(self, text: str) -> str:
        """The language in which a document is analysed; see `detect_language` for one that is not certain."""
        return detect_language(text) if self.automatic else self.language

    def chain(self, code: str) -> LanguageAnalyzer:
        """The chain for documents of this language. Of one that is guessed (`und-de`), only compounds are regarded."""
        if code not in self._chains:
            certain, _, guess = code.partition("-")
            language = LANGUAGES.get(certain, UNDETERMINED)
            if guess:
                language = replace(language, compounds=LANGUAGES[guess].compounds)
            self._chains[code] = LanguageAnalyzer(code, language, f"{certain}{_TAG}" if self.automatic else "")
        return self._chains[code]


@lru_cache(maxsize=64)
def analyzer_for(language: str) -> Analyzer:
    return Analyzer(language)


def untagged(term: str) -> str:
    return term.rpartition(_TAG)[2]


def languages_of_term(term: str) -> tuple[str, ...] | None:
    """The languages whose documents can contain such a term of an `auto` collection; None: all."""
    code, tagged, _ = term.partition(_TAG)
    if tagged:
        return (code,)
    match = TOKENS.match(term)
    return None if match is None or match.lastgroup is None else _WRITTEN_IN[match.lastgroup]


_WRITTEN_IN = {"syllabic": ("ja", "ko", "zh"), "unspaced": ("km", "lo", "my", "th")}


def _grams(run: str, start: int, shortest: int, longest: int, only: Set[str] | None) -> Iterator[Token]:
    """N-grams by place, and from short to long, so that those of a phrase follow each other as in a document.

    Characters that were decomposed, and those without width, have the place of the visible character they belong to.
    """
    folded, places = _folded(run)
    for at in range(len(folded)):
        for size in range(min(shortest, len(folded)), min(longest, len(folded) - at) + 1):
            if only is None or folded[at : at + size] in only:
                part = size < min(longest, len(folded))
                yield Token(start + places[at][0], start + places[at + size - 1][1], folded[at : at + size], part)


def _gram_terms(run: str, shortest: int, longest: int) -> list[str]:
    """The terms of `_grams`."""
    folded, _ = _folded(run)
    length = len(folded)
    sizes = range(min(shortest, length), longest + 1)
    return [folded[at : at + size] for at in range(length) for size in sizes if at + size <= length]


def _folded(run: str) -> tuple[str, Sequence[Span]]:
    """A run with one spelling of each character, and the places of its characters in the run."""
    if run == fold(run, {}):
        return run, [(at, at + 1) for at in range(len(run))]
    visible = [(fold(found.group(), {}), found.span()) for found in _VISIBLE.finditer(run)]
    return "".join(one for one, _ in visible), [place for one, place in visible for _ in one]


def _raw(*filters: tantivy.Filter) -> tantivy.TextAnalyzer:
    """An analyzer of single words."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw())
    for one in filters:
        builder = builder.filter(one)
    return builder.build()


def _stemming(language: Language) -> tantivy.TextAnalyzer:
    stem = [] if language.stemmer is None else [tantivy.Filter.stemmer(language.stemmer)]
    fold = [] if language.folding == "none" else [tantivy.Filter.ascii_fold()]
    return _raw(*(fold + stem if language.folding == "latin_first" else stem + fold))


def _digest(language: str) -> str:
    """The version of an analyzer: language and digest of everything that decides its terms."""
    languages = LANGUAGES if language == AUTO else {language: LANGUAGES.get(language, UNDETERMINED)}
    made_of = [_FORMAT, unicodedata.unidata_version, _LONGEST_TERM, _GRAMS]
    made_of += map(version, ("tantivy", "regex", "simplemma"))
    made_of.append({code: astuple(one) for code, one in languages.items()})
    if language == AUTO:
        made_of.append(detector_version())
    return f"{language}-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:10]}"
