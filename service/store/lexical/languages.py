"""The languages of collections, and how their words are analysed: stemmer, stop words, folding, letters.

Choices are measured in docs/languages.md where there are test data. Codes are ISO 639-1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

AUTO = "auto"
"""Not a language: each document is analysed in its own language, which is detected (`language_detection.py`)."""

UNKNOWN = "und"
"""The language of documents for which none is certain (ISO 639-2: undetermined). Not for collections."""

Folding = Literal["none", "latin", "latin_first"]
"""How accents are removed.

`latin`: from Latin letters, after the stemmer, which reads them. `latin_first`: before the stemmer, for English, where
only loan words have accents, which the stemmer does not know (resumés, resumes). `none`: accents distinguish words.
"""


@dataclass(frozen=True, slots=True)
class Language:
    """`stemmer` and `stop_words`: Tantivy's names of its Snowball stemmers and of its lists; None: it has none.

    `letters`: pairs of characters; the first of each is replaced by the second before anything else is done.
    `compounds`: words are also split into the parts that they are compounded of (`compounds.py`).
    """

    name: str
    stemmer: str | None = None
    stop_words: str | None = None
    folding: Folding = "latin"
    letters: str = ""
    compounds: bool = False


def _stemmed(name: str, *, stop_words: bool = True, **others: Any) -> Language:
    known_as = name.lower()
    return Language(name, known_as, known_as if stop_words else None, **others)


_STEMMED = {
    "da": "Danish", "es": "Spanish", "fi": "Finnish", "fr": "French", "hu": "Hungarian",
    "it": "Italian", "nl": "Dutch", "no": "Norwegian", "pt": "Portuguese", "sv": "Swedish",
}  # fmt: skip
_PLAIN = {
    "bg": "Bulgarian", "ca": "Catalan", "cs": "Czech", "et": "Estonian", "eu": "Basque", "ga": "Irish",
    "gl": "Galician", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hy": "Armenian", "id": "Indonesian",
    "ja": "Japanese", "ka": "Georgian", "km": "Khmer", "ko": "Korean", "lo": "Lao", "lt": "Lithuanian",
    "lv": "Latvian", "my": "Burmese", "pl": "Polish", "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "th": "Thai",
    "uk": "Ukrainian", "zh": "Chinese",
}  # fmt: skip
_OTHERS = {
    "ar": _stemmed("Arabic", stop_words=False),
    "de": _stemmed("German", compounds=True),
    "el": _stemmed("Greek", stop_words=False),
    "en": _stemmed("English", folding="latin_first"),
    "fa": Language("Persian", letters="ةه"),
    "ro": _stemmed("Romanian", stop_words=False),
    "ru": _stemmed("Russian", letters="ёеЁЕ"),
    "ta": _stemmed("Tamil", stop_words=False),
    "tr": _stemmed("Turkish", stop_words=False, letters="İiIı"),  # or lower case would take ı for i
    "ur": Language("Urdu", letters="ةه"),
    "vi": Language("Vietnamese", folding="none"),
}
_ALL = {
    **{code: _stemmed(name) for code, name in _STEMMED.items()},
    **{code: Language(name) for code, name in _PLAIN.items()},
    **_OTHERS,
}

LANGUAGES: Mapping[str, Language] = dict(sorted(_ALL.items()))
"""By code, in the order of codes: the version of an analyzer depends on it."""

KNOWN: frozenset[str] = frozenset({*LANGUAGES, AUTO})
"""The values that `language` of a collection may have."""

UNDETERMINED = Language("undetermined", "arabic")
"""Words as they are, but for those of the Arabic script: their prefixes are no letters to search a word by."""
