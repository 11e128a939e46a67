"""Content codings (RFC 9110, 8.4): compressed bodies of requests are unpacked, responses are compressed where asked."""

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.core.errors import TooLarge

PIECE_BYTES = 65_536
"""Bytes that are unpacked at once; between two pieces other requests get their turn."""
MAX_RATIO, FREE_BYTES = 200, 16 * 2**20
"""A body that unpacks to more than so many times its size is a bomb, once it has more than the latter. JSON shrinks to
a tenth, rarely to a hundredth; the most that gzip can do is a thousandth."""
MIN_COMPRESSED_BYTES = 1_500
"""A smaller response fits one network packet anyway."""

_DECODERS: dict[str, Callable[[bytes], Any]] = {
    "gzip": lambda _: zlib.decompressobj(16 + zlib.MAX_WBITS),
    # Wrapped by zlib, as the standard has it, or bare, as some clients send it.
    "deflate": lambda data: zlib.decompressobj(zlib.MAX_WBITS if data[0] & 15 == zlib.DEFLATED else -zlib.MAX_WBITS),
}
_DECODERS["x-gzip"] = _DECODERS["gzip"]
_FAILURES: tuple[type[Exception], ...] = (zlib.error,)
try:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
except ImportError:  # without the extra `zstd`
    pass
else:
    # 8 MiB: the largest window that a sender may use over HTTP (RFC 9659).
    _DECODERS["zstd"] = lambda _: zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})
    _FAILURES = (zlib.error, zstd.ZstdError)


async def unpacked_body(request: Request) -> AsyncIterator[bytes]:
    """The parts of the body as they arrive, unpacked in constant memory.

    415 for a coding that is not known, or for several; 400 where the body is not what it says it is, or ends too
    early; TooLarge for a bomb.
    """
    listed = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    codings = [coding for one in listed if (coding := one.strip()) not in ("", "identity")]
    if not codings:
        async for part in request.stream():
            yield part
        return
    start = _DECODERS.get(codings[0])
    if start is None or len(codings) > 1:
        known = ", ".join(["identity", *_DECODERS])
        reason = f"the body is coded as {', '.join(codings)}; send it in one of {known}"
        raise HTTPException(415, reason, {"Accept-Encoding": known})
    decoder, packed, unpacked = None, 0, 0
    async for part in request.stream():
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
                raise HTTPException(400, f"the body is not {codings[0]}: {error}") from error
            part = decoder.unused_data.lstrip(b"\0")  # another member
    if decoder is not None and not decoder.eof:
        raise HTTPException(400, f"the body ends within its {codings[0]} stream")


def _unpack(decoder: Any, data: bytes) -> Iterator[bytes]:
    while True:
        piece = decoder.decompress(data, PIECE_BYTES)
        data = getattr(decoder, "unconsumed_tail", b"")  # others keep it themselves
        if piece:
            yield piece
        if decoder.eof or (len(piece) < PIECE_BYTES and not data):
            return


class CompressionMiddleware:
    """Compresses responses with gzip where clients want it, large ones in a thread. Event streams stay as they are."""

    def __init__(self, app: ASGIApp) -> None:
        # Level 1: with text hardly larger than level 9, and several times as fast.
        self._app = GZipMiddleware(app, minimum_size=MIN_COMPRESSED_BYTES, compresslevel=1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # The middleware only looks for the name. It gets it where gzip is wanted, and nothing else.
            wanted = b"gzip" if wants_gzip(",".join(Headers(scope=scope).getlist("accept-encoding"))) else b"identity"
            others = [header for header in scope["headers"] if header[0] != b"accept-encoding"]
            scope["headers"] = [*others, (b"accept-encoding", wanted)]
        await self._app(scope, receive, send)


def wants_gzip(accepted: str) -> bool:
    """Whether an `Accept-Encoding` prefers gzip to no coding (RFC 9110, 12.5.3). What cannot be read counts as 0."""
    weights: dict[str, float] = {}
    for one in accepted.lower().split(","):
        coding, *parameters = (part.strip() for part in one.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            weights[coding.removeprefix("x-")] = float(weight)
        except ValueError:
            weights[coding.removeprefix("x-")] = 0.0
    gzip = weights.get("gzip", weights.get("*", 0.0))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)
