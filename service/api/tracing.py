"""Traces for OpenTelemetry: one span a request, and within it one for each stage of its searches.

Only imported where `AZIMUTH_TRACES_ENDPOINT` is set: without it neither SDK nor exporter is loaded, and a request costs
what it did. Stages are not traced while they run: their times are kept anyway (`Timings`), and become spans when the
answer is out. A client's `traceparent` (W3C Trace Context) makes the span part of its trace; every answer carries that
of its own span, and the log line has the id of the trace. Spans have neither paths nor queries: those may hold
document ids and texts.
"""

import time
from collections.abc import Iterable

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import __version__
from service.core.timings import Timings

EXPORT_SECONDS = 5.0
"""Longest that one attempt to hand over spans takes, also at the end."""
SILENT_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked every few seconds by machines, and of no interest."""
_CONTEXT = TraceContextTextMapPropagator()


def provider(endpoint: str) -> TracerProvider:
    """Sends to `endpoint`, the whole URL of an OTLP receiver over HTTP, from a thread of its own.

    Everything else is as OpenTelemetry's own variables say: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
    `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`.
    """
    ours = Resource({SERVICE_NAME: "azimuth", SERVICE_VERSION: __version__})
    made = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)))
    return made


class Traced:
    """Outermost of all, so that its span is as long as the request and the others know of its trace."""

    def __init__(self, app: ASGIApp, traces: TracerProvider) -> None:
        self._app = app
        self._tracer = traces.get_tracer("azimuth", __version__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in SILENT_PATHS:
            await self._app(scope, receive, send)
            return
        parent = _CONTEXT.extract({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]})
        span = self._tracer.start_span(scope["method"], parent, SpanKind.SERVER)
        here = trace.set_span_in_context(span, parent)
        own: dict[str, str] = {}
        _CONTEXT.inject(own, here)
        headers = [(name.encode(), value.encode()) for name, value in own.items()]
        state = scope.setdefault("state", {})
        state["trace_id"] = trace.format_trace_id(span.get_span_context().trace_id)
        status = 0

        async def send_traced(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        try:
            await self._app(scope, receive, send_traced)
        finally:
            route = getattr(scope.get("route"), "path_format", "unmatched")
            span.update_name(f"{scope['method']} {route}")
            span.set_attributes({"http.request.method": scope["method"], "http.route": route})
            span.set_attribute("azimuth.request_id", state.get("request_id", ""))
            if status:
                span.set_attribute("http.response.status_code", status)
            else:
                span.set_attribute("error.type", "client_gone")
            if status >= 500:
                span.set_status(Status(StatusCode.ERROR))
            if span.is_recording():
                _stages(self._tracer, here, state.get("searches", ()))
            span.end()


def _stages(tracer: Tracer, parent: Context, searches: Iterable[Timings]) -> None:
    """A span for each run of a stage. A batch has several searches: they are numbered."""
    since = time.time_ns() - time.perf_counter_ns()
    for number, timings in enumerate(searches):
        for stage, started, ended in timings.runs:
            span = tracer.start_span(f"search {stage}", parent, start_time=since + round(started * 1e9))
            span.set_attributes({"azimuth.stage": stage, "azimuth.search": number})
            span.end(since + round(ended * 1e9))
