"""Reading request bodies: strictly, and never more of them than the limits allow."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.core.errors import TooLarge

JSON = "application/json"
NDJSON = "application/x-ndjson"


def parse(data: bytes | str) -> Any:
    """JSON as the standard has it. ValueError for NaN, invalid UTF-8, half surrogates and bottomless nesting.

    Integers keep every digit, so that whoever checks them sees what was sent.
    """
    return from_json(data, allow_inf_nan=False)


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read(request: Request, limit: int) -> bytes:
    """The whole body. TooLarge as soon as it is known to be larger than `limit` bytes."""
    too_large = TooLarge(f"the body is larger than {limit} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def read_json(request: Request, limit: int) -> Any:
    """The body as JSON; None where there is no body at all."""
    if media_type(request) not in {JSON, ""}:
        raise HTTPException(415, f"this route takes {JSON}, not {media_type(request)}")
    data = await read(request, limit)
    if not data:
        return None
    if not media_type(request):
        raise HTTPException(415, f"the body has no content type; this route takes {JSON}")
    try:
        return parse(data)
    except ValueError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error


async def lines(request: Request, longest: int) -> AsyncIterator[tuple[int, bytes | None]]:
    """The lines of an NDJSON stream, numbered from 1, blank ones left out; None where one is longer than `longest`.

    Holds at most one line and one network chunk, however long the stream or a line is.
    """
    number, held, overlong = 1, bytearray(), False
    async for chunk in request.stream():
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            overlong = overlong or len(held) + len(piece) > longest
            line = None if overlong else bytes(held + piece).strip()
            if line is None or line:
                yield number, line
            number, overlong = number + 1, False
            held.clear()
        overlong = overlong or len(held) + len(rest) > longest
        if overlong:
            held.clear()
        else:
            held += rest
    if overlong:
        yield number, None
    elif line := bytes(held).strip():
        yield number, line


class _ReadRequest(Request):
    """A request whose body was read and parsed already; FastAPI asks it for both."""

    def __init__(self, request: Request, body: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._read = body

    async def body(self) -> bytes:
        return b"" if self._read is None else b"read"

    async def json(self) -> Any:
        return self._read


class JsonRoute(APIRoute):
    """A route that reads its declared body by the rules of this module."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def read_and_handle(request: Request) -> Response:
            limit = request.app.state.service.limits.body_bytes
            return await handle(_ReadRequest(request, await read_json(request, limit)))

        return read_and_handle
