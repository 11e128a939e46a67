"""Sentences and words of a text in any language."""

import re
from itertools import pairwise

import regex

# Runs are matched from their first character and never given back, or long ones would cost the square of their length.
_BORDER = re.compile(
    r"""
    (?P<paragraph>\n[^\S\n]*\n)                                    # an empty line
  | (?P<line>\n)(?=[^\S\n]*(?:[-*•#>|]|\d{1,3}[.)])\s)              # a line that begins a list item, heading or row
  | (?<![.!?…؟۔।॥။።])(?P<stop>[.!?…؟۔।॥။።]++)["'”’»)\]]*+(?=\s)     # end marks before white space
  | [。！？｡]++[」』”’）】》"')\]]*+                                   # CJK end marks need no white space
    """,
    re.VERBOSE,
)


WHITE_SPACE = re.compile(r"\s+")
_LONG_WORD = re.compile(r"[0-9A-Za-z\u00c0-\u024f\u0370-\u052f]{100}(?=[0-9A-Za-z\u00c0-\u024f\u0370-\u052f])")
_WORD = regex.compile(r"[\w\p{M}]+")  # with the vowel signs of Indic scripts
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘«]*$")
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\w+",
        """mr mrs ms dr prof st sr jr vs etc al cf ca approx fig figs eq eqs ref refs sec ch vol pp inc ltd co corp dept
        univ gen rep sen gov capt lt col sgt rev hon est ed eds viz resp jan feb mar apr jun jul aug sep sept oct nov
        dec bzw usw vgl ggf zzt hr fr nr str""",
    )
)
_NUMBERED = frozenset(("no", "nos", "p", "art", "abs"))
"""Abbreviations only before a digit: "no. 5"."""

MIN_SENTENCE_WORDS = 4
_MAX_WORD_LENGTH = 20
"""Characters. Text whose words are longer on average is in a script without spaces."""


def break_long_words(text: str) -> str:
    """The text with a space after each 100 letters or digits of a run without spaces, in alphabets with capitals.

    Tokenizers of the BERT family take a longer word for one unknown token. All other texts stay as they are.
    """
    return _LONG_WORD.sub(r"\g<0> ", text)


def sentence_starts(text: str) -> list[int]:
    """The offsets at which sentences start, beginning with 0. Each sentence runs to the start of the next one.

    A sentence ends at an empty line; before a list item; after an end mark and closing quotes, where white space and
    something other than a small letter follow; after a CJK full stop. A full stop does not end it after one letter
    ("J. Smith"), after a word with a stop inside ("e.g.", "U.S.") or after a common abbreviation. In doubt there is no
    border: a missing one keeps two sentences together, which costs little; a wrong one tears a sentence apart.
    """
    starts = [0]
    for match in _BORDER.finditer(text):
        gap = WHITE_SPACE.match(text, match.end())
        start = gap.end() if gap else match.end()
        if start >= len(text):
            break
        if start > starts[-1] and not (match["stop"] and _continues(text, match.start(), match["stop"], start)):
            starts.append(start)
    if len(starts) > 1 and not text[: starts[1]].strip():
        del starts[1]
    return starts


def _continues(text: str, end: int, mark: str, following: int) -> bool:
    """Whether the sentence continues after this end mark although white space follows."""
    if text[following].islower():
        return True
    if mark != ".":
        return False
    # 40 code points suffice for any abbreviation, and bound the work on text without white space.
    found = _LAST_WORD.search(text, max(0, end - 40), end)
    word = found.group().lower() if found else ""
    if word in _NUMBERED and text[following].isdigit():
        return True
    return (len(word) == 1 and word.isalpha()) or "." in word.strip(".") or word in _ABBREVIATIONS


def sentences(text: str) -> list[str]:
    """The sentences of a text, without white space around them.

    Besides the rule of `sentence_starts` each line break ends a sentence, so that headings, tables and code do not run
    together into one long sentence.
    """
    parts = (line[start:end] for line in text.splitlines() for start, end in pairwise([*sentence_starts(line), None]))
    return [sentence for part in parts if (sentence := part.strip())]


def meaningful_sentences(text: str) -> list[str]:
    """The sentences that have at least `MIN_SENTENCE_WORDS` words; the whole text where none has."""
    whole = text.strip()
    return [one for one in sentences(text) if len(text_units(one)[0]) >= MIN_SENTENCE_WORDS] or (
        [whole] if whole else []
    )


def text_units(sentence: str) -> tuple[list[str], str]:
    """The words of a sentence and their separator; pairs of characters and "" where it is not written in words."""
    words = sentence.split()
    if len(sentence) > _MAX_WORD_LENGTH * max(1, len(words)):
        return [sentence[at : at + 2] for at in range(0, len(sentence), 2)], ""
    return words, " "


def simple_words(text: str, separator: str) -> list[str]:
    """Words in small letters; pairs of neighbouring characters where nothing separates words."""
    small = text.lower()
    return _WORD.findall(small) if separator else [small[at : at + 2] for at in range(len(small) - 1)]
