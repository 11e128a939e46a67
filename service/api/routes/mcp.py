"""The Model Context Protocol over streamable HTTP: `POST /mcp`, without sessions, answers are JSON."""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

import httpx
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope
from starlette.types import Send as SendMessage

from service.api.bodies import read_body
from service.api.routing import JsonRoute

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

router = APIRouter(route_class=JsonRoute)

BODY_BYTES = 2**20
"""Larger ones would keep the event loop, on which the SDK parses them, for too long."""
KEY_HEADERS = ("authorization", "api-key", "x-api-key")


@router.post("/mcp", include_in_schema=False)
async def mcp(request: Request) -> Response:
    """Keys, limits of bodies, hosts and origins were checked like those of any other request."""
    app = request.app
    server = getattr(app.state, "mcp_server", None)
    if server is None:
        server = app.state.mcp_server = await asyncio.to_thread(_create_server, app)
    body = await read_body(request, min(BODY_BYTES, app.state.service.limits.body_bytes))
    return _McpResponse(server, body)


class _McpResponse(Response):
    """What the SDK answers to a request whose body was read."""

    def __init__(self, server: "MCPServer", body: bytes) -> None:
        super().__init__()
        self._server, self._read = server, body

    async def __call__(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        from mcp.server.transport_security import TransportSecuritySettings

        bodies = iter([self._read])

        async def receive_read() -> Message:
            if (body := next(bodies, None)) is None:
                return await receive()
            return {"type": "http.request", "body": body}

        app = self._server.streamable_http_app(
            json_response=True,
            stateless_http=True,
            max_request_body_size=len(self._read) + 1,
            # `web_security` protects from it.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        async with app.router.lifespan_context(app):  # one for each request: what it started ends with it
            await app(dict(scope), receive_read, send)


def _create_server(app: FastAPI) -> "MCPServer":
    from service.api.mcp_tools import create_server

    logging.getLogger("mcp").setLevel(logging.WARNING)  # it logs the beginning and the end of every request
    return create_server(partial(_send_within, app), writes=app.state.service.mcp_writes)


async def _send_within(app: FastAPI, outer: Request | None, asked: httpx.Request) -> httpx.Response:
    """Answer it as if the agent had sent it itself, with its key and address; it does not count against its rate."""
    assert outer is not None
    forwarded = {name: outer.headers[name] for name in (*KEY_HEADERS, "host") if name in outer.headers}
    asked.headers.update(forwarded | {"x-request-id": outer.state.request_id})

    async def counted(scope: Scope, receive: Receive, send: SendMessage) -> None:
        await app({**scope, "state": {"counted": True}}, receive, send)

    client = (outer.client.host, outer.client.port) if outer.client else ("unknown", 0)
    transport = httpx.ASGITransport(counted, raise_app_exceptions=False, client=client)
    answer = await transport.handle_async_request(asked)
    await answer.aread()
    return answer
