"""What a query asks of words: phrases that must be said, terms that must or must not, everything else as it comes.

    "exact phrase"    must be said so, in title or text; only words where no document of the collection says it
    +term, +"a b"     must be said
    -term, -"a b"     must not be said

There is no syntax error: what does not follow the grammar to the letter is words like any others. An operator stands at
the beginning of a word, after white space or at the very start, and directly before a quotation mark or a letter that
does not stand alone; a quotation ends before white space, at the end or before punctuation. So `c++`, `-5 degrees`,
`e-mail`, `state-of-the-art`, `- a bullet`, `ls -l`, `--help`, `6" pipe` and `"unbalanced` mean what they always did. A
query of nothing but exclusions asks for nothing, and is taken as words too.
"""

import re
from dataclasses import dataclass
from typing import Literal

Syntax = Literal["wishes", "plain"]
"""Are wishes read, or is every text only words?"""

MAX_CONSTRAINTS = 32
"""Of one query. More of them are words like any others."""

_WISH = re.compile(
    r"""
    (?<!\S)(?P<sign>[+-])?
    (?: (?P<open>["“„«])(?P<phrase>[^"“”„«»]+)["”“»](?![^\s.,;:!?)\]}])
      | (?<=[+-])(?P<term>(?![A-Za-z](?!\w))[^\W\d_]\S*)
    )
    """,
    re.VERBOSE,
)
_TAIL = re.compile(r"[.,;:!?)\]}\"”“»]+$")
"""Punctuation behind a term is no part of it."""


_LONGEST_MISSPELT = 40
"""Letters. What is longer is no word that somebody misspelt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TypoTolerance:
    """Words that no document says may stand for similar ones that some do.

    `max_edits`: letters that may be wrong, missing, too many or swapped with their neighbour; 1 or 2. Short words allow
    fewer: none below four letters, one below six.
    """

    max_edits: int = 2

    def max_edits_for(self, word: str) -> int:
        """Edits of this word. Numbers and codes have no typos: another one is another thing."""
        if not 4 <= len(word) <= _LONGEST_MISSPELT or not word.isalpha():
            return 0
        return min(self.max_edits, 1 if len(word) < 6 else 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedQuery:
    """A query as the lexical leg reads it. `text`: what is looked for and scored; without what is excluded.

    All wishes are single words or phrases. A document passes that says all that is `required`, all that is `quoted` of
    what any document says, and nothing that is `excluded`.
    """

    text: str
    quoted: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    typos: TypoTolerance | None = None

    @property
    def has_constraints(self) -> bool:
        return bool(self.quoted or self.required or self.excluded)


@dataclass(frozen=True, kw_only=True, slots=True)
class Highlights:
    """Where a passage says what a query asks. `fragments`: safe HTML; `spans`: [start, end) in its code points."""

    fragments: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


def parse_query(text: str, syntax: Syntax = "wishes", typos: TypoTolerance | None = None) -> ParsedQuery:
    """Any text can be read."""
    if syntax == "plain":
        return ParsedQuery(text=text, typos=typos)
    wishes: dict[str, list[str]] = {"": [], "+": [], "-": []}
    left: list[str] = []
    done = 0
    for match in _WISH.finditer(text):
        wish = match["phrase"] or _TAIL.sub("", match["term"])
        if not re.search(r"\w", wish):
            continue
        left.append(text[done : match.start()])
        done = match.end()
        sign = match["sign"] or ""
        wishes[sign].append(wish)
        left += [] if sign == "-" else [wish]
        if sum(map(len, wishes.values())) == MAX_CONSTRAINTS:
            break
    looked_for = " ".join("".join([*left, text[done:]]).split())
    if not done or not re.search(r"\w", looked_for):
        return ParsedQuery(text=text, typos=typos)
    quoted, required, excluded = map(tuple, wishes.values())
    return ParsedQuery(text=looked_for, quoted=quoted, required=required, excluded=excluded, typos=typos)
