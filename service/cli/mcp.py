"""`azimuth mcp`: what `POST /mcp` offers, for programs that start their servers and talk to them by standard input."""

from typing import TYPE_CHECKING

import httpx

from azimuth_client.client import verification
from service.cli import shell
from service.runtime.settings import Settings

if TYPE_CHECKING:
    from starlette.requests import Request


def mcp(url: shell.Url = None) -> None:
    """Let an agent search by the Model Context Protocol, over standard input and output. Needs a running service.

    With AZIMUTH_MCP_WRITES=true it can also write and delete documents.
    """
    from mcp.server.mcpserver.exceptions import ToolError

    from service.api.mcp_tools import create_server

    settings = Settings()
    address, key = httpx.URL(url or settings.service_url), settings.client_key
    service = httpx.AsyncHTTPTransport(verify=verification(address, settings.tls_certificate))

    async def send(_: "Request | None", asked: httpx.Request) -> httpx.Response:
        target = address.copy_with(raw_path=address.raw_path.rstrip(b"/") + asked.url.raw_path)
        headers = {**asked.headers, "host": target.netloc.decode()} | ({"api-key": key} if key else {})
        request = httpx.Request(asked.method, target, headers=headers, content=asked.content)
        try:
            answer = await service.handle_async_request(request)
            await answer.aread()
        except httpx.TransportError as error:
            raise ToolError(f"no service answers at {address} ({error})") from error
        return answer

    create_server(send, writes=settings.mcp_writes).run("stdio")
