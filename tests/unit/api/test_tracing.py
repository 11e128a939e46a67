"""Traces: a span a request and a span a stage, in the client's trace, no word of what was asked; off by default."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import AsyncMock

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.middleware import Middleware

from service.api import tracing
from service.api.app import create_app
from service.core.errors import DatabaseUnavailable
from tests.edge import Edge, api_fixture, build

pytestmark = pytest.mark.slow

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@asynccontextmanager
async def traced(api: Edge, provider: TracerProvider) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the same service behind the middleware."""
    app = create_app(api.service, around=(Middleware(tracing.TracingMiddleware, traces=provider),))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        yield client


api = api_fixture({"id": "a", "text": "sort a list"})


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def client(api: Edge, exporter: InMemorySpanExporter) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API whose spans go to `exporter`."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with traced(api, provider) as client:
        yield client
    provider.shutdown()


SEARCH = "/v1/collections/papers/search"


def split(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The one request and its stages."""
    spans = exporter.get_finished_spans()
    (request,) = [span for span in spans if span.kind is SpanKind.SERVER]
    return request, [span for span in spans if span.kind is not SpanKind.SERVER]


async def test_a_request_and_its_stages_are_spans(client: httpx.AsyncClient, exporter: InMemorySpanExporter) -> None:
    answer = await client.post(SEARCH, json={"query": "a secret question", "k": 1})
    request, stages = split(exporter)
    assert request.name == "POST /v1/collections/{collection}/search"
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["azimuth.request_id"] == answer.headers["x-request-id"]
    ran = {name for name, ms in answer.json()["timings_ms"].items() if ms > 0}
    assert {span.name.removeprefix("search ") for span in stages} >= ran >= {"embed", "dense", "lexical", "fetch"}
    assert request.start_time is not None
    assert request.end_time is not None
    for span in stages:
        assert span.parent is not None
        assert request.context is not None
        assert span.parent.span_id == request.context.span_id
        assert span.start_time is not None
        assert span.end_time is not None
        assert request.start_time - 10**6 <= span.start_time <= span.end_time <= request.end_time + 10**6
    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "secret" not in told
    assert "papers" not in told


async def test_the_trace_of_the_client_is_continued_returned_and_logged(
    client: httpx.AsyncClient, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    with caplog.at_level(logging.INFO, "service.api.middleware"):
        answer = await client.post(SEARCH, json={"query": "sort"}, headers=headers)
    request, _ = split(exporter)
    assert request.context is not None
    assert request.parent is not None
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    assert answer.headers["traceparent"] == f"00-{TRACE}-{request.context.span_id:016x}-01"
    assert [vars(record)["trace_id"] for record in caplog.records if record.message == "request"] == [TRACE]


async def test_unsampled_traces_are_not_exported(client: httpx.AsyncClient, exporter: InMemorySpanExporter) -> None:
    answer = await client.post(SEARCH, json={"query": "sort"}, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert answer.status_code == 200
    assert exporter.get_finished_spans() == ()
    assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-01", "ff-" + "0" * 32 + "-" + "0" * 16 + "-01", "\xff\xfe"])
async def test_an_invalid_header_starts_a_new_trace(
    client: httpx.AsyncClient, exporter: InMemorySpanExporter, header: str
) -> None:
    headers = [(b"traceparent", header.encode("latin-1"))]
    answer = await client.post(SEARCH, json={"query": "sort"}, headers=headers)
    assert answer.status_code == 200
    assert split(exporter)[0].parent is None


async def test_searches_of_a_batch_are_numbered(client: httpx.AsyncClient, exporter: InMemorySpanExporter) -> None:
    answer = await client.post(f"{SEARCH}/batch", json={"searches": [{"query": "sort"}, {"query": "list"}]})
    assert answer.status_code == 200
    numbers = {span.attributes["azimuth.search"] for span in split(exporter)[1] if span.attributes}
    assert numbers == {0, 1}


async def test_faults_are_marked_and_errors_of_clients_are_not(
    api: Edge, client: httpx.AsyncClient, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await client.post(SEARCH, json={})).status_code == 422
    assert split(exporter)[0].status.status_code is StatusCode.UNSET
    exporter.clear()
    monkeypatch.setattr(api.service.search, "run", AsyncMock(side_effect=DatabaseUnavailable))
    assert (await client.post(SEARCH, json={"query": "sort"})).status_code == 503
    assert split(exporter)[0].status.status_code is StatusCode.ERROR


async def test_health_checks_leave_no_traces(client: httpx.AsyncClient, exporter: InMemorySpanExporter) -> None:
    for path in sorted(tracing.UNTRACED_PATHS):
        assert "traceparent" not in (await client.get(path)).headers
    assert exporter.get_finished_spans() == ()


@contextmanager
def receiver() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """OTLP over HTTP, as a collector takes it."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.headers.get("content-encoding") is None and self.path == "/v1/traces":
                received.append(
                    ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                )
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_collector_gets_them(api: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests")
    with receiver() as (endpoint, received):
        provider = tracing.create_tracer_provider(endpoint)
        async with traced(api, provider) as client:
            assert (await client.post(SEARCH, json={"query": "sort"})).status_code == 200
        await asyncio.to_thread(provider.shutdown)
    spans = [
        span for one in received for part in one.resource_spans for scope in part.scope_spans for span in scope.spans
    ]
    assert "POST /v1/collections/{collection}/search" in [span.name for span in spans]
    assert "search dense" in [span.name for span in spans]
    resource = {one.key: one.value.string_value for one in received[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "azimuth"
    assert resource["deployment.environment.name"] == "tests"


def test_the_name_of_the_service_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "search-eu")
    provider = tracing.create_tracer_provider("http://127.0.0.1:9/v1/traces")
    assert provider.resource.attributes["service.name"] == "search-eu"
    provider.shutdown()


async def test_without_an_endpoint_there_is_no_middleware() -> None:
    from service.runtime.container.api import tracing_middleware
    from service.runtime.settings import Settings

    async with AsyncExitStack() as stack:
        assert tracing_middleware(Settings(traces_endpoint=None), stack) == ()
        (middleware,) = tracing_middleware(Settings(traces_endpoint="http://127.0.0.1:9/v1/traces"), stack)
        assert isinstance(middleware.kwargs["traces"], TracerProvider)


@pytest.mark.slow
def test_without_tracing_the_sdk_is_not_loaded() -> None:
    program = "import json, sys, service.runtime.container.api; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "service.api.app" in loaded
    # FastAPI itself loads `opentelemetry.trace` where that is installed, which does nothing without what is below.
    assert not [name for name in loaded if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
    assert "service.api.tracing" not in loaded


async def test_without_tracing_answers_and_logs_have_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    service, _ = build()
    transport = httpx.ASGITransport(create_app(service))
    with caplog.at_level(logging.INFO, "service.api.middleware"):
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            answer = await client.get("/v1/collections", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert "traceparent" not in answer.headers
    assert all("trace_id" not in vars(record) for record in caplog.records)
