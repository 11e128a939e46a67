"""Settings -> running objects. The only file that picks implementations."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

from fastapi import FastAPI
from starlette.middleware import Middleware

from service.api.app import create_app
from service.api.dependencies import RequestLimits, Service
from service.confidence.calibrate import ConfidenceCalibrator
from service.core.errors import Misconfigured
from service.core.periodic import in_background, repeat_every
from service.diagnostics.service import DiagnosticsService
from service.drift.monitor import PAUSE_SECONDS, DriftMonitor
from service.drift.query_window import QueryWindows
from service.embedder.models.registry import ModelRegistry
from service.embedder.reranker.reranker import CrossEncoderReranker
from service.embedder.worker.worker import Worker
from service.evaluation.evaluator import Evaluator
from service.ingest.service import DocumentLimits, IngestService
from service.recall import ef_policy
from service.recall.aggregate import RecallAggregator
from service.recall.calibration_curve import CurveMeasurer
from service.recall.controller import RecallController
from service.recall.dense_probe import DenseProbe
from service.recall.lexical_probe import LexicalProbe
from service.recall.monitor import RecallMonitor
from service.runtime.db_gauges import DatabaseGauges, KnownCollections
from service.runtime.readiness import Readiness
from service.runtime.settings import NO_RERANKER, Settings
from service.search.pipeline import SearchPipeline
from service.spaces.model_verification import ModelVerifier
from service.spaces.resolver import SpaceResolver
from service.spaces.sampling import CollectionSampler
from service.store.lexical.follower import Follower
from service.store.lexical.languages import KNOWN
from service.store.lexical.lexicon import TantivyLexicon
from service.store.postgres import maintenance
from service.store.postgres import store as adapters
from service.store.postgres.collections import PostgresCollections
from service.store.postgres.connection.pool import open_pool
from service.store.postgres.documents import PostgresDocuments
from service.store.postgres.filters.indexed_fields import IndexedFields
from service.store.postgres.recall import PostgresRecalls
from service.store.postgres.schema import server_checks
from service.store.postgres.store import Store
from service.store.postgres.vectors.vectors import PostgresVectors
from service.store.postgres.versions.versions import PostgresVersions
from service.versions.collection_setup import CollectionService
from service.versions.promotion_checks import Examine, Prepare, PromotionChecks
from service.versions.search_checks import SearchChecks
from service.versions.shadow_traffic import ShadowTraffic
from service.versions.state_machine import BUILD_STATES, VersionStateMachine

log = logging.getLogger(__name__)

TEND_SECONDS = 5.0
LEARN_SECONDS = 2.0
LOOK_SECONDS = 2.0
DIAGNOSE_SECONDS = 60.0
TOMBSTONE_AGE = timedelta(days=1)
WATCH_SECONDS = 2.0
EFFORT_SECONDS = 10.0
DRIVE_SECONDS = 1.0
PROBE_CONNECTIONS = 2
PROBE_SECONDS = 30.0
"""Longest statement of a look at a live search: an exact scan of some ten million chunks."""


def open_store(settings: Settings, url: str, name: str) -> AbstractAsyncContextManager[Store]:
    return adapters.open_store(
        url,
        name=name,
        pool_size=settings.pool_size,
        statement_timeout_seconds=settings.statement_timeout_seconds,
    )


def embedders(settings: Settings) -> ModelRegistry:
    return ModelRegistry(
        default=settings.embedder,
        allowed=settings.models,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        encoder_url=settings.encoder_url,
        encoder_key=None if settings.encoder_key is None else settings.encoder_key.get_secret_value(),
    )


def state_machine(
    settings: Settings,
    store: Store,
    verifier: ModelVerifier,
    examine: Examine | None = None,
    prepare: Prepare | None = None,
) -> VersionStateMachine:
    verification = PromotionChecks(
        collections=store.collections,
        versions=store.versions,
        backfills=store.backfills,
        test_sets=store.test_sets,
        processes=store.processes,
        verifier=verifier,
        examine=examine,
        prepare=prepare,
    )
    return VersionStateMachine(
        collections=store.collections,
        versions=store.versions,
        backfills=store.backfills,
        queue=store.queue,
        verifier=verifier,
        verification=verification,
        exact_below=settings.exact_below,
    )


def collection_service(store: Store, models: ModelRegistry, verifier: ModelVerifier) -> CollectionService:
    return CollectionService(collections=store.collections, embedders=models, verifier=verifier)


def reverify(store: Store, models: ModelRegistry) -> ModelVerifier:
    return ModelVerifier(collections=store.collections, versions=store.versions, embedders=models)


def now() -> datetime:
    return datetime.now(UTC)


# ---------------------------------------------------------------- the API


@asynccontextmanager
async def api(settings: Settings, url: str) -> AsyncIterator[FastAPI]:
    """The application over open connections. Models load while it serves already: /readyz tells when they are there."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings, url, "api"))
        await maintenance.repair_after_restore(store.pool)
        models = embedders(settings)
        stack.push_async_callback(models.close)
        verifier = reverify(store, models)
        lexicon = TantivyLexicon(settings.data_dir / "lexical", await server_checks.installation(store.pool))
        stack.push_async_callback(lexicon.close)
        follower = Follower(lexicon, store.collections, store.changes)
        reranker = None
        if settings.reranker != NO_RERANKER:
            reranker = CrossEncoderReranker(
                settings.reranker, device=settings.device, precision=settings.precision, threads=settings.threads
            )
            stack.callback(reranker.close)
        limits = RequestLimits(
            body_bytes=settings.max_body_bytes,
            line_bytes=settings.max_line_bytes,
            documents=DocumentLimits(text_length=settings.max_text_length, batch=settings.max_batch),
        )
        watch = await stack.enter_async_context(_watch(settings, url, lexicon))
        traffic = QueryWindows(settings.drift_seconds)
        search = SearchPipeline(
            collections=store.collections,
            versions=store.versions,
            documents=store.documents,
            vectors=store.vectors,
            lexicon=lexicon,
            embedders=models,
            verifier=verifier,
            reranker=reranker,
            passing_cap=settings.passing_cap,
            max_concurrent=settings.max_concurrent_searches,
            observers=(watch, traffic),
        )
        shadow = ShadowTraffic(
            search=search, collections=store.collections, versions=store.versions, share=settings.shadow_share
        )
        sampling = CollectionSampler(
            vectors=store.vectors, documents=store.documents, embedders=models, verifier=verifier
        )
        recall_controller = RecallController(
            collections=store.collections,
            versions=store.versions,
            queue=store.queue,
            recalls=store.recalls,
            indexes=store.indexes,
            audit=store.audit,
            test_sets=store.test_sets,
            survey=CurveMeasurer(vectors=store.vectors, sampling=sampling),
            remembered=lambda name: [request.text for request in shadow.remembered(name)],
            exact_below=settings.exact_below,
        )
        examiner = SearchChecks(
            search=search,
            versions=store.versions,
            vectors=store.vectors,
            documents=store.documents,
            test_sets=store.test_sets,
            embedders=models,
            verifier=verifier,
            shadow=shadow,
        )
        flow = state_machine(settings, store, verifier, examiner, partial(recall_controller.prepare, now=now))
        readiness = Readiness(
            collections=store.collections,
            versions=store.versions,
            processes=store.processes,
            embedders=models,
            verifier=verifier,
            lexicon_built=lexicon.built,
            check_seconds=settings.check_seconds,
        )
        diagnostics = DiagnosticsService(
            collections=store.collections,
            versions=store.versions,
            vectors=store.vectors,
            documents=store.documents,
            sampling=sampling,
        )
        learning = ConfidenceCalibrator(
            collections=store.collections,
            versions=store.versions,
            queue=store.queue,
            vectors=store.vectors,
            lexicon=lexicon,
            test_sets=store.test_sets,
            sampling=sampling,
        )
        drift_monitor = DriftMonitor(
            traffic=traffic,
            collections=store.collections,
            versions=store.versions,
            vectors=store.vectors,
            lexicon=lexicon,
            sampling=sampling,
            pause=min(PAUSE_SECONDS, settings.drift_seconds),
        )
        gauges = DatabaseGauges(
            collections=store.collections,
            versions=store.versions,
            queue=store.queue,
            backfills=store.backfills,
            recalls=store.recalls,
            indexes=store.indexes,
        )

        @asynccontextmanager
        async def run() -> AsyncIterator[None]:
            stop = asyncio.Event()
            async with (
                in_background(follower.run(stop)),
                in_background(shadow.run(stop)),
                in_background(watch.run(stop)),
                in_background(
                    repeat_every("models", min(WATCH_SECONDS, settings.check_seconds), readiness.watch_models)
                ),
                in_background(repeat_every("heartbeat", WATCH_SECONDS, readiness.beat)),
                in_background(_warm(reranker, readiness)),
                _driving(flow, store.fields),
                in_background(repeat_every("confidence", LEARN_SECONDS, partial(learning.tend, now))),
                in_background(repeat_every("geometry", DIAGNOSE_SECONDS, diagnostics.tend)),
                in_background(repeat_every("drift", LOOK_SECONDS, partial(drift_monitor.tend, now))),
                in_background(repeat_every("effort", EFFORT_SECONDS, partial(recall_controller.tend, now))),
            ):
                yield
                stop.set()
            await recall_controller.leave()
            await readiness.leave()

        yield create_app(
            Service(
                search=search,
                shadow=shadow,
                drift_monitor=drift_monitor,
                evaluator=Evaluator(search=search, versions=store.versions, sampling=sampling),
                ingest=IngestService(
                    documents=store.documents,
                    queue=store.queue,
                    changes=store.changes,
                    lexicon=lexicon,
                    limits=limits.documents,
                ),
                collection_service=collection_service(store, models, verifier),
                state_machine=flow,
                diagnostics=diagnostics,
                recall_controller=recall_controller,
                collections=store.collections,
                versions=store.versions,
                backfills=store.backfills,
                audit=store.audit,
                test_sets=store.test_sets,
                recalls=store.recalls,
                documents=store.documents,
                queue=store.queue,
                lexicon=lexicon,
                embedders=models,
                reranker=reranker,
                limits=limits,
                api_keys=tuple(key.get_secret_value() for key in settings.api_keys),
                languages=KNOWN,
                missing=readiness.missing,
                refresh_metrics=partial(gauges.refresh, now),
                run=run,
            ),
            around=_tracing(settings, stack),
        )


@asynccontextmanager
async def _watch(settings: Settings, url: str, lexicon: TantivyLexicon) -> AsyncIterator[RecallMonitor]:
    """On connections of its own, so that looks never wait for those of live searches, nor they for looks."""
    pool = await open_pool(
        url,
        size=PROBE_CONNECTIONS,
        statement_timeout_seconds=PROBE_SECONDS,
        application_name="azimuth-probe",
        parallel=False,
    )
    async with pool:
        documents, vectors = PostgresDocuments(pool), PostgresVectors(pool, parallel=False)
        spaces = SpaceResolver(PostgresCollections(pool), PostgresVersions(pool))
        yield RecallMonitor(
            probe=DenseProbe(
                vectors=vectors,
                documents=documents,
                spaces=spaces,
                passing_cap=settings.passing_cap,
                below=ef_policy.previous_step,
            ),
            lexical=LexicalProbe(lexicon=lexicon, truth=lexicon, vectors=vectors, documents=documents),
            spaces=spaces,
            ledger=RecallAggregator(PostgresRecalls(pool), now),
            share=settings.probe_share,
            budget_ms=settings.probe_budget_ms,
            chance=random.Random(),  # noqa: S311  no secret
        )


def _tracing(settings: Settings, stack: AsyncExitStack) -> Sequence[Middleware]:
    """Nothing, and nothing loaded, where no traces are wanted. What waits to be sent is sent at the end."""
    if settings.traces_endpoint is None:
        return ()
    try:
        from service.api import tracing
    except ImportError as error:
        raise Misconfigured("AZIMUTH_TRACES_ENDPOINT needs the extra: pip install 'azimuth-search[tracing]'") from error
    traces = tracing.provider(settings.traces_endpoint)
    stack.push_async_callback(asyncio.to_thread, traces.shutdown)
    return (Middleware(tracing.Traced, traces=traces),)


async def _warm(reranker: CrossEncoderReranker | None, readiness: Readiness) -> None:
    """Load the reranker after all that no search can do without, which it would only hold up."""
    if reranker is not None:
        while True:
            if not await readiness.missing():
                break
            await asyncio.sleep(WATCH_SECONDS)
        await reranker.warm()


@asynccontextmanager
async def _driving(flow: VersionStateMachine, fields: IndexedFields) -> AsyncIterator[None]:
    """Move versions and declared fields on for as long as the block lasts.

    What takes hours in one state holds up nothing in another.
    """
    async with AsyncExitStack() as stack:
        for state in sorted(BUILD_STATES):
            work = partial(flow.advance_all, now, frozenset({state}))
            await stack.enter_async_context(in_background(repeat_every(state.value, DRIVE_SECONDS, work)))
        await stack.enter_async_context(
            in_background(repeat_every("fields", DRIVE_SECONDS, lambda: fields.maintain(now())))
        )
        await stack.enter_async_context(
            in_background(repeat_every("indexes", TEND_SECONDS, partial(flow.maintain_complete, now)))
        )
        yield


# ---------------------------------------------------------------- the worker


async def work(settings: Settings, url: str, stop: asyncio.Event) -> None:
    """One embedder process until `stop`."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings, url, "worker"))
        models = embedders(settings)
        stack.push_async_callback(models.close)
        verifier = reverify(store, models)
        flow = state_machine(settings, store, verifier)
        names = KnownCollections(store.collections)

        async def tend() -> None:
            await names.look()
            await maintenance.purge_tombstones(store.pool, now() - TOMBSTONE_AGE)

        embedder = Worker(
            queue=store.queue,
            vectors=store.vectors,
            versions=store.versions,
            collections=store.collections,
            ensure=verifier.ensure,
            claim=settings.claim,
            lease=timedelta(seconds=settings.lease_seconds),
            max_attempts=settings.max_attempts,
            batch_tokens=settings.batch_tokens,
            backfill_per_second=settings.backfill_per_second,
            tend=tend,
            tend_seconds=TEND_SECONDS,
        )
        # All beside each other: while an index is built for minutes, a swapped model must be noticed all the same.
        async with (
            _driving(flow, store.fields),
            in_background(repeat_every("models", settings.check_seconds, verifier.reverify_all)),
        ):
            await embedder.run(stop)
