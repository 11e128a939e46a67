"""What handlers need of the rest of the service. `runtime` builds one `Service` and passes it to `create_app`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated, Literal, cast

from fastapi import Depends
from starlette.requests import Request

from service.analysis.service import AnalysisService
from service.api.key_ring import KeyRing
from service.api.schemas.base import CollectionPath
from service.api.visible import visible_service
from service.core.access import Access
from service.core.collections import Collection
from service.core.ports.api_keys import ApiKeys
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
from service.core.ports.vectors import VectorStore
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

LongTexts = Literal["truncate", "chunk-mean", "refuse"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestLimits:
    """Limits of one request. `body_seconds`: to wait for a body, and more as it arrives.
    `line_bytes` is for the lines of NDJSON streams, which may have any length as a whole; `upload_bytes`: of files.
    `concurrent`: most requests to one route at once. `budget_ms`: of a search that brings none.
    `long_texts`: what becomes of texts to encode that are longer than the model takes; None: as usual in each API."""

    body_bytes: int = 32 * 2**20
    body_seconds: float = 60.0
    line_bytes: int = 8 * 2**20
    upload_bytes: int = 100 * 2**20
    concurrent: int = 64
    budget_ms: float | None = None
    long_texts: LongTexts | None = None
    documents: DocumentLimits = field(default_factory=DocumentLimits)


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """The running service as the HTTP API sees it.

    `uploads`: held while the files of one are read.
    `allowed_hosts`: see `web_security.WebSecurityMiddleware`. `model_aliases`: other names of models, see the setting.
    `metrics`, `docs`: whether there are `/metrics`, and `/docs` with `/openapi.json`. `mcp_writes`: see the setting.
    `missing` names what it still needs before it can answer (empty: ready). `refresh_metrics` updates the gauges that
    are read on demand. `run` is entered before the first request and left after the last.
    """

    search: SearchPipeline
    shadow: ShadowTraffic
    evaluator: Evaluator
    drift_monitor: DriftMonitor
    ingest: IngestService
    collection_service: CollectionService
    state_machine: VersionStateMachine
    diagnostics: DiagnosticsService
    analysis: AnalysisService
    recall_controller: RecallController
    collections: Collections
    versions: Versions
    backfills: Backfills
    audit: Audit
    api_keys: ApiKeys
    test_sets: TestSets
    recalls: RecallStore
    documents: Documents
    vectors: VectorStore
    queue: JobQueue
    lexicon: Lexicon
    embedders: Embedders
    reranker: Reranker | None
    limits: RequestLimits
    keys: KeyRing
    cors_origins: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    metrics: bool
    docs: bool
    languages: frozenset[str]
    mcp_writes: bool = False
    uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    model_aliases: Mapping[str, str] = field(default_factory=dict)
    missing: Callable[[], Awaitable[list[str]]]
    refresh_metrics: Callable[[], Awaitable[None]]
    run: Callable[[], AbstractAsyncContextManager[None]]


async def get_service(request: Request) -> Service:
    return visible_service(request.app.state.service, request.state.access)


async def get_actor(request: Request) -> str:
    return cast(Access, request.state.access).actor


ServiceDep = Annotated[Service, Depends(get_service)]
"""The service of the app that the request reached, as far as the key of the request may see it."""


async def get_collection(service: ServiceDep, collection: CollectionPath) -> Collection:
    return await service.collections.by_name(collection)


CollectionDep = Annotated[Collection, Depends(get_collection)]
"""The collection that the URL names, also by an alias. CollectionNotFound where the key sees none of that name."""
ActorDep = Annotated[str, Depends(get_actor)]
"""Who sent the request, for the audit trail: "key ingest", or "client 127.0.0.1" where there are no keys."""
