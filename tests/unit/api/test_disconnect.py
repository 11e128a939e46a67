"""A client who leaves takes the reading of a cross-encoder along."""

from typing import Any

import orjson
import pytest

from tests.edge import Stuck, call_and_leave, edge


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/collections/papers/search", {"query": "sort", "rerank": True}),
        ("/rerank", {"query": "sort", "documents": ["a", "b"]}),
    ],
)
async def test_reranking_stops_when_the_client_disconnects(path: str, body: dict[str, Any]) -> None:
    reranker = Stuck()
    async with edge(reranker=reranker) as api:
        await api.collection()
        await api.write({"id": "sorted", "text": "sort a list"})
        sent = await call_and_leave(api.service, path, orjson.dumps(body), reranker.began)
    assert sent == []
    assert reranker.cancelled
