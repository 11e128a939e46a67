"""Folding: the spellings of one word become one form before it is stemmed, by script and whatever the language.

Characters without width are dropped, decimal digits become ASCII digits, and NFKC unites full-width letters, ligatures
and presentation forms. Arabic and Hebrew lose their vowel signs, Greek its accents, Latin and Cyrillic letters
the marks that belong to no letter of an alphabet (stress, tones), and Arabic letters that writers and keyboards
interchange are one letter. In Indic scripts a nasal before a consonant of its own class is written as anusvara.
"""

import unicodedata
from collections.abc import Mapping

import regex

SYLLABIC = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}ー々〆ｰﾞﾟ\u3099\u309a"
UNSPACED = r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]--\p{Nd}"
"""Characters of the scripts that are written without spaces (Korean is cut as Chinese is), as sets of `regex` (V1)."""

IGNORABLE = r"\p{Default_Ignorable_Code_Point}"
"""Zero-width spaces and joiners, soft hyphens, marks of direction, variation selectors: they may stand in any word."""

_IGNORABLE = regex.compile(f"{IGNORABLE}+")
_DIGITS = regex.compile(r"(?V1)[\p{Nd}--[0-9]]")
_OTHER_RULES = regex.compile(r"[\p{Arabic}\p{Hebrew}\p{Greek}\u0900-\u0D7F]")
_POINTS = regex.compile(r"(?<=[\p{Arabic}\p{Hebrew}\p{Greek}]\p{Mn}*)\p{Mn}")
_ADDED = regex.compile(r"(?<=[\p{Latin}\p{Cyrillic}]\p{Mn}*)[\u0300-\u036F]+")
"""Marks of letters that have no form with them: the stress of Russian words, tones, the dot that i keeps of İ."""

_LETTERS = str.maketrans(
    # The letters of Arabic, Persian and Urdu keyboards; hamza and madda are signs (Mn) once decomposed.
    {**dict(zip("ٱىیېکڪہەۃ", "ايييككههة", strict=True)), "ـ": None}
    # Devanagari: candrabindu as anusvara, candra vowels of loan words as ordinary ones, no nukta.
    | {"ँ": "ं", "ॉ": "ा", "ऑ": "आ", "ॅ": "े", "़": None}
    # Malayalam chillu letters and the Bengali khanda ta, which were once written with a virama and a joiner.
    | dict(zip("ൺൻർൽൾൿৎ", ["ണ്", "ന്", "ര്", "ല്", "ള്", "ക്", "ত্"], strict=True))
)

_DEFINITE = regex.compile(r"(?<=^[وف]?(?:[بك]?ال|لل)\w{2,})ه$")
"""The last letter of an Arabic noun with its article can only be teh marbuta, which many write without its points; else
it may be a possessive, and the stemmer removes both."""

_NASALS = "ङ्(?=[क-घ])|ञ्(?=[च-झ])|ण्(?=[ट-ढ])|न्(?=[त-ध])|म्(?=[प-भ])"
"""In Devanagari. The blocks of the other Indic scripts have the same order."""
_NASAL = regex.compile(
    "|".join("".join(chr(ord(c) + block) if c > "\u08ff" else c for c in _NASALS) for block in range(0, 0x480, 0x80))
)


def unify(text: str) -> str:
    """The text in NFKC with ASCII digits, without the characters that have no width."""
    text = unicodedata.normalize("NFKC", _IGNORABLE.sub("", text))
    # Digits that are newer than Python's tables stay.
    return str(_DIGITS.sub(lambda digit: str(unicodedata.decimal(digit.group(), digit.group())), text))


def fold(word: str, letters: Mapping[int, str]) -> str:
    """The one form of the word, in NFC and without case. `letters`: replacements of the language, before case."""
    if not word.isascii():
        word = unify(word)
    word = unicodedata.normalize("NFKC", word.translate(letters).casefold())
    word = "".join(one for one in word if not one.isspace())
    if _OTHER_RULES.search(word):
        word = _POINTS.sub("", unicodedata.normalize("NFD", word)).translate(_LETTERS)
        word = _DEFINITE.sub("ة", word)
        word = _NASAL.sub(lambda nasal: chr(ord(nasal.group()[0]) & 0xFF80 | 2), word)
    word = unicodedata.normalize("NFC", word)
    return word if word.isascii() else _ADDED.sub("", word)
