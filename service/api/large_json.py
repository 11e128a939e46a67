"""Large JSON objects, parsed part by part.

The parser and the validator are native code that holds Python's lock until it returns, in a thread as well as on the
event loop. So the lists of a large object (documents, searches, judgments) are parsed some elements at a time, and the
object is parsed without them. What is too large for that is refused before anything is made of it.
"""

import re
from typing import Any, Final

import jiter

from service.core.concurrency import give_way
from service.core.errors import TooLarge

WHOLE_BYTES: Final = 65_536
"""What is not larger is parsed at once: milliseconds, whatever it holds."""
MAX_PART: Final = 400_000
"""Most numbers in one part; a text, a key, a list or an object counts as `WEIGHT` numbers, for as long it takes, and
64 bytes of text as one."""
WEIGHT: Final = 8
MAX_TEXT_BYTES: Final = 12 * 2**20
"""Longest text: two million characters, each written as an escape."""
MAX_DEPTH: Final = 200
MAX_ELEMENTS: Final = 250_000
"""Elements of the lists of the object: more than any route takes."""

_WINDOW: Final = 65_536
_MARKS = re.compile(rb'["\[\]{}]')
_MARKS_AND_COMMAS = re.compile(rb'["\[\]{},]')


def loads(data: bytes) -> Any:
    """JSON as the standard has it; ValueError for anything else, NaN and a key twice included."""
    return jiter.from_json(data, allow_inf_nan=False, catch_duplicate_keys=True)


def loads_in_parts(data: bytes) -> dict[str, Any]:
    """The object. ValueError where it is none; TooLarge where one of its parts is too large to be parsed at once."""
    lists: list[list[Any]] = []
    outside = bytearray()  # the object with its lists empty
    at = start = depth = elements = 0
    in_list, weights = False, [0, 0]  # of what is outside, and of the elements that begin at `start`
    while True:
        mark, at, commas = _next_mark(data, at, _MARKS_AND_COMMAS if in_list and depth == 2 else _MARKS)
        if mark == b'"':
            end = _end_of_text(data, at)
            weights[in_list] += (end - at) // 64
            at = end
        weights[in_list] += commas + (1 if mark == b"," else WEIGHT)
        if weights[in_list] > MAX_PART:
            raise TooLarge(
                f"one element or field has more than {MAX_PART} numbers, or {MAX_PART // WEIGHT} texts, keys and "
                "lists, or long texts: send less at once"
            )
        give_way()
        if mark in (b"[", b"{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError("nested too deeply")
            if depth == 2 and mark == b"[":
                outside += data[start:at]
                lists.append([])
                start, in_list, weights[1] = at, True, 0
        elif mark == b",":
            elements += 1
            if elements > MAX_ELEMENTS:
                raise TooLarge(f"the body has more than {MAX_ELEMENTS} elements: send less at once")
            if at - start > WHOLE_BYTES:
                _read_elements(lists[-1], data, start, at - 1)
                start, weights[1] = at - 1, 0
        elif mark != b'"':
            depth -= 1
            if in_list and depth == 1:
                _read_elements(lists[-1], data, start, at - 1)
                start, in_list = at - 1, False
            if depth == 0:
                break
    found = loads(bytes(outside + data[start:]))
    if not isinstance(found, dict):
        raise ValueError("expected an object, which begins with `{`")
    filled = iter(lists)
    return {name: next(filled) if isinstance(value, list) else value for name, value in found.items()}


def _next_mark(data: bytes, at: int, marks: re.Pattern[bytes]) -> tuple[bytes, int, int]:
    """The next of `marks`, where it ends, and the commas before it."""
    commas = 0
    while (mark := marks.search(data, at, at + _WINDOW)) is None:
        found = data.count(b",", at, at + _WINDOW)
        if not found and not data[at : at + _WINDOW].isspace():
            raise ValueError(f"the value at byte {at} is unreadable or does not end")
        commas += found
        at += _WINDOW
    return mark[0], mark.end(), commas + data.count(b",", at, mark.start())


def _end_of_text(data: bytes, start: int) -> int:
    at = start
    while (end := data.find(b'"', at, start + MAX_TEXT_BYTES)) >= 0:
        text = data[at:end]
        if (len(text) - len(text.rstrip(b"\\"))) % 2 == 0:
            return end + 1
        at = end + 1
    if len(data) > start + MAX_TEXT_BYTES:
        raise TooLarge(f"a text has more than {MAX_TEXT_BYTES} bytes")
    raise ValueError(f"the text at byte {start} does not end")


def _read_elements(found: list[Any], data: bytes, start: int, end: int) -> None:
    """Append the next elements of a list. Later ones begin with their comma, which needs an element on both sides."""
    try:
        found += loads(b"[0%b]" % data[start:end])[1:] if found else loads(b"[%b]" % data[start:end])
    except ValueError as error:
        reason = str(error).partition(" at line ")[0]
        raise ValueError(f"{reason} between the bytes {start} and {end}") from error
