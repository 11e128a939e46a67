"""JSON over HTTP: bodies are read strictly and within the limits, answers are written with orjson."""

import codecs
import re
from collections.abc import AsyncIterator
from typing import Any

import jiter
import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.api.content_coding import unpacked_body
from service.core.errors import TooLarge

JSON = "application/json"
NDJSON = "application/x-ndjson"
_NO_NUMBERS = re.compile(rb"[:,\[]\s*[+-]?(NaN|Infinity|inf)\b", re.IGNORECASE)


class JsonResponse(Response):
    """An answer of dicts, lists, texts, numbers, times and dataclasses, whose fields are written in their order."""

    media_type = JSON

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def parse_json(data: bytes) -> Any:
    """JSON as the standard has it. ValueError for NaN, invalid UTF-8, half surrogates, a key twice, bottomless nesting.

    Integers keep every digit, so that whoever checks them sees what was sent.
    """
    try:
        return jiter.from_json(data, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        reason = str(error).replace("recursion limit exceeded", "nested too deeply").replace("Detected dup", "dup")
        if _NO_NUMBERS.search(data):
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


async def read_json(request: Request, max_bytes: int) -> Any:
    """The body as JSON; None where there is no body at all."""
    if media_type(request) not in {JSON, ""}:
        raise HTTPException(415, f"this route takes {JSON}, not {media_type(request)}")
    data = _without_mark(await read_body(request, max_bytes))
    if not data:
        return None
    if not media_type(request):
        raise HTTPException(415, f"the body has no content type; this route takes {JSON}")
    try:
        return parse_json(data)
    except ValueError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error


async def read_lines(request: Request, max_bytes: int) -> AsyncIterator[tuple[int, bytes | None]]:
    """The lines of an NDJSON stream, numbered from 1, blank ones left out; None where one has more than `max_bytes`.

    Holds at most one line and one network chunk, however long the stream or a line is.
    """
    number, pending, too_long = 1, bytearray(), False
    async for chunk in unpacked_body(request):
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            if not (piece or pending or too_long):  # millions of blank lines must not take seconds
                number += 1
                continue
            too_long = too_long or len(pending) + len(piece) > max_bytes
            line = None if too_long else _line(number, pending + piece)
            if line is None or line:
                yield number, line
            number, too_long = number + 1, False
            pending.clear()
        too_long = too_long or len(pending) + len(rest) > max_bytes
        if too_long:
            pending.clear()
        else:
            pending += rest
    if too_long:
        yield number, None
    elif line := _line(number, pending):
        yield number, line


def _line(number: int, data: bytearray) -> bytes:
    line = bytes(data)
    return (_without_mark(line) if number == 1 else line).strip()
