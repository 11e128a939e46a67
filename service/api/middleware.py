"""What surrounds every request: an id, a log line, a metric, an answer, and authentication by API keys."""

import asyncio
import logging
import random
import re
import time
import traceback
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.key_ring import KeyRing
from service.core import metrics
from service.core.access import Access
from service.core.caller import CALLER, Caller
from service.core.change_feed import WRITTEN, WrittenRevision
from service.core.concurrency import requests_under_way
from service.core.errors import RateLimited, Unavailable

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/health", "/docs", "/openapi.json"})
"""Read without a key, as are the files of the console: none of them reveals anything about the data."""
CONSOLE_FOLDER = "/console/"
REVISION_HEADER = "X-Azimuth-Revision"
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
        written = WrittenRevision()
        WRITTEN.set(written)

        async def send_with_request_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.append("X-Request-ID", request_id)
                if written.revision and status < HTTPStatus.BAD_REQUEST:
                    headers.append(REVISION_HEADER, str(written.revision))
                if getattr(scope["app"].state, "leaving", False):
                    headers["Connection"] = "close"
            await send(message)

        try:
            with requests_under_way:
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
    """Admits requests with a key, within its rate; where no key exists, all requests. What is open needs none.

    The rest of the service learns from the `Access` in the state of the request what the client may do.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = self._keys.find(Headers(scope=scope))
        host, _ = scope.get("client") or ("unknown", 0)
        anybody = Access(actor=f"client {host}", role=None if self._keys.required else "admin")
        access = scope.setdefault("state", {})["access"] = anybody if known is None else known.access
        CALLER.set(Caller(access.actor))
        response: Response | None = None
        read_by_all = scope["path"] in OPEN_PATHS or scope["path"].startswith(CONSOLE_FOLDER)
        if scope["method"] == "POST" or not read_by_all:
            if known is not None and "counted" not in scope["state"]:  # MCP: the tool and its request are one
                try:
                    self._keys.admit(known)
                except RateLimited as error:
                    response = problems.service_error_response(scope, error)
            elif known is None and self._keys.required:
                challenge = {"WWW-Authenticate": 'Bearer realm="azimuth"'}
                refusal = HTTPException(401, "a valid API key is required: Authorization: Bearer ...", challenge)
                response = problems.http_error_response(scope, refusal)

        async def send_with_rate(message: Message) -> None:
            if known is not None and known.bucket is not None and message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(known.bucket.headers())
            await send(message)

        await (self._app if response is None else response)(scope, receive, send_with_rate)


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
