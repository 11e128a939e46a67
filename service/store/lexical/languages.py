"""The languages that a collection can be in, and what sets their words apart: stemmer, stop words, folding, letters.

Each choice is measured in docs/languages.md where there is something to measure with. Codes are ISO 639-1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

AUTO = "auto"
"""Not a language: each document is analysed in its own, which is detected (`detection.py`)."""

UNKNOWN = "und"
"""Of documents whose language cannot be told (ISO 639-2: undetermined): plain words. Not for collections."""

Folding = Literal["none", "latin", "latin_first", "points"]
"""What happens to accents.

`latin`: those of Latin letters go, after the stemmer, which reads them. `latin_first`: before the stemmer, in English,
where accents come with loan words alone and it would trip over them (resumés, resumes). `points`: as `latin`, and
combining signs go too, in scripts where they are optional (Hebrew, Arabic). `none`: accents tell words apart.
"""


@dataclass(frozen=True, slots=True)
class Language:
    """`stemmer` and `stop_words` are Tantivy's names of its Snowball stemmers and of its lists; None: it has none.

    `letters`: spellings of one letter, brought together before anything else is done.
    """

    name: str
    stemmer: str | None = None
    stop_words: str | None = None
    folding: Folding = "latin"
    letters: str = ""
    """Pairs: each letter at an even place becomes the one behind it."""


def _stemmed(name: str, *, stop_words: bool = True, folding: Folding = "latin", letters: str = "") -> Language:
    known_as = name.lower()
    return Language(name, known_as, known_as if stop_words else None, folding, letters)


_ARABIC_LETTERS = "يیىیكک"
"""Arabic yeh and kaf as Persian and Urdu write them: keyboards mix the two."""

LANGUAGES: Mapping[str, Language] = {
    "ar": _stemmed("Arabic", stop_words=False),
    "bg": Language("Bulgarian"),
    "ca": Language("Catalan"),
    "cs": Language("Czech"),
    "da": _stemmed("Danish"),
    "de": _stemmed("German"),
    "el": _stemmed("Greek", stop_words=False),
    "en": _stemmed("English", folding="latin_first"),
    "es": _stemmed("Spanish"),
    "et": Language("Estonian"),
    "eu": Language("Basque"),
    "fa": Language("Persian", folding="points", letters=_ARABIC_LETTERS),
    "fi": _stemmed("Finnish"),
    "fr": _stemmed("French"),
    "ga": Language("Irish"),
    "gl": Language("Galician"),
    "he": Language("Hebrew", folding="points"),
    "hi": Language("Hindi"),
    "hr": Language("Croatian"),
    "hu": _stemmed("Hungarian"),
    "hy": Language("Armenian"),
    "id": Language("Indonesian"),
    "it": _stemmed("Italian"),
    "ja": Language("Japanese"),
    "ka": Language("Georgian"),
    "km": Language("Khmer"),
    "ko": Language("Korean"),
    "lo": Language("Lao"),
    "lt": Language("Lithuanian"),
    "lv": Language("Latvian"),
    "my": Language("Burmese"),
    "nl": _stemmed("Dutch"),
    "no": _stemmed("Norwegian"),
    "pl": Language("Polish"),
    "pt": _stemmed("Portuguese"),
    "ro": _stemmed("Romanian", stop_words=False),
    "ru": _stemmed("Russian", letters="ёеЁЕ"),
    "sk": Language("Slovak"),
    "sl": Language("Slovenian"),
    "sr": Language("Serbian"),
    "sv": _stemmed("Swedish"),
    "ta": _stemmed("Tamil", stop_words=False),
    "th": Language("Thai"),
    "tr": _stemmed("Turkish", stop_words=False, letters="İiIı"),  # or lower case would take ı for i
    "uk": Language("Ukrainian"),
    "ur": Language("Urdu", folding="points", letters=_ARABIC_LETTERS),
    "vi": Language("Vietnamese", folding="none"),
    "zh": Language("Chinese"),
}

KNOWN: frozenset[str] = frozenset({*LANGUAGES, AUTO})
"""What `language` of a collection may say."""

UNDETERMINED = Language("undetermined")
