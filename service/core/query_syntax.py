"""The syntax of queries for the lexical leg: phrases and terms that must or must not occur, and plain words.

    "exact phrase"    must occur, in title or text; only words where no document of the collection has it
    +term, +"a b"     must occur
    -term, -"a b"     must not occur

There is no syntax error: whatever does not follow the grammar to the letter is plain words. An operator stands at the
beginning of a word, after white space or at the very start, and directly before a quotation mark or a letter that does
not stand alone; a quotation ends before white space, at the end or before punctuation. So `c++`, `-5 degrees`,
`e-mail`, `- a bullet`, `ls -l`, `--help`, `6" pipe` and `"unbalanced` keep their meaning. A query of nothing but
exclusions is plain words too.

People type hyphens that exclude nothing: options of commands, dashes, pasted texts. A hyphen excludes a word only where
that is clear: the word is written in small letters alone, of at least three (`-Xmx512m`, `-rf`, `Berlin -Hamburg` and
`Thanks -Anna` are words), the query has one line, and does not search for the same word. What documents write with the
hyphen (`java -jar`) is a word too: the caller says so by `as_words`. A quotation is always clear: `-"Hamburg"`.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Syntax = Literal["wishes", "plain"]
"""Whether constraints ("wishes" in the API) are parsed, or every text is plain words."""

MAX_CONSTRAINTS = 32
"""In one query. Further ones are plain words."""

_CONSTRAINT = re.compile(
    r"""
    (?<!\S)(?P<sign>[+-])?
    (?: (?P<open>["“„«])(?P<phrase>[^"“”„«»]+)["”“»](?![^\s.,;:!?)\]}])
      | (?<=[+-])(?P<term>(?![A-Za-z](?![^\w\s]*\w))[^\W\d_]\S*)
    )
    """,
    re.VERBOSE,
)
_TRAILING_PUNCTUATION = re.compile(r"[.,;:!?)\]}\"”“»]+$")
_WORD = re.compile(r"\w+")
_SHORTEST_EXCLUSION = 3
"""Letters of an alphabet; shorter words after a hyphen are options (`-rf`, `-it`)."""
_LONGEST_TYPO = 40
"""Letters; longer words are not corrected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TypoTolerance:
    """Words that no document contains may stand for similar ones.

    `max_edits`: letters that are wrong, missing, added or swapped with their neighbour; 1 or 2. Words with fewer than
    four letters allow none, with fewer than six one.
    """

    max_edits: int = 2

    def max_edits_for(self, word: str) -> int:
        """The edits that this word allows. Numbers and codes allow none: another one is another thing."""
        if not 4 <= len(word) <= _LONGEST_TYPO or not word.isalpha():
            return 0
        return min(self.max_edits, 1 if len(word) < 6 else 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedQuery:
    """A query as the lexical leg reads it. `text`: what is searched and scored, without what is excluded.

    The constraints are words or phrases. A document passes that has all `required` ones, all `quoted` ones that any
    document has, and no `excluded` one.
    """

    text: str
    quoted: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    as_words: tuple[str, ...] = ()
    """Parts of the text that look like constraints and are read as words, the first `MAX_CONSTRAINTS`."""
    typos: TypoTolerance | None = None
    identifiers: bool = True
    """Whether a document scores higher for an identifier of the query that it holds verbatim."""

    @classmethod
    def union(cls, queries: Sequence["ParsedQuery"], typos: TypoTolerance | None) -> "ParsedQuery":
        def distinct(name: str) -> tuple[str, ...]:
            return tuple(dict.fromkeys(one for query in queries for one in getattr(query, name)))

        text = " ".join(query.text for query in queries)
        quoted, required, excluded, as_words = map(distinct, ("quoted", "required", "excluded", "as_words"))
        return cls(text=text, quoted=quoted, required=required, excluded=excluded, as_words=as_words, typos=typos)

    @property
    def has_constraints(self) -> bool:
        return bool(self.quoted or self.required or self.excluded)


@dataclass(frozen=True, kw_only=True, slots=True)
class Highlights:
    """The matches of a query in a passage. `fragments`: safe HTML; `spans`: [start, end) in its code points;
    `synonyms`: words of the passage that match by the collection's synonyms alone."""

    fragments: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    synonyms: tuple[str, ...] = ()


@lru_cache(maxsize=64)  # each stage of a search asks anew
def parse_query(
    text: str, syntax: Syntax = "wishes", typos: TypoTolerance | None = None, as_words: frozenset[str] = frozenset()
) -> ParsedQuery:
    """Parse any text; see the module for the grammar. `as_words`: constraints that are none (`-jar`, or a
    phrase without its quotation marks)."""
    if syntax == "plain":
        return ParsedQuery(text=text, typos=typos)
    found = [
        (match, match["sign"] or "", match["phrase"] or _TRAILING_PUNCTUATION.sub("", match["term"]))
        for match in _CONSTRAINT.finditer(text)
    ]
    searched_for = {words.casefold() for _, sign, words in found if sign == "+"}
    searched_for.update(_WORD.findall(_CONSTRAINT.sub(" ", text).casefold()))
    contradictory = searched_for.intersection(words.casefold() for _, sign, words in found if sign == "-")
    several_lines = "\n" in text.strip()
    by_sign: dict[str, list[str]] = {"": [], "+": [], "-": []}
    kept: list[str] = []
    literal: list[str] = []
    end = 0
    for match, sign, words in found:
        if not _WORD.search(words):
            continue
        unclear = sign == "-" and not match["phrase"] and not _is_clear_exclusion(words)
        signed = bool(sign) and (unclear or several_lines or words.casefold() in contradictory)
        if signed or sign + words in as_words:
            literal.append(match.group() if match["phrase"] else sign + words)
            continue
        kept.append(text[end : match.start()])
        end = match.end()
        by_sign[sign].append(words)
        if sign != "-":
            kept.append(words)
        if sum(map(len, by_sign.values())) == MAX_CONSTRAINTS:
            break
    searched = " ".join("".join([*kept, text[end:]]).split())
    if not _WORD.search(searched):
        return ParsedQuery(text=text, typos=typos)
    quoted, required, excluded = map(tuple, by_sign.values())
    return ParsedQuery(
        text=searched if end else text,
        quoted=quoted,
        required=required,
        excluded=excluded,
        as_words=tuple(dict.fromkeys(literal))[:MAX_CONSTRAINTS],
        typos=typos,
    )


def _is_clear_exclusion(word: str) -> bool:
    """Whether a word after a hyphen is written as people write what they exclude, not as an option or a name."""
    if any(unicodedata.category(sign)[0] not in "LM" and sign not in "-'’" for sign in word) or word != word.lower():
        return False
    return len(word) >= _SHORTEST_EXCLUSION or word == word.upper()
