"""What a text is to the lexical leg: the terms that its language makes of it.

Documents and queries go through one chain, so what was indexed is what is looked up. The chain is data, and its digest
is the analyzer's version: an index made by another chain, or by another Tantivy, is never searched (`lexical.py`).

Order matters. Stop words are recognised before stemming and folding change them. Snowball stemmers read accents, so
accents are folded after the stemmer, except in English, where they come only with loan words and the stemmer would
trip over them (resumés, resumes). Measured in docs/lexical.md.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from functools import lru_cache
from importlib.metadata import version

import tantivy

Step = tuple[str, ...]
"""A name of Tantivy's `Tokenizer` or `Filter` constructors and its argument."""

_STEMMED = {
    "ar": "arabic", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish", "fi": "finnish",
    "fr": "french", "hu": "hungarian", "it": "italian", "nl": "dutch", "no": "norwegian", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
_NO_STOP_WORDS = {"ar", "el", "ro", "ta", "tr"}
"""Stemmed languages for which Tantivy brings no list."""

_UNSPACED = {"zh": (1, 2), "ja": (1, 2), "ko": (1, 2), "th": (2, 3), "lo": (2, 3), "km": (2, 3), "my": (2, 3)}
"""Languages written without spaces between words: n-grams of so many characters, from and to."""

_SAME_AS = {"nb": "no", "nn": "no", "iw": "he"}

_LONGEST_TERM = 255
"""Bytes. Longer runs (base64, sequences) are not indexed; a SHA-512 in hexadecimal still is."""

LANGUAGES: tuple[str, ...] = tuple(sorted({*_STEMMED, *_UNSPACED}))
"""ISO 639-1 codes with an analyzer of their own. Any other language gets plain lower-cased words."""


class Analyzer:
    """The terms of documents and queries in one language."""

    def __init__(self, language: str) -> None:
        chain = _chain(_code(language))
        self.version = _digest(language, chain)
        self.documents = _built([step for step in chain if step[0] != "stopword"])
        self._queries = _built(chain)

    def document_terms(self, text: str) -> list[str]:
        """Every term of a document, in order."""
        return self.documents.analyze(normalised(text))

    def query_terms(self, text: str) -> Counter[str]:
        """The terms to look for and how often the query says each.

        Stop words are indexed but not looked for, unless there is nothing else: "to be or not to be" is a query too.
        """
        text = normalised(text)
        return Counter(self._queries.analyze(text) or self.documents.analyze(text))


def normalised(text: str) -> str:
    """Composed characters (NFC), because the tokenizer would cut a word at a combining accent.

    A lone surrogate, which no encoding can carry, becomes a question mark.
    """
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


@lru_cache(maxsize=64)
def analyzer_for(language: str) -> Analyzer:
    return Analyzer(language)


def _code(language: str) -> str:
    code = language.strip().lower().replace("_", "-").split("-")[0]
    return _SAME_AS.get(code, code)


def _chain(code: str) -> list[Step]:
    if code in _UNSPACED:
        shortest, longest = _UNSPACED[code]
        return [("ngram", str(shortest), str(longest)), ("lowercase",)]
    chain: list[Step] = [("simple",), ("remove_long", str(_LONGEST_TERM + 1)), ("lowercase",)]
    if code not in _STEMMED:
        return chain
    name = _STEMMED[code]
    if code not in _NO_STOP_WORDS:
        chain.append(("stopword", name))
    stem: Step = ("stemmer", name)
    return chain + ([("ascii_fold",), stem] if code == "en" else [stem, ("ascii_fold",)])


def _built(chain: list[Step]) -> tantivy.TextAnalyzer:
    (tokenizer, *lengths), *steps = chain
    builder = tantivy.TextAnalyzerBuilder(getattr(tantivy.Tokenizer, tokenizer)(*map(int, lengths)))
    for name, *arguments in steps:
        values = [int(argument) if argument.isdigit() else argument for argument in arguments]
        builder = builder.filter(getattr(tantivy.Filter, name)(*values))
    return builder.build()


def _digest(language: str, chain: list[Step]) -> str:
    code = _code(language)
    name = code if code in LANGUAGES else "plain"
    made_of = json.dumps([version("tantivy"), "NFC", chain])
    return f"{name}-{hashlib.sha256(made_of.encode()).hexdigest()[:10]}"
