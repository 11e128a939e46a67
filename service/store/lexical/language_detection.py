"""Detects the language of a text: by its script where only one known language is written in it, else by py3langid.

py3langid (BSD, 4.6 MB, offline, pure Python over NumPy) is a naive Bayes classifier over byte n-grams (Lui and Baldwin
2012, "langid.py"), trained anew and calibrated; it is restricted to the languages that can be told apart here.
"""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING

import regex

from service.store.lexical.folding import unify
from service.store.lexical.languages import LANGUAGES, UNKNOWN

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SAMPLE = 400
"""Characters that are read: the beginning is enough, and 400 take 0.5 ms."""

_SHORT = 100
_CERTAIN, _MIN_PROBABILITY = 0.65, 0.05
"""The probability from which a text of fewer than 100 characters, or a longer one, is in the most probable of 48
languages. Of two words out of texts in six languages 41 % are certain, and 1.4 % of these in another language; of four
words 72 and 0.8 %."""

_MIN_RATIO = 0.05
"""Languages less probable than this share of the most probable one are not considered for a query."""

_SCRIPTS = {
    "el": r"\p{Greek}", "he": r"\p{Hebrew}", "hi": r"\p{Devanagari}", "hy": r"\p{Armenian}",
    "ja": r"\p{Hiragana}\p{Katakana}", "ka": r"\p{Georgian}", "km": r"\p{Khmer}", "ko": r"\p{Hangul}",
    "lo": r"\p{Lao}", "my": r"\p{Myanmar}", "ta": r"\p{Tamil}", "th": r"\p{Thai}", "zh": r"\p{Han}",
}  # fmt: skip
"""Scripts that only one of the known languages uses."""

_LETTERS = regex.compile("|".join(f"(?P<{code}>[{script}])" for code, script in _SCRIPTS.items()) + r"|\p{L}")
_JAPANESE = 0.05
"""Share of kana, among kana and Chinese characters, from which a text is Japanese."""


def detect_language(text: str) -> str:
    """The language of a document. Where it is not certain, UNKNOWN, a hyphen and the best guess: `und-en`."""
    sample = unify(text[:SAMPLE])
    if (by_script := _by_script(sample)) is not None:
        return by_script
    if not _LETTERS.search(sample):
        return UNKNOWN
    code, probability = _identifier().classify(sample)
    certain = probability >= (_CERTAIN if len(sample) < _SHORT else _MIN_PROBABILITY)
    return code if certain else f"{UNKNOWN}-{code}"


def query_languages(text: str, present: Mapping[str, int]) -> Mapping[str, float]:
    """Those of the languages `present` that a query may be in, each with its weight: 1 for the most probable.

    `present`: how many documents are in each language, or were guessed to be. A name alone may be in any language, and
    is searched in all. Where the text says little, the language of most documents is as probable as that of the text.
    """
    sample = unify(text[:SAMPLE])
    by_script = _by_script(sample)
    if by_script is not None and by_script in present:
        return {by_script: 1.0}
    by_text = {code: probability for code, probability in _identifier().rank(sample) if code in present}
    by_share = {code: probability * present[code] for code, probability in by_text.items()}
    near: dict[str, float] = {}
    for measure in (by_text, by_share):
        best = max(measure.values(), default=0.0)
        for code, value in measure.items():
            if value >= _MIN_RATIO * best:
                near[code] = max(near.get(code, 0.0), value / best)
    return near or dict.fromkeys(present, 1.0)


def detector_version() -> str:
    """Everything that decides: with another detector the same documents would be analysed differently."""
    limits = (SAMPLE, _SHORT, _CERTAIN, _MIN_PROBABILITY, _JAPANESE)
    return f"py3langid {version('py3langid')} {limits} {sorted(_SCRIPTS)}"


def _by_script(sample: str) -> str | None:
    letters = Counter(match.lastgroup for match in _LETTERS.finditer(sample))
    if not letters:
        return None
    if letters["ja"] >= _JAPANESE * (letters["ja"] + letters["zh"]):
        letters["ja"] += letters.pop("zh", 0)
    code, count = letters.most_common(1)[0]
    return code if 2 * count > letters.total() else None


@lru_cache(maxsize=1)
def _identifier() -> "LanguageIdentifier":
    """Imported and loaded on first use: a second of processor time."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(sorted(LANGUAGES.keys() & set(identifier.nb_classes)))
    return identifier
