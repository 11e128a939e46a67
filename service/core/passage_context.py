"""The context of a passage: the path of headings above it, and the header of the table that it continues.

Both are recognised in the document's text alone, so that they can be told again when a passage is read back. Headings
are those of Markdown, AsciiDoc, wikis, reStructuredText and HTML, and numbered lines ("2.1 Scope") where there are no
others. In doubt a line is no heading: the comments of a script, what stands in a code block, a sentence.
"""

import csv
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, islice

_SHARE = 3
"""Title and context take at most this part, 1 / `_SHARE`, of a chunk."""
_MAX_HEADING = 200
"""Code points. A longer line is a paragraph."""
_MAX_RECORD = 20_000
"""Code points of a record of delimited values."""

_FENCE = re.compile(r"`{3,}(?=[^`]*$)|~{3,}(?!~)")
_MARKED = re.compile(r" {0,3}(#{1,6}(?=[ \t])|={1,6}(?=[ \t])|={2,6}(?=[^=].*==$))[ \t]*(\S.*)")
_UNDERLINE = re.compile(r"""([=\-~^"*+#'.:_])\1{2,}""")
_HTML = re.compile(rf"<h([1-6])\b[^<>]{{0,300}}>(.{{1,{_MAX_HEADING}}}?)</h\1>", re.IGNORECASE)
_NUMBERED = re.compile(r"(\d{1,3}(?:\.\d{1,3})*)\.?[ \t]+[^\W\d_a-z].*")
_NO_TITLE = re.compile(r"[-*+>|•]\s.*|[\W_]+|.*[.,;:!?。，；：]")
_MARKUP = re.compile(r"<[^<>]*>|\{#[^{}]*\}|[*`]+|!?\[([^\[\]]*)\]\([^()]*\)")
_CODE = re.compile(r"""[a-z_$@{}].*(?<![.!?])|\[[\w.-]+\]|[A-Z_]{3,}[ =].*|.*(?:[;{}\\]|\(\)|&&)|\w+\s?[:+]?=.*""")
_DELIMITER_ROW = re.compile(r"(?=.*[|+])(?=.*[-=])[|+:=\- \t]+")
_NUMBER = re.compile(r"[-+$€£¥~<>]{0,2}\d[\d.,:/ \-]*(?:%|[^\W\d]{1,3})?")
_ROW = re.compile(r".*\||[ \t]*\+[-=+]+")
_COLUMN = re.compile(r"(?!\d[\d.,:/ -]*$)\w[\w .#%/°$€&+-]{0,40}(?:[(\[][^()\[\]]{0,20}[)\]])?|(?:19|20)\d\d")
_PIECE = re.compile(r"[A-Za-z]{1,4}|\S")


@dataclass(frozen=True, slots=True)
class Heading:
    """`text[start:end]` with its marks. `level`: 1 is the highest. `title`: without markup."""

    start: int
    end: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Block:
    """A table or a fenced code block. It may be cut at `rows` alone, the offsets at which its lines start.

    `body`: where the first row below the header starts, or the code below its fence. `header`: of a table.
    """

    start: int
    end: int
    body: int
    rows: tuple[int, ...]
    header: str = ""


@dataclass(frozen=True, slots=True)
class Outline:
    """The headings and blocks of a text, in order. `parents`: for each heading the one above it, or -1."""

    headings: Sequence[Heading]
    parents: Sequence[int]
    blocks: Sequence[Block]

    def context(self, start: int, title: str, max_tokens: int) -> str:
        """The path of headings and the table header of the passage at `start`, each in a line, as far as there are any.

        Neither the title nor a heading with which the passage begins is repeated. `max_tokens`: of a chunk. Where the
        room does not suffice, the highest headings are left out first. Tokens are estimated from the characters, so
        that the context is the same wherever it is made.
        """
        room = max_tokens // _SHARE - _estimated_tokens(title)
        block = self.blocks[bisect_right(self.blocks, start, key=lambda one: one.start) - 1] if self.blocks else None
        header = _shortened(block.header, room * 2 // 3) if block and block.body <= start < block.end else ""
        room -= _estimated_tokens(header)
        path: list[str] = []
        at = bisect_right(self.headings, start, key=lambda one: one.start) - 1
        if at >= 0 and start < self.headings[at].end:
            at = self.parents[at]
        while at >= 0:
            if (heading := self.headings[at].title).casefold() != title.strip().casefold():
                heading = heading if path else _shortened(heading, room)
                room -= _estimated_tokens(heading) + 1
                if room < 0 or not heading:
                    break
                path.insert(0, heading)
            at = self.parents[at]
        return "\n".join(line for line in (" > ".join(path), header) if line)


def passage_contexts(title: str, text: str, starts: Sequence[int], max_tokens: int) -> list[str]:
    """The context of each passage of a document, by where it starts. `max_tokens`: of a chunk."""
    if not any(starts):
        return [""] * len(starts)
    outline = outline_of(text)
    return [outline.context(start, title, max_tokens) for start in starts]


def outline_of(text: str) -> Outline:
    """The headings and blocks of a text, in time proportional to its length."""
    lines = text.replace("\ufeff", " ").split("\n")
    starts = [min(start, len(text)) for start in accumulate((len(line) + 1 for line in lines), initial=0)]
    blocks, free = _blocks(lines, starts)
    headings = _headings(lines, starts, free)
    parents: list[int] = []
    path: list[int] = []
    for at, heading in enumerate(headings):
        while path and headings[path[-1]].level >= heading.level:
            path.pop()
        parents.append(path[-1] if path else -1)
        path.append(at)
    return Outline(headings, parents, blocks)


def _headings(lines: Sequence[str], starts: Sequence[int], free: Sequence[int]) -> list[Heading]:
    """The headings among the lines `free`, which are in no block."""
    found: list[tuple[str, Heading]] = []
    hashes = comments = 0

    def add(kind: str, level: int, title: str, first: int, last: int) -> None:
        start = starts[first] + len(lines[first]) - len(lines[first].lstrip())
        found.append((kind, Heading(start, starts[last + 1], level, _MARKUP.sub(r"\1", title).strip())))

    texts = {at: lines[at].strip() for at in free}
    for at, line in texts.items():
        above, below = texts.get(at - 1, ""), texts.get(at + 1, "")
        if "<h" in line or "<H" in line:
            for tag in _HTML.finditer(lines[at]):
                start, end = (starts[at] + edge for edge in tag.span())
                found.append(("<", Heading(start, end, int(tag[1]), _MARKUP.sub(r"\1", tag[2]).strip())))
        elif len(line) > _MAX_HEADING:
            continue
        elif match := _MARKED.fullmatch(lines[at].rstrip()):
            code = _CODE.fullmatch(above) or _CODE.fullmatch(below)
            if line[0] == "#":
                hashes += 1
                comments += bool(code or match[1] in (above.partition(" ")[0], below.partition(" ")[0]))
            if not (code and match[1] == "#"):
                add(line[0], len(match[1]), match[2].rstrip("#= \t"), at, at)
        elif above and _UNDERLINE.fullmatch(line) and (line[0] in "=-" or len(line) >= len(above)):
            over = texts.get(at - 2, "")
            taken = _NO_TITLE.fullmatch(above) or (found and found[-1][1].end > starts[at - 1])
            if over in ("", line) and not taken:
                add("_" + line[0] + over[:1], 0, above, at - 2 if over else at - 1, at)
        elif not (above or below or _NO_TITLE.fullmatch(line)) and (match := _NUMBERED.fullmatch(line)):
            add("1", match[1].count(".") + 1, line, at, at)
    kinds = dict.fromkeys(kind for kind, _ in found)
    if 2 * comments > hashes or lines[0].startswith("#!"):
        kinds.pop("#", None)
    if kinds.keys() != {"1"} or all(one.level == 1 for _, one in found):
        kinds.pop("1", None)
    order = [kind for kind in kinds if kind[0] == "_"]
    if {"_=", "_-"}.issuperset(order):
        order = ["_=", "_-"]
    levels = {kind: level for level, kind in enumerate(order, start=1)}
    return [replace(one, level=levels.get(kind, one.level)) for kind, one in found if kind in kinds]


def _blocks(lines: Sequence[str], starts: Sequence[int]) -> tuple[list[Block], list[int]]:
    """The code blocks and tables, and the lines outside of them that are not blank."""
    blocks: list[Block] = []
    free: list[int] = []
    delimiters = [one for one in "\t;," if any(one in line for line in lines)]
    at = 0
    while at < len(lines):
        line, below = lines[at].strip(), lines[at + 1].strip() if at + 1 < len(lines) else ""
        rows: Sequence[int] = ()
        header, body = "", at + 1
        above = lines[at - 1].strip() if at else ""
        if (fence := _FENCE.match(line)) and not (line[0] == "~" and above and len(line) >= len(above)):
            end = _end_of_code(lines, at, fence[0])
            rows = range(at, max(end - 1, at + 1) if lines[end - 1].strip().startswith(fence[0]) else end)
        elif "|" in line and _DELIMITER_ROW.fullmatch(below):
            header, body = " | ".join(cell for one in line.split("|") if (cell := one.strip())), at + 2
            end = next((row for row in range(body, len(lines)) if not _ROW.match(lines[row])), len(lines))
            rows = range(at, end)
        elif records := next(filter(None, (_records(lines, at, delimiter) for delimiter in delimiters)), None):
            header, (*rows, end) = line, records
        if rows:
            blocks.append(Block(starts[at], starts[end], starts[body], tuple(starts[row] for row in rows), header))
            at = end
        else:
            free += [at] * bool(line)
            at += 1
    return blocks, free


def _end_of_code(lines: Sequence[str], at: int, fence: str) -> int:
    """The line below the code block that opens in line `at`; without a closing fence it is the rest of the text."""
    for row in range(at + 1, len(lines)):
        if (line := lines[row].strip()).startswith(fence) and not line.strip(fence[0]):
            return row + 1
    return len(lines)


def _records(lines: Sequence[str], at: int, delimiter: str) -> list[int]:
    """The lines at which delimited records start, the header first, and the line below the last one; or none.

    The header and at least two records have as many cells, and prose is excluded: see `_is_header`.
    """
    names = _cells(lines[at], delimiter)
    if len(names) < 2 or len(set(names)) < len(names) or not all(_COLUMN.fullmatch(name.strip()) for name in names):
        return []
    rows, end = [at], at + 1
    samples: list[list[str]] = []
    while end < len(lines):
        record, following = lines[end], end + 1
        while record.count('"') % 2 and len(record) < _MAX_RECORD and following < min(len(lines), end + 20):
            record, following = f"{record} {lines[following]}", following + 1
        cells = _cells(record, delimiter)
        if len(cells) != len(names):
            break
        rows.append(end)
        end = following
        if len(samples) < 2:
            samples.append(cells)
            if len(samples) == 2 and not _is_header(names, samples):
                return []
    return [*rows, end] if len(samples) == 2 else []


def _cells(record: str, delimiter: str) -> list[str]:
    """The cells of one record; none of a line without the delimiter."""
    if delimiter not in record or len(record) > _MAX_RECORD:
        return []
    return next(csv.reader([record], delimiter=delimiter)) if '"' in record else record.split(delimiter)


def _is_header(names: Sequence[str], samples: Sequence[Sequence[str]]) -> bool:
    """Whether numbers stand below a name, or no cell begins with a space, as the parts of a sentence do."""
    numbers = [all(_NUMBER.fullmatch(cell.strip()) for cell in column) for column in zip(*samples, strict=True)]
    spaced = any(cell.startswith(" ") for row in (names, *samples) for cell in row)
    return any(numbers) or not spaced


@lru_cache(maxsize=1024)
def _estimated_tokens(text: str) -> int:
    """About as many tokens as a tokenizer makes of a text, rather more than fewer."""
    return sum(1 for _ in _PIECE.finditer(text))


def _shortened(text: str, most: int) -> str:
    """The first words of a text, in at most `most` estimated tokens."""
    if _estimated_tokens(text) <= most:
        return text
    cut = text[: next(islice(_PIECE.finditer(text), max(0, most), None)).start()]
    return (cut.rpartition(" ")[0] or cut).rstrip(" |,;\t")
