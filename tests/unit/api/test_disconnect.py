"""A client who leaves takes the reading of a cross-encoder along."""

import asyncio
from typing import Any

import orjson
import pytest
from starlette.types import Message

from service.api.app import create_app
from tests.edge import Stuck, edge


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/collections/papers/search", {"query": "sort", "rerank": True}),
        ("/rerank", {"query": "sort", "documents": ["a", "b"]}),
    ],
)
async def test_reading_ends_when_the_client_has_left(path: str, body: dict[str, Any]) -> None:
    reranker = Stuck()
    sent: list[Message] = []
    whole: list[Message] = [{"type": "http.request", "body": orjson.dumps(body), "more_body": False}]

    async def receive() -> Message:
        if whole:
            return whole.pop()
        await reranker.began.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    async with edge(reranker=reranker) as api:
        await api.collection()
        await api.write({"id": "sorted", "text": "sort a list"})
        async with asyncio.timeout(20):
            await create_app(api.service)(scope, receive, send)
    assert sent == []
    assert reranker.cancelled
