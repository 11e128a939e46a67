"""The context of a passage: the path of headings above it, and the header of the table that it continues.

Both are recognised in the document's text alone, so that they can be told again when a passage is read back. Headings
are those of Markdown, AsciiDoc, wikis, reStructuredText and HTML, and numbered lines ("2.1 Scope") where there are no
others. In doubt a line is no heading: the comments of a script, what stands in a code block, a sentence.
"""

import csv
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice, pairwise
from typing import Literal

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
_NO_TITLE = re.compile(r"[-*+>|•]\s.*|\w+:\s.*|[\W_]+|.*[.,;:!?。，；：]")
_MARKUP = re.compile(r"<[^<>]*>|\{#[^{}]*\}|[*`]+|!?\[([^\[\]]*)\]\([^()]*\)")
_CODE = re.compile(r"""[a-z_$@{}].*(?<![.!?])|\[[\w.-]+\]|[A-Z_]{3,}[ =].*|.*(?:[;{}\\]|\(\)|&&)|\w+\s?[:+]?=.*""")
_DELIMITER_ROW = re.compile(r"(?=.*[|+])(?=.*[-=])[|+:=\- \t]+")
_NUMBER = re.compile(r"[-+$€£¥~<>]{0,2}\d[\d.,:/ \-]*(?:%|[^\W\d]{1,3})?")
_ROW = re.compile(r".*\||[ \t]*\+[-=+]+")
_COLUMN = re.compile(r"(?!\d[\d.,:/ -]*$)\w[\w .#%/°$€&+-]{0,40}(?:[(\[][^()\[\]]{0,20}[)\]])?|(?:19|20)\d\d")
_GAP = re.compile(r"\s*(?=\S)")
_PIECE = re.compile(r"[A-Za-z]{1,4}|\S")


PartKind = Literal["heading", "lead", "row", "text"]


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a text, from `start` to the next part: a heading, a row of a table or a line of code, or text.

    `lead`: the header of a table, with the line below it, or the opening fence of code. `path`: the titles of the
    headings above, from the highest. `header`: of the table, for its rows.
    """

    start: int
    kind: PartKind
    path: tuple[str, ...] = ()
    header: str = ""


def context_at(parts: Sequence[Part], start: int, title: str, max_tokens: int) -> str:
    """The path of headings and the table header of the passage at `start`, each in a line, as far as there are any.

    Neither the title nor a heading with which the passage begins is repeated. `max_tokens`: of a chunk. Where the room
    does not suffice, the highest headings are left out first. Tokens are estimated from the characters, so that the
    context is the same wherever it is made.
    """
    if not parts:
        return ""
    part = parts[bisect_right(parts, start, key=lambda one: one.start) - 1]
    room = max_tokens // _SHARE - estimated_tokens(title)
    header = _shortened(part.header, room * 2 // 3)
    room -= estimated_tokens(header)
    path: list[str] = []
    for heading in reversed(part.path):
        if heading.casefold() != title.strip().casefold():
            shown = heading if path else _shortened(heading, room)
            room -= estimated_tokens(shown) + 1
            if room < 0 or not shown:
                break
            path.insert(0, shown)
    return "\n".join(line for line in (" > ".join(path), header) if line)


def parts_of(text: str) -> list[Part]:
    """The parts of a text, in time proportional to its length; none of a text without headings, tables and code."""
    lines = text.replace("\ufeff", " ").split("\n")
    offsets = accumulate((len(line) + 1 for line in lines), initial=0)
    starts = [offset + len(line) - len(line.lstrip()) for offset, line in zip(offsets, lines, strict=False)]
    rows, free = _rows(lines, starts)
    headings = _headings(lines, starts, free)
    if not rows and not headings:
        return []
    paragraphs = [starts[at] for before, at in pairwise([-2, *free]) if before < at - 1]
    behind = [gap.end() for end, _, _ in headings.values() if (gap := _GAP.match(text, end))]
    parts: list[Part] = []
    path: list[tuple[int, str]] = []
    titles: tuple[str, ...] = ()
    for start in sorted({0, *paragraphs, *behind, *rows, *headings}):
        if start in headings:
            _, level, title = headings[start]
            path = [one for one in path if one[0] < level]
            parts.append(Part(start, "heading", tuple(one for _, one in path)))
            path.append((level, title))
            titles = tuple(one for _, one in path)
        else:
            kind, header = rows.get(start, ("text", ""))
            parts.append(Part(start, kind, titles, header))
    return parts


def _headings(lines: Sequence[str], starts: Sequence[int], free: Sequence[int]) -> dict[int, tuple[int, int, str]]:
    """End, level and title of each heading among the lines `free`, by its start."""
    found: list[tuple[str, int, int, int, str]] = []  # kind, start, end, level, title
    hashes = comments = 0

    def add(kind: str, level: int, title: str, start: int, end: int) -> None:
        found.append((kind, start, end, level, _MARKUP.sub(r"\1", title).strip()))

    texts = {at: lines[at].strip() for at in free}
    for at, line in texts.items():
        start, end = starts[at], starts[at] + len(line)
        above, below = texts.get(at - 1, ""), texts.get(at + 1, "")
        if "<h" in line or "<H" in line:
            for tag in _HTML.finditer(line):
                add("<", int(tag[1]), tag[2], start + tag.start(), start + tag.end())
        elif len(line) > _MAX_HEADING:
            continue
        elif match := _MARKED.fullmatch(lines[at].rstrip()):
            code = _CODE.fullmatch(above) or _CODE.fullmatch(below)
            if line[0] == "#":
                hashes += 1
                comments += bool(code or match[1] in (above.partition(" ")[0], below.partition(" ")[0]))
            if not (code and match[1] == "#"):
                add(line[0], len(match[1]), match[2].rstrip("#= \t"), start, end)
        elif above and _UNDERLINE.fullmatch(line) and (line[0] in "=-" or len(line) >= len(above)):
            over = texts.get(at - 2, "")
            taken = _NO_TITLE.fullmatch(above) or (found and found[-1][2] > starts[at - 1])
            if over in ("", line) and not taken:
                add("_" + line[0] + over[:1], 0, above, starts[at - 2 if over else at - 1], end)
        elif not (above or below or _NO_TITLE.fullmatch(line)) and (match := _NUMBERED.fullmatch(line)):
            add("1", match[1].count(".") + 1, line, start, end)
    kinds = dict.fromkeys(kind for kind, *_ in found)
    if 2 * comments > hashes or lines[0].startswith("#!"):
        kinds.pop("#", None)
    if kinds.keys() != {"1"} or all(level == 1 for _, _, _, level, _ in found):
        kinds.pop("1", None)
    order = [kind for kind in kinds if kind[0] == "_"]
    if {"_=", "_-"}.issuperset(order):
        order = ["_=", "_-"]
    levels = {kind: level for level, kind in enumerate(order, start=1)}
    return {start: (end, levels.get(kind, level), title) for kind, start, end, level, title in found if kind in kinds}


def _rows(lines: Sequence[str], starts: Sequence[int]) -> tuple[dict[int, tuple[PartKind, str]], list[int]]:
    """Kind and header of the lines of code and tables, by their start, and the other lines that are not blank."""
    rows: dict[int, tuple[PartKind, str]] = {}
    free: list[int] = []
    delimiters = [one for one in "\t;," if any(one in line for line in lines)]
    at = 0
    while at < len(lines):
        line, above = lines[at].strip(), lines[at - 1].strip() if at else ""
        body, end = at + 1, at + 1
        header = ""
        records: list[int] = []
        if not line:
            pass
        elif (fence := _FENCE.match(line)) and not (line[0] == "~" and above and len(line) >= len(above)):
            closing = _closing_fence(lines, at, fence[0])
            end = min(closing + 1, len(lines))
            records = [row for row in range(at, max(closing, body)) if lines[row].strip()]
        elif "|" in line and body < len(lines) and _DELIMITER_ROW.fullmatch(lines[body].strip()):
            header, body = " | ".join(cell for one in line.split("|") if (cell := one.strip())), at + 2
            end = next((row for row in range(body, len(lines)) if not _ROW.match(lines[row])), len(lines))
            records = list(range(at, end))
        elif found := next(filter(None, (_records(lines, at, delimiter) for delimiter in delimiters)), None):
            header, (*records, end) = line, found
        else:
            free.append(at)
        rows |= {starts[row]: ("lead", "") if row < body else ("row", header) for row in records}
        at = end
    return rows, free


def _closing_fence(lines: Sequence[str], at: int, fence: str) -> int:
    """The line that closes the code block that opens in line `at`; a block that is never closed is the whole rest."""
    for row in range(at + 1, len(lines)):
        if (line := lines[row].strip()).startswith(fence) and not line.strip(fence[0]):
            return row
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
    return (
        next(csv.reader([record.replace("\r", " ")], delimiter=delimiter)) if '"' in record else record.split(delimiter)
    )


def _is_header(names: Sequence[str], samples: Sequence[Sequence[str]]) -> bool:
    """Whether numbers stand below a name, or no cell begins with a space, as the parts of a sentence do."""
    numbers = [all(_NUMBER.fullmatch(cell.strip()) for cell in column) for column in zip(*samples, strict=True)]
    spaced = any(cell.startswith(" ") for row in (names, *samples) for cell in row)
    return any(numbers) or not spaced


@lru_cache(maxsize=1024)
def estimated_tokens(text: str) -> int:
    """About as many tokens as a tokenizer makes of a text, rather more than fewer."""
    return sum(1 for _ in _PIECE.finditer(text))


def _shortened(text: str, most: int) -> str:
    """The first words of a text, in at most `most` estimated tokens."""
    if not text or estimated_tokens(text) <= most:
        return text
    cut = text[: next(islice(_PIECE.finditer(text), max(0, most), None)).start()]
    return (cut.rpartition(" ")[0] or cut).rstrip(" |,;\t")
