"""JSON over HTTP: bodies are read strictly and within the limits, answers are written with orjson."""

import codecs
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeVar

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.content_coding import unpacked_body
from service.api.large_json import WHOLE_BYTES, loads, loads_in_parts
from service.core.concurrency import give_way, off_loop
from service.core.errors import TooLarge
from service.core.portions import portions

T = TypeVar("T")

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
NDJSON = "application/x-ndjson"
WRITTEN_AT_ONCE: Final = 8
SENT_AT_ONCE: Final = 2**20
ON_LOOP_BYTES: Final = 8_192
"""What is not larger is done on the event loop: a change of threads costs more than the few milliseconds at most."""
_NO_NUMBERS = re.compile(rb"[:,\[]\s*[+-]?(NaN|Infinity|inf)\b", re.IGNORECASE)


class JsonResponse(Response):
    """An answer of dicts, lists, texts, numbers, times and dataclasses, whose fields are written in their order."""

    media_type = JSON

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


async def large_answer(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that may be large: written off the event loop, a few elements of its lists at once, and sent so."""

    def parts() -> list[bytes]:
        return [b"".join(some) for some in portions(list(_parts(content)), len, SENT_AT_ONCE)]

    first, *others = await off_loop(0, parts)
    if not others:
        return Response(first, headers=headers, media_type=JSON)
    return _ResponseInParts([first, *others], headers or {})


class _ResponseInParts(Response):
    """The server copies what it is given to send, on the event loop: with 80 MB at once all others would wait."""

    def __init__(self, parts: list[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "content-length": str(sum(map(len, parts)))}, media_type=JSON)
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})


def written(value: Any) -> bytes:
    """As JSON, a few elements of its lists at once."""
    return b"".join(_parts(value))


def _parts(value: Any) -> Iterator[bytes]:
    """An iterator is written as a list."""
    if isinstance(value, dict):
        for at, (name, one) in enumerate(value.items()):
            yield b"%b%b:" % (b"," if at else b"{", orjson.dumps(name))
            yield from _parts(one)
        yield b"}" if value else b"{}"
    elif isinstance(value, list | Iterator):
        elements, between = iter(value), b"["
        while group := list(islice(elements, WRITTEN_AT_ONCE)):
            give_way()
            # Lists within lists are written on their own, so that what is left for one call is little.
            nested = [orjson.Fragment(written(one)) if isinstance(one, list) else one for one in group]
            yield between + orjson.dumps(nested)[1:-1]
            between = b","
        yield b"]" if between == b"," else b"[]"
    else:
        yield orjson.dumps(value)


def parse_json(data: bytes) -> Any:
    """JSON as the standard has it. ValueError for NaN, invalid UTF-8, half surrogates, a key twice, bottomless nesting.

    TooLarge where `data` is large and a part of it cannot be parsed in the time that may be taken at once. Integers
    keep every digit, so that whoever checks them sees what was sent.
    """
    try:
        return loads(data) if len(data) <= WHOLE_BYTES else loads_in_parts(data)
    except ValueError as error:
        reason = str(error).replace("recursion limit exceeded", "nested too deeply").replace("Detected dup", "dup")
        if _NO_NUMBERS.search(data[:WHOLE_BYTES]):
            reason += " (NaN and Infinity are no JSON)"
        raise ValueError(reason) from error


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. TooLarge as soon as it is known to have more than `max_bytes`."""
    too_large = TooLarge(f"the body is larger than {max_bytes} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    async for part in unpacked_body(request):
        body += part
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _without_mark(data: bytes) -> bytes:
    """Without a byte order mark. 400 for another encoding than UTF-8: no JSON text begins with NUL among four bytes."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]:
        raise HTTPException(400, "the body is in UTF-16 or UTF-32; JSON is sent in UTF-8")
    return data.removeprefix(codecs.BOM_UTF8)


async def read_json(request: Request, max_bytes: int, convert: Callable[[Any], T]) -> T | None:
    """What `convert` makes of the body, which is JSON; None where there is no body. Large ones: off the event loop."""
    if media_type(request) not in {JSON, ""} and (request.method, media_type(request)) != ("PATCH", MERGE_PATCH):
        raise HTTPException(415, f"this route takes {JSON}, not {media_type(request)}")
    data = _without_mark(await read_body(request, max_bytes))
    if data and not media_type(request):
        raise HTTPException(415, f"the body has no content type; this route takes {JSON}")

    def read() -> T | None:
        try:
            content = parse_json(data) if data else None
        except ValueError as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from error
        return None if content is None else convert(content)

    return read() if len(data) <= ON_LOOP_BYTES else await off_loop(len(data), read)


NumberedLines = list[tuple[int, bytes | None]]
LINES_AT_ONCE: Final = 500


async def read_lines(request: Request, max_bytes: int) -> AsyncIterator[NumberedLines]:
    """The lines of an NDJSON stream, numbered from 1, blank ones left out; None where one has more than `max_bytes`.

    They come in small groups, between which others get their turn. Holds at most one line and one network chunk,
    however long the stream or a line is.
    """
    number, pending, too_long = 1, bytearray(), False
    async for chunk in unpacked_body(request):
        lines: NumberedLines = []
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            if not (piece or pending or too_long):  # millions of blank lines must not take seconds
                number += 1
                continue
            too_long = too_long or len(pending) + len(piece) > max_bytes
            line = None if too_long else _line(number, pending + piece)
            if line is None or line:
                lines.append((number, line))
            if len(lines) >= LINES_AT_ONCE:
                yield lines
                lines = []
            number, too_long = number + 1, False
            pending.clear()
        too_long = too_long or len(pending) + len(rest) > max_bytes
        if too_long:
            pending.clear()
        else:
            pending += rest
        if lines:
            yield lines
    if too_long:
        yield [(number, None)]
    elif line := _line(number, pending):
        yield [(number, line)]


def _line(number: int, data: bytearray) -> bytes:
    line = bytes(data)
    return (_without_mark(line) if number == 1 else line).strip()
