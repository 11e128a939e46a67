"""The Model Context Protocol over streamable HTTP: `POST /mcp`, without sessions, answers are JSON."""

import asyncio
import logging
from typing import TYPE_CHECKING

import httpx
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope
from starlette.types import Send as SendMessage

from service.api.bodies import read_body
from service.api.routing import JsonRoute

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

router = APIRouter(route_class=JsonRoute)

KEY_HEADERS = ("authorization", "api-key", "x-api-key")


@router.post("/mcp", include_in_schema=False)
async def mcp(request: Request) -> Response:
    """Keys, limits of bodies, hosts and origins were checked like those of any other request."""
    app = request.app
    server = getattr(app.state, "mcp_server", None)
    if server is None:
        server = app.state.mcp_server = await asyncio.to_thread(_create_server, writes=app.state.service.mcp_writes)
    body = await read_body(request, app.state.service.limits.body_bytes)
    return _McpResponse(server, body)


class _McpResponse(Response):
    """What the SDK answers to a request whose body was read."""

    def __init__(self, server: "MCPServer", body: bytes) -> None:
        super().__init__()
        self._server, self._read = server, body

    async def __call__(self, scope: Scope, receive: Receive, send: SendMessage) -> None:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        bodies = iter([self._read])

        async def receive_read() -> Message:
            if (body := next(bodies, None)) is None:
                return await receive()
            return {"type": "http.request", "body": body}

        manager = StreamableHTTPSessionManager(
            self._server._lowlevel_server, json_response=True, stateless=True, max_request_body_size=len(self._read) + 1
        )
        async with manager.run():  # one for each request: what it started ends with it
            await manager.handle_request(scope, receive_read, send)


def _create_server(*, writes: bool) -> "MCPServer":
    from service.api.mcp_tools import create_server

    logging.getLogger("mcp").setLevel(logging.WARNING)  # it logs the beginning and the end of every request
    return create_server(_send_within, writes=writes)


async def _send_within(outer: Request | None, asked: httpx.Request) -> httpx.Response:
    """Answer it as if the agent had sent it itself, with its key and address; it does not count against its rate."""
    assert outer is not None
    forwarded = {name: outer.headers[name] for name in (*KEY_HEADERS, "host") if name in outer.headers}
    asked.headers.update(forwarded | {"x-request-id": outer.state.request_id})

    async def app(scope: Scope, receive: Receive, send: SendMessage) -> None:
        await outer.app({**scope, "state": {"counted": True}}, receive, send)

    client = (outer.client.host, outer.client.port) if outer.client else ("unknown", 0)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=client)
    answer = await transport.handle_async_request(asked)
    await answer.aread()
    return answer
