"""OpenTelemetry traces: one span for each request, and within it one for each stage of its searches.

Only imported where `AZIMUTH_TRACES_ENDPOINT` is set: without it neither SDK nor exporter is loaded. Stages become spans
after the response, from the times that `Timings` keeps anyway. A client's `traceparent` (W3C Trace Context) makes the
span part of its trace; every response has the `traceparent` of its own span, and the log line the id of the trace.
Spans contain neither paths nor queries: those may hold document ids and texts.
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
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import __version__
from service.core.timings import Timings

EXPORT_SECONDS = 5.0
"""Longest time for one attempt to export spans, also at shutdown."""
UNTRACED_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
"""Requested by machines every few seconds."""
_CONTEXT = TraceContextTextMapPropagator()


def create_tracer_provider(endpoint: str) -> TracerProvider:
    """Exports to `endpoint`, the whole URL of an OTLP receiver over HTTP, from a thread of its own.

    All other options are OpenTelemetry's own variables: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
    `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`.
    """
    resource = Resource({SERVICE_NAME: "azimuth", SERVICE_VERSION: __version__})
    provider = TracerProvider(resource=resource.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)))
    return provider


class TracingMiddleware:
    """Outermost middleware: its span is as long as the request, and the others know the id of its trace."""

    def __init__(self, app: ASGIApp, traces: TracerProvider) -> None:
        self._app = app
        self._tracer = traces.get_tracer("azimuth", __version__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNTRACED_PATHS:
            await self._app(scope, receive, send)
            return
        parent = _CONTEXT.extract(dict(Headers(scope=scope).items()))
        span = self._tracer.start_span(scope["method"], parent, SpanKind.SERVER)
        context = trace.set_span_in_context(span, parent)
        headers: dict[str, str] = {}
        _CONTEXT.inject(headers, context)
        state = scope.setdefault("state", {})
        state["trace_id"] = trace.format_trace_id(span.get_span_context().trace_id)
        status = 0

        async def send_traced(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(headers)
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
                _add_stage_spans(self._tracer, context, state.get("searches", ()))
            span.end()


def _add_stage_spans(tracer: Tracer, parent: Context, searches: Iterable[Timings]) -> None:
    """Add a span for each run of a stage. The searches of a batch are numbered."""
    since = time.time_ns() - time.perf_counter_ns()
    for number, timings in enumerate(searches):
        for stage, started, ended in timings.runs:
            span = tracer.start_span(f"search {stage}", parent, start_time=since + round(started * 1e9))
            span.set_attributes({"azimuth.stage": stage, "azimuth.search": number})
            span.end(since + round(ended * 1e9))
