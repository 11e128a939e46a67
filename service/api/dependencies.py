"""What handlers need from the rest of the service. `wiring` builds one `Service` and hands it to `create_app`."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import Request

from service.core.ports.audit import Audit
from service.core.ports.backfills import Backfills
from service.core.ports.collections import Collections
from service.core.ports.documents import Documents
from service.core.ports.embedder import Embedders
from service.core.ports.lexicon import Lexicon
from service.core.ports.queue import JobQueue
from service.core.ports.recall import RecallStore
from service.core.ports.reranker import Reranker
from service.core.ports.test_sets import TestSets
from service.core.ports.versions import Versions
from service.diagnostics.service import DiagnosticsService
from service.drift.monitor import DriftMonitor
from service.evaluation.evaluator import Evaluator
from service.ingest.service import IngestService
from service.ingest.validation import DocumentLimits
from service.recall.controller import RecallController
from service.search.pipeline import SearchPipeline
from service.versions.collection_setup import CollectionService
from service.versions.shadow_traffic import ShadowTraffic
from service.versions.state_machine import VersionStateMachine


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestLimits:
    """What one request may be. `line_bytes` is for NDJSON streams, which as a whole may be of any length."""

    body_bytes: int = 32 * 2**20
    line_bytes: int = 8 * 2**20
    documents: DocumentLimits = field(default_factory=DocumentLimits)


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """The running service as its HTTP edge sees it.

    `missing` says what it still lacks before it can be used (empty: ready). `refresh_metrics` brings the gauges up to
    date that nobody sets otherwise. `run` is entered before the first request and left after the last.
    """

    search: SearchPipeline
    shadow: ShadowTraffic
    evaluator: Evaluator
    drift_monitor: DriftMonitor
    ingest: IngestService
    collection_service: CollectionService
    state_machine: VersionStateMachine
    diagnostics: DiagnosticsService
    recall_controller: RecallController
    collections: Collections
    versions: Versions
    backfills: Backfills
    audit: Audit
    test_sets: TestSets
    recalls: RecallStore
    documents: Documents
    queue: JobQueue
    lexicon: Lexicon
    embedders: Embedders
    reranker: Reranker | None
    limits: RequestLimits
    api_keys: tuple[str, ...]
    languages: frozenset[str]
    missing: Callable[[], Awaitable[list[str]]]
    refresh_metrics: Callable[[], Awaitable[None]]
    run: Callable[[], AbstractAsyncContextManager[None]]


async def service_of(request: Request) -> Service:
    """The service of the app that a request reached."""
    return cast(Service, request.app.state.service)


async def actor_of(request: Request) -> str:
    """Who asks, as the audit trail names them (`middleware.Keyed`)."""
    return cast(str, request.state.actor)


Here = Annotated[Service, Depends(service_of)]
"""A handler's parameter of this type is the service."""
Actor = Annotated[str, Depends(actor_of)]
"""A handler's parameter of this type is who asks: "key 3f9a1c2e", or "client 127.0.0.1" without keys."""
