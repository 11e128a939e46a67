"""A client who leaves takes the work of the request along."""

import asyncio
from typing import Any

import orjson
import pytest

from service.embedder.models.scheduler import PassScheduler
from service.search.pipeline import SearchPipeline
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


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": ["a", "b"]}),
        ("/v1/collections/papers/search", {"query": "sort"}),
        ("/v1/collections/papers/search/batch", {"searches": [{"query": "sort"}]}),
        ("/v1/collections/papers/similar/sorted", {}),
    ],
)
async def test_no_work_that_only_reads_goes_on_when_the_client_disconnects(
    path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def stuck(*_: Any, **__: Any) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with edge() as api:
        await api.collection()
        await api.write({"id": "sorted", "text": "sort a list"})
        monkeypatch.setattr(PassScheduler, "run", stuck)
        monkeypatch.setattr(SearchPipeline, "run", stuck)
        assert await call_and_leave(api.service, path, orjson.dumps(body), began) == []
    assert cancelled.is_set()
