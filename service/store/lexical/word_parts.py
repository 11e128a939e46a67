"""What a word is made of, and what is found although it is no word: parts of identifiers, words without their signs,
symbols, very long runs.

- `getUserById`, `HTTPServer`, `PostgreSQL16`: a word is cut before a capital after a small letter, before the last
  capital of several, and between letters and digits, in every script that has capitals or digits.
- `Wi-Fi`, `Node.js`, `O'Reilly`, `10,000` are also the words that many write: wifi, nodejs, oreilly, 10000.
- Emoji and other symbols (`★`, `™`, `€`).
- Runs without a border (base64, sequences): no word is that long, so substrings of them are indexed.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice, pairwise

import regex

from service.store.lexical.folding import SYLLABIC, UNSPACED

Span = tuple[int, int]
"""[start, end) in code points."""

_UNSPACED = f"[{SYLLABIC}[{UNSPACED}]]"
_UNSPACED_RUN = regex.compile(f"(?V1){_UNSPACED}")
_NUMBER_BORDER = r"(?<=\p{L}\p{M}*)(?=\p{Nd})|(?<=\p{Nd}\p{M}*)(?=\p{L})"
_NUMBER_BORDERS = regex.compile(_NUMBER_BORDER)
# The s of a plural belongs to its capitals: URLs.
_BORDER = (
    rf"{_NUMBER_BORDER}|(?<=\p{{Ll}}\p{{M}}*)(?=\p{{Lu}})"
    r"|(?<=\p{Lu}\p{M}*)(?=\p{Lu}\p{M}*(?!s(?!\p{Ll}))\p{Ll})"
)
_BORDERS = regex.compile(_BORDER)
_EDGE = rf"(?:\b|(?<=_|{_UNSPACED})|(?=_|{_UNSPACED})|{_BORDER})"
_MOST_PARTS = 32
_FEW_PARTS, _LEAST_LENGTH = 4, 2.5
"""A word of more parts than a few is a digest or base64 where they are shorter than this on average."""

_APOSTROPHES = "'’ʼ"
_JOINING = f"-‐‑.&_{_APOSTROPHES}"
_SIGNS = re.compile(rf"[{_JOINING}](?=[^\W\d_])")
_LETTER = r"(?:(?!_)[\w\u0300-\u036F])"
_JOINED = re.compile(rf"{_LETTER}+(?:{_SIGNS.pattern}{_LETTER}+)+")
_IS_LETTER = re.compile(_LETTER).match
_ELISION = regex.compile(rf"^(?i:[cdjlmnst]|\p{{L}}*qu|\p{{L}}*ll|un)[{_APOSTROPHES}]\p{{Ll}}{{3,}}$")
"""Of an article or a preposition, as in `l'homme` and `dell'arte`, which nobody writes in one."""
_GROUPED = re.compile(rf"(?<![\w.,])\d{{1,3}}(?:[,.\u00a0\u2009\u202f{_APOSTROPHES}]\d{{3}})+(?!\w)")
_MAYBE_GROUPED = re.compile(rf"\d[,.\u00a0\u2009\u202f{_APOSTROPHES}]\d{{3}}")
_MOST_JOINED, _LONGEST_JOINED = 5, 40

_PICTURE = r"\p{Extended_Pictographic}[\uFE0E\uFE0F]?\p{EMod}?[\U000E0020-\U000E007F]*"
_SYMBOLS = regex.compile(
    rf"(?V1)\p{{RI}}{{2}}|[#*]\uFE0F?\u20E3|{_PICTURE}(?:\u200D{_PICTURE})*"
    r"|[[\p{So}\p{Sc}]--[\p{ASCII}\p{RI}\u2500-\u259F\u2800-\u28FF\uFFFC\uFFFD]]"
)
"""Flags, keycaps, emoji and their sequences, other symbols. What only draws (boxes, braille) is none."""
_VARIATIONS = regex.compile(r"[\uFE0E\uFE0F]")
_VARIANT = regex.compile(r"[\p{EMod}\U000E0020-\U000E007F]")

LONGEST_WORD = 255
"""Code points. Longer runs are no words."""
_LONG, _READ = 65, 2**15
"""Code points: runs from the first on are found by substrings, of as much of them as the second says."""
_GRAM, _WINDOW = 16, 32
_QUERY_GRAMS, _QUERY_WORDS = 64, 16
_CACHED_QUERIES = 32
_RUNS = re.compile(rf"(?<![^\W_])[^\W_]{{{_GRAM},}}")
_SPACED = regex.compile(rf"(?V1)[^{_UNSPACED}]{{{_GRAM},}}")


def part_sequences(word: str) -> list[list[Span]]:
    """The parts of a word, in order, as sequences; none where it is not made of parts.

    `iPhone15Pro`: i, Phone, 15, Pro; with borders at digits alone iPhone, 15, Pro; pairs of neighbours iPhone, Phone15,
    15Pro, so that names that are made of parts themselves (`getGitHubToken`) are found.
    """
    parts = _cut(word, _BORDERS)
    if not 1 < len(parts) <= _MOST_PARTS or (len(parts) > _FEW_PARTS and len(word) < _LEAST_LENGTH * len(parts)):
        return []
    coarse = _cut(word, _NUMBER_BORDERS)
    pairs = [(start, end) for (start, _), (_, end) in pairwise(parts) if (start, end) not in coarse]
    sequences = [parts, coarse if 1 < len(coarse) < len(parts) else [], pairs if len(parts) > 2 else []]
    return [sequence for sequence in sequences if sequence]


def _cut(word: str, borders: "regex.Pattern[str]") -> list[Span]:
    return list(pairwise([0, *(match.start() for match in borders.finditer(word)), len(word)]))


def joined_words(text: str) -> Iterator[tuple[Span, str]]:
    """Words whose parts, of which each begins with a letter, are joined by hyphens, full stops, apostrophes, `&`, `_`;
    numbers of which three digits each stand apart. The place of each, and the word without these signs."""
    grouped = _GROUPED.finditer(text) if _MAYBE_GROUPED.search(text) else ()
    yield from ((match.span(), re.sub(r"\D", "", match.group())) for match in grouped)
    end = 0
    for sign in _SIGNS.finditer(text):
        start = sign.start()
        while start > end and sign.start() - start < _LONGEST_JOINED and _IS_LETTER(text[start - 1]):
            start -= 1
        if (match := _JOINED.match(text, max(start, end))) is None:
            continue
        end, word = match.end(), match.group()
        if word[-2] in _APOSTROPHES and word[-1] in "sS":
            word = word[:-2]  # the possessive of a word is that word
        parts = _SIGNS.split(word)
        if not (1 < len(parts) <= _MOST_JOINED and len(word) <= _LONGEST_JOINED and word[0].isalpha()):
            continue
        if not (_ELISION.match(word) or _UNSPACED_RUN.search(word)):
            yield (start, start + len(word)), "".join(parts)


def without_signs(text: str) -> str:
    """What holds every word of `joined_words` as it is, and much else; quickly."""
    for sign in f"{_JOINING},\u00a0\u2009\u202f":
        text = text.replace(sign, "")
    return text


def symbols(text: str) -> Iterator[tuple[Span, str]]:
    """The terms of every emoji and symbol, each with its place: as it is written, without the tone of the skin, and
    each emoji of a sequence."""
    for match in _SYMBOLS.finditer(text) if not text.isascii() else ():
        written = _VARIATIONS.sub("", match.group())
        plain = _VARIANT.sub("", written)
        yield from ((match.span(), term) for term in (written, plain, *plain.split("\u200d")) if term)


def symbol_terms(text: str) -> list[str]:
    """Each different one once, however often it is repeated."""
    return list(dict.fromkeys(term for _, term in symbols(text)))


def run_grams(text: str, *, shortest: int = _LONG) -> Iterator[tuple[Span, str]]:
    """Substrings of 16 characters by which the very long runs of a text are found, each with its place.

    Of each run a digest of the whole, the first one and, of each 32 neighbours, the smallest (winnowing: Schleimer,
    Wilkerson and Aiken 2003), about one in 17. So a query meets a run of which it holds any 47 characters, or the
    first 16.
    """
    if max(map(len, text.split()), default=0) < shortest:
        return  # as nearly always, and told faster
    for found in _RUNS.finditer(text):
        for piece in _SPACED.finditer(text, *found.span()) if len(found.group()) >= shortest else ():
            if len(piece.group()) < shortest:
                continue
            folded = unicodedata.normalize("NFKC", piece.group()).casefold()
            yield piece.span(), hashlib.blake2b(folded.encode(), digest_size=_GRAM // 2).hexdigest()
            aligned, folded = len(folded) == len(piece.group()), folded[:_READ]
            grams = [(folded[at : at + _GRAM], at) for at in range(max(1, len(folded) - _GRAM + 1))]
            chosen = {grams[0], *(min(grams[at : at + _WINDOW]) for at in range(max(1, len(grams) - _WINDOW + 1)))}
            for gram, at in sorted(chosen, key=lambda one: one[1]):
                start = piece.start() + at
                yield ((start, start + len(gram)) if aligned else piece.span()), gram


@lru_cache(_CACHED_QUERIES)
def compound_words(text: str) -> list[list[str]]:
    """The parts of the first words of a query that are made of parts."""
    words = (word for word in dict.fromkeys(re.findall(r"[^\W_]+", text)) if part_sequences(word))
    return [[word[start:end] for start, end in _cut(word, _BORDERS)] for word in islice(words, _QUERY_WORDS)]


def words_apart(text: str) -> list["regex.Pattern[str]"]:
    """Patterns of these words, for others write their parts in another way: get_user_by_id."""
    joined = (r"[\W_]{0,3}".join(map(regex.escape, parts)) for parts in compound_words(text))
    return [regex.compile(rf"(?V1){_EDGE}(?i:{parts}){_EDGE}") for parts in joined]


def query_grams(text: str) -> list[str]:
    """Those of the long words of a query, a bounded number spread over it."""
    grams = list(dict.fromkeys(gram for _, gram in run_grams(text, shortest=_GRAM)))
    return grams[:: len(grams) // _QUERY_GRAMS + 1]
