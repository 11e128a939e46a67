"""The HTTP API over the in-memory fakes and the hashing encoder, called in-process."""

import asyncio
import dataclasses
import inspect
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute
from starlette.types import Message

from service.analysis.service import AnalysisService
from service.api.app import create_app
from service.api.dependencies import RequestLimits, Service
from service.api.key_ring import KeyRing
from service.core.child_process import ComputationTurns
from service.core.collections import Collection
from service.core.documents import Chunk
from service.core.jobs import ClaimedJob, EncodedDocument, Lane
from service.core.periodic import in_background
from service.core.ports.api_keys import ApiKeys
from service.core.ports.embedder import Encoder
from service.core.ports.reranker import Reranker, RerankScores
from service.core.versions import EmbedderVersion, PromotionCheck
from service.diagnostics.service import DiagnosticsService
from service.drift.monitor import DriftMonitor
from service.drift.query_window import QueryWindows
from service.embedder.models.registry import ModelRegistry
from service.evaluation.evaluator import Evaluator
from service.ingest.service import IngestService
from service.ingest.validation import DocumentLimits
from service.recall.calibration_curve import CurveMeasurer
from service.recall.controller import RecallController
from service.search.pipeline import SearchPipeline
from service.spaces.model_verification import ModelVerifier
from service.spaces.sampling import CollectionSampler
from service.versions.collection_setup import CollectionService
from service.versions.promotion_checks import Measure, PromotionChecks
from service.versions.shadow_traffic import ShadowTraffic
from service.versions.state_machine import VersionStateMachine
from tests.fakes import FakeAdapters, FakeQueue, FakeStore, FakeVectors

LIMITS = RequestLimits(
    body_bytes=200_000, line_bytes=2_000, upload_bytes=100_000, documents=DocumentLimits(text_length=1_000, batch=5)
)
"""Small, so that tests can go beyond them quickly."""

Json = dict[str, Any]
T = TypeVar("T")


class WordReranker:
    """The share of the query's words that a passage has."""

    name = "words"
    portion = 16

    async def read(self, query: str, passages: Sequence[str]) -> RerankScores:
        wanted = set(query.lower().split())
        return RerankScores(scores=tuple(len(wanted & set(one.lower().split())) / len(wanted) for one in passages))


class Stuck(WordReranker):
    """Begins to read, and ends when it is cancelled."""

    def __init__(self) -> None:
        self.began, self.cancelled = asyncio.Event(), False

    async def read(self, query: str, passages: Sequence[str]) -> RerankScores:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError


@dataclass
class Edge:
    """A service, a client of it, and what is behind it."""

    service: Service
    client: httpx.AsyncClient
    store: FakeStore
    queue: FakeQueue
    vectors: FakeVectors

    async def call(self, method: str, url: str, body: Any = None, status: int = 200, **params: Any) -> Json:
        """The JSON of an answer with this status. `body` None: no body at all."""
        content: Json = {} if body is None else {"json": body}
        answer = await self.client.request(method, url, params=params or None, **content)
        assert answer.status_code == status, answer.text
        return cast(Json, answer.json())

    async def get(self, url: str, **params: Any) -> Json:
        return await self.call("GET", url, **params)

    async def post(self, url: str, body: Any = None, **params: Any) -> Json:
        return await self.call("POST", url, body, **params)

    async def refused(self, url: str, body: Any, status: int, field: str | None = None) -> Json:
        """The problem that a POST of this body is."""
        return assert_problem(await self.client.post(url, json=body), status, field)

    async def collection(self, name: str = "papers", **settings: Any) -> Json:
        return await self.call("PUT", f"/v1/collections/{name}", settings, 201)

    async def write(self, *documents: Json, name: str = "papers") -> Json:
        written = await self.post(f"/v1/collections/{name}/documents", {"documents": documents})
        await self.encode()
        return written

    async def fill(self, documents: Sequence[Json], name: str = "papers") -> None:
        """Write them, a few in each request."""
        for at in range(0, len(documents), 5):
            await self.write(*documents[at : at + 5], name=name)

    async def search(self, query: str, name: str = "papers", **request: Any) -> Json:
        return await self.post(f"/v1/collections/{name}/search", {"query": query, **request})

    async def trail(self) -> list[Json]:
        return cast(list[Json], (await self.get("/v1/collections/papers/audit"))["entries"])

    async def encode(self) -> None:
        """Do the worker's part: encode everything that waits."""
        lanes: tuple[Lane, ...] = ("live", "backfill")
        for version in await self.service.versions.written():
            encoder = await self.service.embedders.get(version.spec)
            for lane in lanes:
                now = datetime.now(UTC)
                claimed = await self.queue.claim([version], 1_000, "tests", now, timedelta(seconds=60), lane)
                await self.vectors.write(version, [_encoded(one, encoder) for one in claimed])

    async def register(self, name: str = "papers", **body: Any) -> Json:
        """A new version, just registered."""
        return await self.call("POST", f"/v1/collections/{name}/versions", body, 202)

    async def version(self, number: int, name: str = "papers") -> Json:
        return await self.get(f"/v1/collections/{name}/versions/{number}")

    async def advance_all(self) -> None:
        """Move every version on until it waits for nobody but clients."""
        await self.service.state_machine.advance_all(now)  # enqueues
        await self.encode()
        await self.service.state_machine.advance_all(now)

    async def ready(self, name: str = "papers", **body: Any) -> Json:
        """A new version that may be promoted."""
        made = await self.register(name, **body)
        await self.advance_all()
        found = await self.version(made["number"], name)
        assert found["state"] == "ready", found
        return found

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker that runs beside."""

        async def work() -> None:
            while True:
                await self.encode()
                await asyncio.sleep(0.005)

        async with in_background(work()):
            yield


def hit_ids(answer: Json) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


def now() -> datetime:
    return datetime.now(UTC)


def _encoded(claimed: ClaimedJob, encoder: Encoder) -> EncodedDocument:
    title, text = claimed.document.title, claimed.document.text
    chunk = Chunk(number=0, start=0, end=len(text), text=f"{title}\n{text}", tokens=1)
    return EncodedDocument(job=claimed.job, chunks=(chunk,), vectors=encoder.encode([chunk.text], "document"))


async def nothing_against_it(collection: Collection, version: EmbedderVersion) -> tuple[PromotionCheck, ...]:
    return (
        PromotionCheck(name="recall", passed=True, detail="0.99 of 0.95", figures={"recall": 0.99}),
        PromotionCheck(name="judgments", passed=None, detail="no judgments were uploaded"),
    )


def connect(kind: type[T], adapters: FakeAdapters, **others: Any) -> T:
    """An object whose parameters are filled by the adapters of the same names, and by `others`."""
    ports = {name: port for name, port in vars(adapters).items() if name in inspect.signature(kind).parameters}
    return kind(**ports | others)


def build(
    *,
    reranker: Reranker | None = None,
    limits: RequestLimits = LIMITS,
    measure: Measure = nothing_against_it,
    api_keys: Sequence[str] = (),
    key_store: ApiKeys | None = None,
    **changes: Any,
) -> tuple[Service, FakeAdapters]:
    """A service over a new store; `changes` replace fields of it. `measure` makes the measured checks."""
    adapters = FakeAdapters()
    embedders = ModelRegistry(default="hashing:32")
    verifier = connect(ModelVerifier, adapters, embedders=embedders)
    sampling = connect(CollectionSampler, adapters, embedders=embedders, verifier=verifier)
    checks = connect(PromotionChecks, adapters, verifier=verifier, measure=measure)
    traffic = QueryWindows(600.0)
    search = connect(
        SearchPipeline,
        adapters,
        embedders=embedders,
        verifier=verifier,
        reranker=reranker,
        passing_cap=1_000,
        max_concurrent=64,
        observers=(traffic,),
    )

    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        yield
        await embedders.close()

    async def missing() -> list[str]:
        return []

    async def refresh_metrics() -> None: ...

    service = connect(
        Service,
        adapters,
        search=search,
        shadow=connect(ShadowTraffic, adapters, search=search, share=0.0),
        drift_monitor=connect(DriftMonitor, adapters, traffic=traffic, sampling=sampling, interval=0.0),
        evaluator=connect(Evaluator, adapters, search=search, sampling=sampling),
        ingest=connect(IngestService, adapters, limits=limits.documents, wait_seconds=5.0),
        collection_service=connect(CollectionService, adapters, embedders=embedders, verifier=verifier),
        state_machine=connect(VersionStateMachine, adapters, verifier=verifier, checks=checks, exact_below=10_000),
        diagnostics=connect(DiagnosticsService, adapters, sampling=sampling),
        analysis=connect(AnalysisService, adapters, sampling=sampling, turns=ComputationTurns()),
        recall_controller=connect(
            RecallController,
            adapters,
            curve_measurer=connect(CurveMeasurer, adapters, sampling=sampling, rest_ratio=0.0),
            live_texts=lambda _: (),
            exact_below=10_000,
        ),
        embedders=embedders,
        reranker=reranker,
        limits=limits,
        keys=KeyRing(api_keys, key_store or adapters.api_keys),
        api_keys=key_store or adapters.api_keys,
        cors_origins=(),
        allowed_hosts=("*",),
        metrics=True,
        docs=True,
        languages=frozenset({"en", "de"}),
        missing=missing,
        refresh_metrics=refresh_metrics,
        run=run,
    )
    return dataclasses.replace(service, **changes), adapters


_routes: dict[tuple[bool, bool], list[BaseRoute]] = {}


def application(service: Service) -> FastAPI:
    """As `create_app` makes it. What FastAPI derives from the routes at the first request, for 70 ms, is shared."""
    app = create_app(service)
    app.router.routes = _routes.setdefault((service.docs, service.metrics), app.router.routes)
    return app


@asynccontextmanager
async def edge(**options: Any) -> AsyncIterator[Edge]:
    """A running API; `options` as for `build`."""
    service, adapters = build(**options)
    app = application(service)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        yield Edge(service, client, adapters.store, adapters.queue, adapters.vectors)


def api_fixture(
    *documents: Json, settings: Json | None = None, name: str = "api", collection: bool = True, **options: Any
) -> Any:
    """A fixture: a running API with these documents in the collection `papers`, if any; `options` as for `build`."""

    @pytest.fixture(name=name)
    async def fixture() -> AsyncIterator[Edge]:
        async with edge(**options) as running:
            if collection:
                await running.collection(**settings or {})
            await running.fill(documents)
            yield running

    return fixture


async def call_and_leave(
    service: Service, path: str, body: bytes | Iterable[bytes], leave: asyncio.Event | None = None, kind: str = "json"
) -> list[Message]:
    """POST as a client does that disconnects after its body, or later, on `leave`. What was sent to it."""
    parts = iter([body] if isinstance(body, bytes) else body)
    sent: list[Message] = []

    async def receive() -> Message:
        if (part := next(parts, None)) is not None:
            return {"type": "http.request", "body": part, "more_body": leave is None}
        if leave is not None:
            await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", f"application/{kind}".encode())]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    async with asyncio.timeout(20):
        await application(service)(scope, receive, send)
    return sent


def assert_problem(answer: httpx.Response, status: int, field: str | None = None, *members: str) -> Json:
    """The one shape of an error, and that it speaks of `field`; `members` are those that this kind has beside.

    Those that clients of other APIs read are tested in `test_errors_for_people.py`.
    """
    assert answer.status_code == status, f"{answer.status_code}: {answer.text[:500]}"
    assert answer.headers["content-type"] == "application/problem+json"
    problem: Json = answer.json()
    assert problem.keys() - {"error", "message", "error_type", "error_code", "error_msg"} == {
        "type",
        "title",
        "status",
        "detail",
        "errors",
        "request_id",
        *members,
    }
    assert problem["type"].startswith("urn:azimuth:error:")
    assert (problem["status"], problem["request_id"]) == (status, answer.headers["x-request-id"])
    assert all((problem["title"], problem["detail"]))
    assert all(set(one) == {"field", "message"} and one["message"] for one in problem["errors"])
    if field is not None:
        assert field in [one["field"] for one in problem["errors"]], problem
    return problem
