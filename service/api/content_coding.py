"""Content codings (RFC 9110, 8.4): compressed bodies of requests are unpacked, responses are compressed where asked."""

import asyncio
import re
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from service.core.errors import TooLarge

PIECE_BYTES = 65_536
"""Bytes that are unpacked at once; between two pieces other requests get their turn."""
MAX_RATIO, FREE_BYTES = 200, 16 * 2**20
"""A body of more bytes than the latter that unpacks to more than so many times its size is a bomb. JSON shrinks to a
tenth, rarely to a hundredth; the most that gzip can do is a thousandth."""
LEAST_BYTES_PER_SECOND = 500
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "gzip": lambda _: zlib.decompressobj(16 + zlib.MAX_WBITS),
    # Wrapped by zlib, as the standard has it, or bare, as some clients send it.
    "deflate": lambda data: zlib.decompressobj(zlib.MAX_WBITS if data[0] & 15 == zlib.DEFLATED else -zlib.MAX_WBITS),
}
_FAILURES: tuple[type[Exception], ...] = (zlib.error,)
with suppress(ImportError):  # the extra `zstd`
    zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    # 8 MiB: the largest window that a sender may use over HTTP (RFC 9659).
    DECODERS["zstd"] = lambda _: zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})
    _FAILURES += (zstd.ZstdError,)
_WEIGHTED = re.compile(r"([\w*-]+)\s*(?:;\s*q=([01](?:\.\d*)?))?")


async def unpacked_body(request: Request) -> AsyncIterator[bytes]:
    """The parts of the body as they arrive, unpacked in constant memory.

    415 for a coding that is not known, or for several; 400 where the body is not what it says it is, or ends too
    early; TooLarge for a bomb.
    """
    listed = ",".join(request.headers.getlist("content-encoding")).lower().replace("x-gzip", "gzip").split(",")
    coding = ", ".join(one.strip() for one in listed if one.strip() not in ("", "identity"))
    if not coding:
        async for part in _arriving(request):
            yield part
        return
    if (start := DECODERS.get(coding)) is None:
        known = ", ".join(["identity", *DECODERS])
        raise HTTPException(
            415, f"the body is coded as {coding}; send it in one of {known}", {"Accept-Encoding": known}
        )
    decoder, packed, unpacked = None, 0, 0
    async for part in _arriving(request):
        packed += len(part)
        if decoder is not None and decoder.eof:
            part = part.lstrip(b"\0")  # the padding of archives
        while part:
            if decoder is None or decoder.eof:
                decoder = start(part)
            try:
                for piece in _unpack(decoder, part):
                    unpacked += len(piece)
                    if unpacked > max(FREE_BYTES, MAX_RATIO * packed):
                        raise TooLarge(f"the body unpacks to more than {MAX_RATIO} times its size")
                    yield piece
                    await asyncio.sleep(0)
            except _FAILURES as error:
                raise HTTPException(400, f"the body is not {coding}, or it is damaged") from error
            part = decoder.unused_data.lstrip(b"\0")  # another member
    if decoder is not None and not decoder.eof:
        raise HTTPException(400, f"the body ends within its {coding} stream")


async def _arriving(request: Request) -> AsyncIterator[bytes]:
    """The parts of the body. 408 where waiting for them takes longer than is given for each body and each byte.

    So do web servers (Apache's mod_reqtimeout): a client that sends a byte now and then would stay for ever.
    """
    left = request.app.state.service.limits.body_seconds
    stream = request.stream()
    while True:
        asked = time.monotonic()
        try:
            async with asyncio.timeout(left):
                part = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise HTTPException(408, "the body did not arrive in time", {"Connection": "close"}) from error
        left += len(part) / LEAST_BYTES_PER_SECOND - (time.monotonic() - asked)
        yield part


def _unpack(decoder: Any, data: bytes) -> Iterator[bytes]:
    while True:
        piece = decoder.decompress(data, PIECE_BYTES)
        data = getattr(decoder, "unconsumed_tail", b"")  # others keep it themselves
        if piece:
            yield piece
        if decoder.eof or (len(piece) < PIECE_BYTES and not data):
            return


class CompressionMiddleware(GZipMiddleware):
    """Compresses responses where clients prefer that, large ones in a thread. Event streams stay as they are."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # What is inherited looks for the name alone, without its weight.
            accepted = b"gzip" if wants_gzip(",".join(Headers(scope=scope).getlist("accept-encoding"))) else b"identity"
            others = [header for header in scope["headers"] if header[0] != b"accept-encoding"]
            scope["headers"] = [*others, (b"accept-encoding", accepted)]
        await super().__call__(scope, receive, send)


def wants_gzip(accepted: str) -> bool:
    """Whether an `Accept-Encoding` prefers gzip to no coding (RFC 9110, 12.5.3)."""
    weights = {name.removeprefix("x-"): float(weight or 1) for name, weight in _WEIGHTED.findall(accepted.lower())}
    gzip = weights.get("gzip", weights.get("*", 0.0))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)
