"""`POST /mcp` as the client of the official SDK uses it, in both eras of the protocol."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from service.core.access import ApiKey, digest_of
from tests.edge import Edge, assert_problem, edge
from tests.fakes import FakeApiKeys

DOCUMENTS = [
    {"id": one, "title": one.upper(), "text": f"a river of {one}", "metadata": {"tenant": one}} for one in "ab"
]
READING = {"list_collections", "search", "get_document", "explain"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


@pytest.fixture
async def api() -> AsyncIterator[Edge]:
    store = FakeApiKeys()
    keys: list[tuple[str, Any]] = [("root", {}), ("bound", {"filter": {"tenant": "a"}}), ("slow", {"rate": "5/h"})]
    for name, fields in keys:
        role: Any = "admin" if name == "root" else "read"
        key = ApiKey(name=name, digest=digest_of(name.encode()), role=role, created_at=datetime.now(UTC), **fields)
        await store.create(key, "tests")
    async with edge(key_store=store) as running:
        await running.service.keys.refresh()
        running.client.headers["api-key"] = "root"
        await running.collection()
        await running.write(*DOCUMENTS)
        yield running


@asynccontextmanager
async def agent(api: Edge, key: str = "root", mode: Literal["legacy", "auto"] = "auto") -> AsyncIterator[Client]:
    """A client of the SDK that talks to the app in this process."""
    transport = httpx2.ASGITransport(api.client._transport.app)  # type: ignore[attr-defined]
    async with httpx2.AsyncClient(transport=transport, headers={"Authorization": f"Bearer {key}"}) as http:
        async with Client(streamable_http_client("http://t/mcp", http_client=http), mode=mode) as client:
            yield client


async def use(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer
    assert json.loads(answer.content[0].text) == answer.structured_content  # type: ignore[union-attr]
    return answer.structured_content or {}


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_an_agent_finds_reads_and_asks_why(api: Edge, mode: Literal["legacy", "auto"]) -> None:
    async with agent(api, mode=mode) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == READING
        assert all(tool.annotations and tool.annotations.read_only_hint and tool.description for tool in tools)
        (collection,) = (await use(client, "list_collections"))["collections"]
        assert (collection["name"], collection["language"], collection["fields"]) == ("papers", "en", [])
        hits = (await use(client, "search", collection="papers", query="river of b", k=1))["hits"]
        assert [(hit["id"], hit["text"]) for hit in hits] == [("b", "a river of b")]
        nulls = dict.fromkeys(("k", "mode", "rerank"))
        only_a = await use(client, "search", collection="papers", query="river", filter={"tenant": "a"}, **nulls)
        assert [hit["id"] for hit in only_a["hits"]] == ["a"]
        document = await use(client, "get_document", collection="papers", id="b")
        assert (document["title"], document["metadata"], document["next_start"]) == ("B", {"tenant": "b"}, None)
        why = await use(client, "explain", collection="papers", query="river of b")
        assert why["hits"][0]["explain"]["lexical"]["rank"] == 1


async def test_a_long_document_is_read_in_parts(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.mcp_tools.DOCUMENT_CHARACTERS", 7)
    async with agent(api) as client:
        first = await use(client, "get_document", collection="papers", id="a")
        assert (first["text"], first["next_start"]) == ("a river", 7)
        rest = await use(client, "get_document", collection="papers", id="a", start=7)
        assert (rest["text"], rest["next_start"]) == (" of a", None)


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("search", {"collection": "none", "query": "x"}, "404: There is no such collection"),
        ("search", {"collection": "papers/similar/a", "query": "x"}, "should match pattern"),
        ("search", {"collection": "papers", "query": "x", "filter": {"$no": 1}}, "422"),
        ("search", {"collection": "papers"}, "query"),
        ("get_document", {"collection": "papers", "id": "failed"}, "there is no document"),
    ],
)
async def test_what_cannot_be_done_is_said(api: Edge, tool: str, arguments: dict[str, Any], said: str) -> None:
    async with agent(api) as client:
        answer = await client.call_tool(tool, arguments)
        assert answer.is_error
        assert said in answer.content[0].text  # type: ignore[union-attr]


async def test_a_bound_key_sees_its_rows_alone(api: Edge) -> None:
    async with agent(api, "bound") as client:
        hits = (await use(client, "search", collection="papers", query="river"))["hits"]
        assert [hit["id"] for hit in hits] == ["a"]
        assert (await client.call_tool("get_document", {"collection": "papers", "id": "b"})).is_error


async def test_keys_are_required_and_a_tool_counts_once(api: Edge) -> None:
    answer = await api.client.post("/mcp", json=INITIALIZE, headers={"api-key": "wrong"})
    assert assert_problem(answer, 401)["type"] == "urn:azimuth:error:unauthorized"
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_collections", "arguments": {}}}
    for remaining in range(4, -1, -1):
        answer = await api.client.post("/mcp", json=call, headers={"api-key": "slow"})
        assert answer.json()["result"]["structuredContent"]["collections"][0]["name"] == "papers"
        assert answer.headers["RateLimit-Remaining"] == str(remaining)
    assert (await api.client.post("/mcp", json=call, headers={"api-key": "slow"})).status_code == 429


async def test_writing_must_be_allowed() -> None:
    async with edge(mcp_writes=True) as api:
        await api.collection()
        async with agent(api) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert tools.keys() - READING == {"write_documents", "delete_documents"}
            written = await use(client, "write_documents", collection="papers", documents=DOCUMENTS)
            assert written["created"] == 2
            assert (await use(client, "delete_documents", collection="papers", ids=["a"]))["deleted"] == 1


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 405),
        ("DELETE", {}, 405),
        ("POST", {"Origin": "http://evil.example", "Host": "localhost"}, 403),
        ("POST", {"Host": "evil.example"}, 421),
        ("POST", {"Content-Type": "text/plain"}, 415),
    ],
)
async def test_it_is_protected_like_every_route(method: str, headers: dict[str, str], status: int) -> None:
    async with edge(allowed_hosts=("localhost", "t")) as api:
        headers = {"Content-Type": "application/json"} | headers
        answer = await api.client.request(method, "/mcp", content=json.dumps(INITIALIZE), headers=headers)
        assert_problem(answer, status)


@pytest.mark.parametrize("header", [{}, {"MCP-Protocol-Version": "2025-06-18"}, {"MCP-Protocol-Version": "2026-07-28"}])
async def test_what_is_no_message_is_refused(api: Edge, header: dict[str, str]) -> None:
    call: Any = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": "x"}}
    bodies = [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000, b'{"id": NaN}', b"1" * 5_000]
    bodies += [json.dumps(one).encode() for one in (call, {**call, "params": 3}, {**call, "method": "no"}, [call])]
    headers = {"Content-Type": "application/json", **header}
    for body in bodies:
        answer = await api.client.post("/mcp", content=body, headers=headers)
        assert answer.is_client_error or "error" in answer.text.lower(), (body[:50], answer.text)
    assert_problem(await api.client.post("/mcp", content=b" " * 300_000, headers=headers), 413)
