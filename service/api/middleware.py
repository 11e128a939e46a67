"""What happens around every request: an id, a log line, a metric, and the question who it is that asks."""

import asyncio
import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.core import metrics
from service.core.errors import Unavailable

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/docs", "/openapi.json"})
"""Answered without a key, as is the console's folder: none of them tells anything about the data."""
CONSOLE_FOLDER = "/console/"

_REQUEST_ID = re.compile(rb"[\w.:-]{1,128}", re.ASCII)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
CLIENT_GONE = 499
"""In log and metrics: the client left before it could be answered (nginx's number)."""


class RequestLog:
    """Names the request, and tells log and metrics what came of it. Outermost: also answers what nobody else caught.

    The log line has no path, no query and no body: those may hold document ids, texts and keys.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except ClientDisconnect:
            status = CLIENT_GONE
        except asyncio.CancelledError:
            if status:
                raise
            # The server stops and will not wait any longer. The task ends with this answer.
            await problems.of_service(scope, Unavailable("the service is stopping"))(scope, receive, send_named)
        except Exception as error:
            response = problems.of_surprise(scope, error)
            if status:  # half an answer is out: breaking the connection is the only way to say so
                raise
            await response(scope, receive, send_named)
        finally:
            _report(scope, status, time.perf_counter() - started)


def _request_id(scope: Scope) -> str:
    """The client's own, where it is harmless in headers and logs; else a new one."""
    given = _header(scope, b"x-request-id")
    return given.decode("ascii") if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _report(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path_format", "unmatched")
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    metrics.REQUESTS.labels(method, route, str(status)).observe(seconds)
    state: dict[str, Any] = scope["state"]
    fields = {
        "method": method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 3),
        "request_id": state["request_id"],
    }
    if "trace_id" in state:
        fields["trace_id"] = state["trace_id"]
    if "timings" in state:
        fields["timings"] = state["timings"]
    log.info("request", extra=fields)


class ApiKeyAuth:
    """Lets in who carries one of the keys as a bearer token; everybody, where no key is configured.

    Names who asks, for the audit trail: by the digest of the key, or else by the client's address.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scheme, _, token = (_header(scope, b"authorization") or b"").partition(b" ")
            digest = _digest(token.strip())
            if self._digests and not _open(scope["path"]) and not (scheme.lower() == b"bearer" and self._known(digest)):
                challenge = {"WWW-Authenticate": 'Bearer realm="azimuth"'}
                error = HTTPException(401, "this needs an API key: Authorization: Bearer ...", challenge)
                await problems.of_http(scope, error)(scope, receive, send)
                return
            host, _ = scope.get("client") or ("unknown", 0)
            scope.setdefault("state", {})["actor"] = f"key {digest.hex()[:8]}" if self._digests else f"client {host}"
        await self._app(scope, receive, send)

    def _known(self, digest: bytes) -> bool:
        """In a time that depends neither on the keys nor on which of them it is: digests, and all of them."""
        known = [hmac.compare_digest(digest, key) for key in self._digests]
        return any(known)


def _open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(CONSOLE_FOLDER)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)
