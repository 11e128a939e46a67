"""Sentences and words of a text in any language."""

import re

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


_GAP = re.compile(r"\s+")


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


def sentence_starts(text: str) -> list[int]:
    """Where sentences start, beginning with 0; each runs to the start of the next.

    A sentence ends at an empty line; before a list item; after an end mark and closing quotes, where white space and
    something other than a small letter follow; after a CJK full stop. A full stop does not end it after one letter
    ("J. Smith"), after a word with a stop inside ("e.g.", "U.S.") or after a common abbreviation. Missing a border
    costs little (two sentences stay together), an invented one tears a sentence apart: in doubt there is none.
    """
    starts = [0]
    for match in _BORDER.finditer(text):
        gap = _GAP.match(text, match.end())
        start = gap.end() if gap else match.end()
        if start >= len(text):
            break
        if start > starts[-1] and not (match["stop"] and _continues(text, match.start(), match["stop"], start)):
            starts.append(start)
    if len(starts) > 1 and not text[: starts[1]].strip():
        del starts[1]
    return starts


def _continues(text: str, end: int, mark: str, following: int) -> bool:
    """Does the sentence go on after this end mark, although white space follows?"""
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


LEAST_WORDS = 4
"""Of a sentence that says something."""


_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*|\n+")


_LONGEST_WORD = 20
"""Characters. A sentence whose words are longer on average is not written in words."""


_PIECE = 2


def meaningful_sentences(text: str) -> list[str]:
    """Those that say something; the whole text where none does."""
    parts = [part.strip() for part in _SENTENCE_END.split(text)]
    whole = text.strip()
    return [part for part in parts if len(text_units(part)[0]) >= LEAST_WORDS] or ([whole] if whole else [])


def text_units(sentence: str) -> tuple[list[str], str]:
    """Its words and what stands between them; pairs of characters where it is not written in words."""
    words = sentence.split()
    if len(sentence) > _LONGEST_WORD * max(1, len(words)):
        return [sentence[at : at + _PIECE] for at in range(0, len(sentence), _PIECE)], ""
    return words, " "
