"""Agents and a running service: over HTTP, and by `azimuth mcp` as they start it."""

import sys
from typing import Literal

import httpx
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

pytestmark = [pytest.mark.database, pytest.mark.slow]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("way", ["http", "stdio"])
async def test_an_agent_searches(client: httpx.Client, way: str, mode: Literal["legacy", "auto"]) -> None:
    address, name = str(client.base_url).rstrip("/"), f"for-agents-{way}"
    client.put(f"/v1/collections/{name}").raise_for_status()
    documents = {"documents": [{"id": "a/1", "text": "volcanoes erupt"}, {"id": "b", "text": "violins sing"}]}
    client.post(f"/v1/collections/{name}/documents", params={"wait": True}, json=documents).raise_for_status()
    command = StdioServerParameters(command=sys.executable, args=["-m", "service", "mcp", "--url", address])
    async with Client(f"{address}/mcp" if way == "http" else command, mode=mode) as agent:
        assert "search" in {tool.name for tool in (await agent.list_tools()).tools}
        found = await agent.call_tool("search", {"collection": name, "query": "volcanoes"})
        assert [hit["id"] for hit in (found.structured_content or {})["hits"]][:1] == ["a/1"]
        document = await agent.call_tool("get_document", {"collection": name, "id": "a/1"})
        assert (document.structured_content or {})["text"] == "volcanoes erupt"
        assert (await agent.call_tool("search", {"collection": "none", "query": "x"})).is_error
