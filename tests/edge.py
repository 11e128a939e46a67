"""The HTTP API over the in-memory fakes and the hashing encoder, called in-process."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from service.api.app import create_app
from service.api.dependencies import Limits, Service
from service.domain import Chunk, EmbedderSpec, Encoded, Role, Vectors
from service.embedder.hashing import HashingEncoder
from service.errors import Invalid
from service.ingest import Ingest
from service.ingest import Limits as DocumentLimits
from service.lifecycle import Lifecycle
from service.ports import Claimed, Reranker
from service.search import Search
from tests.fakes import FakeChanges, FakeDocuments, FakeLexicon, FakeQueue, FakeStore, FakeVectors

LIMITS = Limits(body_bytes=200_000, line_bytes=2_000, documents=DocumentLimits(text_length=1_000, batch=5))
"""Small, so that tests can go beyond them quickly."""

Json = dict[str, Any]


class HashingEmbedders:
    """Every process can run `hashing:32`, and nothing else."""

    def __init__(self) -> None:
        self._encoder = HashingEncoder(EmbedderSpec(model="hashing:32"))

    def resolve(self, spec: EmbedderSpec) -> EmbedderSpec:
        if spec.model not in {"default", "hashing:32"}:
            raise Invalid.at("embedder.model", "not one that the operator allows")
        return dataclasses.replace(spec, model="hashing:32")

    def models(self) -> Mapping[str, HashingEncoder | None]:
        return {"hashing:32": self._encoder}

    async def get(self, spec: EmbedderSpec) -> HashingEncoder:
        return self._encoder

    async def forget(self, spec: EmbedderSpec) -> None: ...

    async def embed(self, spec: EmbedderSpec, texts: Sequence[str], role: Role) -> Vectors:
        return self._encoder.encode(texts, role)


class WordReranker:
    """The share of the query's words that a passage has."""

    name = "words"

    async def score(self, query: str, passages: Sequence[str]) -> list[float]:
        wanted = set(query.lower().split())
        return [len(wanted & set(passage.lower().split())) / len(wanted) for passage in passages]


@dataclass
class Edge:
    """A service, a client of it, and what is behind it."""

    service: Service
    client: httpx.AsyncClient
    store: FakeStore
    queue: FakeQueue
    vectors: FakeVectors

    async def collection(self, name: str = "papers", **settings: Any) -> Json:
        answer = await self.client.put(f"/v1/collections/{name}", json=settings)
        assert answer.status_code == 201, answer.text
        created: Json = answer.json()
        return created

    async def write(self, *documents: Json, name: str = "papers") -> Json:
        answer = await self.client.post(f"/v1/collections/{name}/documents", json={"documents": documents})
        assert answer.status_code == 200, answer.text
        await self.encode()
        written: Json = answer.json()
        return written

    async def search(self, query: str, name: str = "papers", **request: Any) -> Json:
        answer = await self.client.post(f"/v1/collections/{name}/search", json={"query": query, **request})
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def encode(self) -> None:
        """Do the worker's part: encode everything that waits."""
        for version in await self.service.versions.written():
            now = datetime.now(UTC)
            claimed = await self.queue.claim([version], 1_000, "tests", now, timedelta(seconds=60))
            await self.vectors.write(version, [_encoded(one) for one in claimed])

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker that runs beside."""

        async def work() -> None:
            while True:
                await self.encode()
                await asyncio.sleep(0.005)

        task = asyncio.create_task(work())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _encoded(claimed: Claimed) -> Encoded:
    text = claimed.document.text
    chunk = Chunk(number=0, start=0, end=len(text), text=f"{claimed.document.title}\n{text}", tokens=1)
    vectors = HashingEncoder(EmbedderSpec(model="hashing:32")).encode([chunk.text], "document")
    return Encoded(job=claimed.job, chunks=(chunk,), vectors=vectors)


def build(*, reranker: Reranker | None = None, limits: Limits = LIMITS, **changes: Any) -> tuple[Service, FakeStore]:
    """A service over a new store; `changes` replace fields of it."""
    store = FakeStore()
    documents, queue, lexicon, embedders = (
        FakeDocuments(store),
        FakeQueue(store),
        FakeLexicon(store),
        HashingEmbedders(),
    )
    lifecycle = Lifecycle(
        collections=store.collections, versions=store.versions, queue=queue, embedders=embedders, exact_below=10_000
    )

    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        yield

    async def missing() -> list[str]:
        return []

    async def refresh_metrics() -> None: ...

    service = Service(
        search=Search(
            collections=store.collections,
            versions=store.versions,
            documents=documents,
            vectors=FakeVectors(store),
            lexicon=lexicon,
            embedders=embedders,
            lifecycle=lifecycle,
            reranker=reranker,
            passing_cap=1_000,
            max_concurrent=64,
        ),
        ingest=Ingest(
            documents=documents,
            queue=queue,
            changes=FakeChanges(store),
            lexicon=lexicon,
            limits=limits.documents,
            wait_seconds=5.0,
        ),
        lifecycle=lifecycle,
        collections=store.collections,
        versions=store.versions,
        documents=documents,
        queue=queue,
        lexicon=lexicon,
        embedders=embedders,
        reranker=reranker,
        limits=limits,
        api_keys=(),
        languages=frozenset({"en", "de"}),
        missing=missing,
        refresh_metrics=refresh_metrics,
        run=run,
    )
    return dataclasses.replace(service, **changes), store


@asynccontextmanager
async def edge(**options: Any) -> AsyncIterator[Edge]:
    """A running API; `options` as for `build`."""
    service, store = build(**options)
    app = create_app(service)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        yield Edge(service, client, store, FakeQueue(store), FakeVectors(store))


def assert_problem(answer: httpx.Response, status: int, field: str | None = None) -> Json:
    """The one shape of an error, and that it speaks of `field`."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text[:500]}"
    assert answer.headers["content-type"] == "application/problem+json"
    problem: Json = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "errors", "request_id"}
    assert problem["status"] == status
    assert problem["type"].startswith("urn:azimuth:error:")
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert all(set(one) == {"field", "message"} and one["message"] for one in problem["errors"])
    if field is not None:
        assert field in [one["field"] for one in problem["errors"]], problem
    return problem
