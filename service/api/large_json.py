"""Large JSON objects, parsed part by part.

The parser and the validator are native code that holds Python's lock until it returns, in a thread as well as on the
event loop. So a large body is cut between the members of its object and between the elements of its members that are
lists (documents, searches, judgments). Each part takes milliseconds, and what is too large for that is refused before
anything is made of it.
"""

import re
from typing import Any, Final

import jiter

from service.core.errors import TooLarge

WHOLE_BYTES: Final = 65_536
"""What is not larger is parsed at once: milliseconds, whatever it holds."""
MAX_PART: Final = 400_000
"""Most numbers in one part; a text, a key, a list or an object counts as `WEIGHT` numbers, for as long it takes."""
WEIGHT: Final = 8
MAX_TEXT_BYTES: Final = 12 * 2**20
"""Longest text: two million characters, each written as an escape."""
MAX_DEPTH: Final = 200
MAX_ELEMENTS: Final = 250_000
"""Members of the object and elements of its lists: more than any route takes."""

_WINDOW: Final = 65_536
_MARKS = re.compile(rb'["\[\]{},]')
_NEXT_MEMBER = re.compile(rb"\s{0,1000}([,}])")


def loads(data: bytes) -> Any:
    """JSON as the standard has it; ValueError for anything else, NaN and a key twice included."""
    return jiter.from_json(data, allow_inf_nan=False, catch_duplicate_keys=True)


def loads_in_parts(data: bytes) -> Any:
    """The object. ValueError where it is none; TooLarge where one of its parts is too large to be parsed at once."""
    return _Parts(data).object()


class _Parts:
    """`start`: where the part begins that is not parsed yet. `cut`: the list that the part belongs to, if it does."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._found: dict[str, Any] = {}
        self._cut: list[Any] | None = None
        self._start = self._weight = 0
        self._required = False

    def object(self) -> dict[str, Any]:
        at = depth = opened = elements = 0
        while True:
            mark, at = self._next_mark(at)
            self._weight += 1 if mark == b"," else WEIGHT
            if self._weight > MAX_PART:
                raise TooLarge(
                    f"one element or field has more than {MAX_PART} numbers, or {MAX_PART // WEIGHT} texts, keys and "
                    "lists: send less at once"
                )
            if mark == b'"':
                at = self._end_of_text(at)
            elif mark in (b"[", b"{"):
                depth += 1
                if depth > MAX_DEPTH:
                    raise ValueError("nested too deeply")
                if depth == 1:
                    self._begin(mark, at)
                elif depth == 2:
                    opened = at if mark == b"[" else 0
            elif mark == b"," and depth <= 2:
                elements += 1
                if elements > MAX_ELEMENTS:
                    raise TooLarge(f"the body has more than {MAX_ELEMENTS} elements: send less at once")
                if depth == 1 and at - self._start > WHOLE_BYTES:
                    self._members(at - 1)
                    self._go_on(at, required=True)
                elif depth == 2 and opened and at - self._start > WHOLE_BYTES:
                    self._elements(opened, at - 1)
                    self._go_on(at, required=True)
            elif mark != b",":
                depth -= 1
                if depth == 1 and self._cut is not None:
                    self._elements(opened, at - 1)
                    self._cut = None
                    if mark != b"]" or (after := _NEXT_MEMBER.match(self._data, at)) is None:
                        raise ValueError(f"expected `,` or `}}` after the list that ends at byte {at}")
                    at = after.end() if after[1] == b"," else at
                    self._go_on(at, required=after[1] == b",")
                if depth == 0:
                    if mark != b"}" or self._data[at:].strip():
                        raise ValueError(f"trailing characters after byte {at}")
                    self._members(at - 1)
                    return self._found

    def _next_mark(self, at: int) -> tuple[bytes, int]:
        """The next bracket, comma or quote, and where it ends. Between two of them is one number at most."""
        while (mark := _MARKS.search(self._data, at, at + _WINDOW)) is None:
            if not self._data[at : at + _WINDOW].isspace():
                raise ValueError(f"the value at byte {at} is unreadable or does not end")
            at += _WINDOW
        return mark[0], mark.end()

    def _end_of_text(self, at: int) -> int:
        start = at
        while (end := self._data.find(b'"', at, start + MAX_TEXT_BYTES)) >= 0:
            text = self._data[at:end]
            if (len(text) - len(text.rstrip(b"\\"))) % 2 == 0:
                return end + 1
            at = end + 1
        if len(self._data) > start + MAX_TEXT_BYTES:
            raise TooLarge(f"a text has more than {MAX_TEXT_BYTES} bytes")
        raise ValueError(f"the text at byte {start} does not end")

    def _begin(self, mark: bytes, at: int) -> None:
        if mark != b"{" or self._data[: at - 1].strip():
            raise ValueError("expected an object, which begins with `{`")
        self._start = at

    def _go_on(self, at: int, *, required: bool) -> None:
        self._start, self._weight, self._required = at, 0, required

    def _members(self, end: int, tail: bytes = b"") -> dict[str, Any]:
        found: dict[str, Any] = self._parsed(b"{%b}", end, tail)
        if found.keys() & self._found.keys():
            raise ValueError(f"duplicate key in the part that begins at byte {self._start}")
        self._found |= found
        return found

    def _elements(self, opened: int, end: int) -> None:
        if self._cut is None:  # the part begins with members before the list, and with the list's own name
            self._cut = [*self._members(opened, b"]").values()][-1]
            self._start, self._required = opened, True
        self._cut += self._parsed(b"[%b]", end)

    def _parsed(self, form: bytes, end: int, tail: bytes = b"") -> Any:
        try:
            found = loads(form % (self._data[self._start : end] + tail))
        except ValueError as error:
            reason = str(error).partition(" at line ")[0]
            raise ValueError(f"{reason} between the bytes {self._start} and {end}") from error
        if self._required and not found:
            raise ValueError(f"expected a value at byte {end}")
        return found
