"""What surrounds every request: an id, a log line, a metric, an answer, and authentication by API keys."""

import asyncio
import hashlib
import hmac
import logging
import random
import re
import time
import traceback
from collections.abc import Sequence
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.core import metrics
from service.core.caller import CALLER, Caller
from service.core.errors import Unavailable

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/docs", "/openapi.json"})
"""Answered without a key, as are the files of the console: none of them reveals anything about the data."""
CONSOLE_FOLDER = "/console/"
CLIENT_DISCONNECTED = 499
"""In log and metrics: the client disconnected before it got an answer (nginx's number)."""

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class RequestLogMiddleware:
    """Gives the request an id, and logs and measures its outcome. Outermost, so that it sees all of them.

    The log line has no path, no query and no body: those may hold document ids, texts and keys. What is refused with
    429 is logged at the level debug: in an overload the log would cost more than the refusals.
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

        async def send_with_request_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.append("X-Request-ID", request_id)
                if getattr(scope["app"].state, "leaving", False):
                    headers["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, send_with_request_id)
        except ClientDisconnect:
            status = CLIENT_DISCONNECTED
        finally:
            _report_request(scope, status, time.perf_counter() - started)


class UnhandledErrorMiddleware:
    """Answers what no handler answered. Inside the CORS middleware, so that pages can read these answers, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except ClientDisconnect:
            raise
        except (asyncio.CancelledError, Exception) as error:
            if isinstance(error, Exception):
                response = problems.unexpected_error_response(scope, error)
            else:  # the server stops and does not wait any longer; the task ends with this answer
                response = problems.service_error_response(scope, Unavailable("the service is stopping"))
            if started:  # half an answer is out: breaking the connection is the only way to say so
                raise
            await response(scope, receive, send)


def _request_id(scope: Scope) -> str:
    """The client's own, where it is harmless in headers and logs; else a new one, which need not be a secret.

    Not a UUID: for its randomness the operating system is asked, and with that the interpreter lock given away.
    """
    sent = Headers(scope=scope).get("x-request-id", "")
    return sent if _REQUEST_ID.fullmatch(sent) else f"{random.getrandbits(128):032x}"


def _report_request(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path_format", "unmatched")
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    metrics.REQUESTS.labels(method, route, str(status)).observe(seconds)
    state = scope["state"]
    level = logging.DEBUG if status == HTTPStatus.TOO_MANY_REQUESTS else logging.INFO  # to refuse must cost little
    if not log.isEnabledFor(level):
        return
    fields = {"method": method, "route": route, "status": status, "ms": round(seconds * 1000, 3)}
    fields |= {name: state[name] for name in ("request_id", "trace_id", "timings") if name in state}
    log.log(level, "request", extra=fields)


class ApiKeyMiddleware:
    """Admits requests with one of the keys as a bearer token; all requests, where no key is configured.

    Names the client for the audit trail: by the digest of its key, or else by its address.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
            digest = hashlib.sha256(token.encode("latin-1").strip()).digest()
            is_open = scope["path"] in OPEN_PATHS or scope["path"].startswith(CONSOLE_FOLDER)
            admitted = is_open or not self._digests
            if not admitted and not (scheme.lower() == "bearer" and self._is_known(digest)):
                challenge = {"WWW-Authenticate": 'Bearer realm="azimuth"'}
                error = HTTPException(401, "an API key is required: Authorization: Bearer ...", challenge)
                await problems.http_error_response(scope, error)(scope, receive, send)
                return
            host, _ = scope.get("client") or ("unknown", 0)
            actor = f"key {digest.hex()[:8]}" if self._digests else f"client {host}"
            scope.setdefault("state", {})["actor"] = actor
            CALLER.set(Caller(actor))
        await self._app(scope, receive, send)

    def _is_known(self, digest: bytes) -> bool:
        """In constant time: every key is compared, and of all of them only the digests."""
        matches = [hmac.compare_digest(digest, key) for key in self._digests]
        return any(matches)


class _HeadersSent(Exception):
    """All that a HEAD request asks for is sent."""


class HeadMiddleware:
    """Answers HEAD as GET, without the body: every route that can be read has both. A stream ends at its beginning."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                return
            await send({"type": "http.response.body", "body": b""})
            if message.get("more_body"):
                raise _HeadersSent

        read = {**scope, "method": "GET"}
        try:
            await self._app(read, receive, send_without_body)
        except _HeadersSent as sent:
            traceback.clear_frames(sent.__traceback__)  # they hold the stream, which ends with its last reference
        finally:
            scope["route"] = read.get("route")
