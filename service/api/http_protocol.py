"""HTTP below any request: what cannot be parsed, who is slow, and how many connections there are."""

import asyncio
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api import problems, web_security
from service.core.errors import Unavailable

RESERVE: Final = 16
"""Connections beyond the limit, for one health check each."""
HEALTH_PATHS: Final = frozenset({b"/livez", b"/readyz"})


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with limits, and with refusals in the one shape of errors.

    Beyond the limit a new connection replaces one that waits for a request: one that never sent any, else the one that
    has been idle for longest. Where all have requests under way, a few more get in, which serve health checks alone.
    """

    max_connections = 1_000
    headers_seconds = 10.0
    read_seconds = 60.0
    """For a client that stops reading an answer."""
    waiting: dict["HttpProtocol", None]
    """Connections without a request under way, those first that began to wait first. Of one server: see `limited`."""

    @classmethod
    def limited(cls, **limits: float) -> type["HttpProtocol"]:
        """The protocol of one server."""
        return type(cls.__name__, (cls,), {**limits, "waiting": {}})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._served = False
        self._reserved = len(self.connections) > self.max_connections
        if self._reserved and self.waiting:
            replaced = next((one for one in self.waiting if not one._served), None) or next(iter(self.waiting))
            replaced.end()
            self._reserved = False
        if len(self.connections) > self.max_connections + RESERVE:
            self.end()
        else:
            self._wait_for_request(self.headers_seconds)

    def end(self) -> None:
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self in self.waiting and self._served:
            self._wait_for_request(self.headers_seconds)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        refused = self._reserved and self.url.partition(b"?")[0] not in HEALTH_PATHS
        self.app = _no_connection_left if refused else self.config.loaded_app
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        self._served = True
        if self._reserved:
            self.transport.close()
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._wait_for_request(self.timeout_keep_alive)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _wait_for_request(self, seconds: float) -> None:
        self._stop_waiting()
        self.waiting[self] = None
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        self.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def send_400_response(self, msg: str) -> None:
        response = problems.problem_response(
            {}, kind="malformed", title="The request is malformed.", status=400, detail="the request is not valid HTTP"
        )
        lines = [STATUS_LINE[400]]
        response.headers.update(web_security.HEADERS)
        lines += [b"%s: %s\r\n" % header for header in response.raw_headers]
        self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", bytes(response.body)]))
        self.transport.close()


async def _no_connection_left(scope: Scope | Any, receive: Receive | Any, send: Send | Any) -> None:
    error = Unavailable("all connections of this process have requests under way", retry_after=1.0)
    response = problems.service_error_response(scope, error)
    response.headers.update(web_security.HEADERS)
    response.headers["Connection"] = "close"
    await response(scope, receive, send)
