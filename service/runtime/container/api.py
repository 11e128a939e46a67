"""The API process: the application over open connections, and everything that it searches, measures and writes with."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from uuid import UUID

from fastapi import FastAPI
from starlette.middleware import Middleware

from service.analysis.service import AnalysisService
from service.api.app import create_app
from service.api.dependencies import RequestLimits, Service
from service.confidence.calibrate import ConfidenceCalibrator
from service.core.errors import Misconfigured
from service.core.images import ImageReader
from service.core.periodic import in_background, keep_running, repeat_every, utc_now
from service.diagnostics.service import DiagnosticsService
from service.drift.monitor import INTERVAL_SECONDS, DriftMonitor
from service.drift.query_window import QueryWindows
from service.embedder.models.registry import ModelRegistry
from service.embedder.reranker.reranker import CrossEncoderReranker
from service.evaluation.evaluator import Evaluator
from service.ingest.service import IngestService
from service.ingest.validation import DocumentLimits
from service.recall import ef_policy
from service.recall.aggregate import RecallAggregator
from service.recall.calibration_curve import CurveMeasurer
from service.recall.controller import RecallController
from service.recall.dense_probe import DenseProbe
from service.recall.lexical_probe import LexicalProbe
from service.recall.monitor import RecallMonitor
from service.runtime.container import components
from service.runtime.container.background import load_reranker_last, version_tasks
from service.runtime.db_gauges import DatabaseGauges, KnownCollections
from service.runtime.http_server import allowed_hosts
from service.runtime.readiness import Readiness
from service.runtime.settings import NO_RERANKER, Settings
from service.search.pipeline import SearchPipeline
from service.spaces.resolver import SpaceResolver
from service.spaces.sampling import CollectionSampler
from service.store.lexical.follower import Follower
from service.store.lexical.languages import KNOWN
from service.store.lexical.lexicon import TantivyLexicon
from service.store.postgres import maintenance
from service.store.postgres.connection.pool import open_pool
from service.store.postgres.schema import server_checks
from service.store.postgres.store import Store
from service.store.postgres.vectors.vectors import PostgresVectors
from service.versions.collection_setup import CollectionService
from service.versions.search_checks import SearchChecks
from service.versions.shadow_traffic import ShadowTraffic

EF_SEARCH_SECONDS = 10.0
PROBE_SECONDS = 30.0
"""Longest statement of a recall probe: an exact scan of some ten million chunks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """What an API process keeps when it reads its database anew: models, and indexes, which know what they contain."""

    models: ModelRegistry
    reranker: CrossEncoderReranker | None
    lexicons: dict[UUID, TantivyLexicon] = field(default_factory=dict)


@asynccontextmanager
async def open_loaded(settings: Settings) -> AsyncIterator[Loaded]:
    async with AsyncExitStack() as stack:
        models = components.model_registry(settings)
        stack.push_async_callback(models.close)
        reranker = None
        if settings.reranker != NO_RERANKER:
            reranker = CrossEncoderReranker(
                settings.reranker,
                models.scheduler,
                device=settings.device,
                precision=settings.precision,
                threads=settings.threads,
                backend=settings.model_backend,
                exports=settings.data_dir / "models",
            )
        loaded = Loaded(models=models, reranker=reranker)
        try:
            yield loaded
        finally:
            for lexicon in loaded.lexicons.values():
                await lexicon.close()


@asynccontextmanager
async def open_api(settings: Settings, url: str, loaded: Loaded | None = None) -> AsyncIterator[FastAPI]:
    """The application. It serves while its models still load; /readyz tells when they are there.

    `app.state.pool`: its connections to the database.
    """
    async with AsyncExitStack() as stack:
        if loaded is None:
            loaded = await stack.enter_async_context(open_loaded(settings))
        models, reranker = loaded.models, loaded.reranker
        store = await stack.enter_async_context(components.open_store(settings, url, "api"))
        keys = await stack.enter_async_context(components.open_key_ring(settings, store))
        await maintenance.repair_after_restore(store.pool)
        collections, versions, documents, vectors = store.collections, store.versions, store.documents, store.vectors
        queue, recalls, test_sets = store.queue, store.recalls, store.test_sets
        verifier = components.model_verifier(store, models)
        installation = await server_checks.installation(store.pool)
        known_lexicon = loaded.lexicons.get(installation)
        lexicon = known_lexicon or TantivyLexicon(settings.data_dir / "lexical", installation)
        loaded.lexicons[installation] = lexicon
        follower = Follower(lexicon, collections, store.changes)
        limits = RequestLimits(
            body_bytes=settings.max_body_bytes,
            body_seconds=settings.body_timeout_seconds,
            line_bytes=settings.max_line_bytes,
            upload_bytes=settings.max_upload_bytes,
            concurrent=settings.max_concurrent_searches,
            budget_ms=settings.budget_ms or None,
            long_texts=settings.long_texts,
            documents=DocumentLimits(text_length=settings.max_text_length, batch=settings.max_batch),
        )
        recall_monitor = await stack.enter_async_context(_open_recall_monitor(settings, url, lexicon))
        replicas = components.replicas(settings, store)
        image_reader = partial(  # one for searches and one for writes, which do not wait for each other's images
            ImageReader,
            max_bytes=settings.max_image_bytes,
            max_pixels=settings.max_image_pixels,
            hosts=settings.image_hosts,
        )
        query_windows = QueryWindows(settings.drift_seconds)
        search = SearchPipeline(
            collections=collections,
            versions=versions,
            documents=documents,
            vectors=vectors,
            lexicon=lexicon,
            changes=store.changes,
            embedders=models,
            verifier=verifier,
            reranker=reranker,
            passing_cap=settings.passing_cap,
            max_concurrent=settings.max_concurrent_searches,
            observers=(recall_monitor, query_windows),
            replicas=replicas,
            images=image_reader(),
        )
        shadow = ShadowTraffic(search=search, collections=collections, versions=versions, share=settings.shadow_share)
        sampling = CollectionSampler(vectors=vectors, documents=documents, embedders=models, verifier=verifier)
        recall_controller = RecallController(
            collections=collections,
            versions=versions,
            queue=queue,
            recalls=recalls,
            indexes=store.indexes,
            audit=store.audit,
            test_sets=test_sets,
            curve_measurer=CurveMeasurer(vectors=vectors, sampling=sampling),
            live_texts=lambda name: [request.text for request in shadow.recent(name)],
            exact_below=settings.exact_below,
        )
        search_checks = SearchChecks(
            search=search,
            versions=versions,
            vectors=vectors,
            test_sets=test_sets,
            verifier=verifier,
            sampling=sampling,
            shadow=shadow,
        )
        prepare = partial(recall_controller.prepare, now=utc_now)
        machine = components.state_machine(settings, store, verifier, measure=search_checks.measure, prepare=prepare)
        readiness = Readiness(
            collections=collections,
            versions=versions,
            processes=store.processes,
            embedders=models,
            verifier=verifier,
            lexicon_built=lexicon.is_searchable,
            lexicons_were_built=known_lexicon is not None,
            check_seconds=settings.check_seconds,
        )
        diagnostics = DiagnosticsService(
            collections=collections, versions=versions, vectors=vectors, documents=documents, sampling=sampling
        )
        calibrator = ConfidenceCalibrator(
            collections=collections,
            versions=versions,
            queue=queue,
            vectors=vectors,
            lexicon=lexicon,
            test_sets=test_sets,
            sampling=sampling,
        )
        drift_monitor = DriftMonitor(
            traffic=query_windows,
            collections=collections,
            versions=versions,
            vectors=vectors,
            lexicon=lexicon,
            sampling=sampling,
            interval=min(INTERVAL_SECONDS, settings.drift_seconds),
        )
        gauges = DatabaseGauges(
            known=KnownCollections(collections),
            versions=versions,
            queue=queue,
            backfills=store.backfills,
            recalls=recalls,
            indexes=store.indexes,
        )

        keep = timedelta(days=settings.feedback_days)

        @asynccontextmanager
        async def run() -> AsyncIterator[None]:
            stop = asyncio.Event()

            async def hold_facets() -> None:
                await store.documents.warm_facets(await collections.all())

            async with in_background(
                keep_running("lexical index", partial(follower.run, stop)),
                *([replicas.run()] if replicas else []),
                keep_running("shadow traffic", partial(shadow.run, stop)),
                keep_running("recall monitor", partial(recall_monitor.run, stop)),
                keep_running("reranker", partial(load_reranker_last, reranker, readiness)),
                *version_tasks(machine, store.fields),
                # name in the log, seconds between two runs, work
                repeat_every("models", min(2.0, settings.check_seconds), readiness.check_models),
                repeat_every("lexical files", 60.0, lexicon.verify),
                repeat_every("heartbeat", 2.0, readiness.send_heartbeat),
                repeat_every("confidence", 2.0, partial(calibrator.calibrate_due, utc_now)),
                repeat_every("geometry", 60.0, diagnostics.diagnose_due),
                repeat_every("facets", 5.0, hold_facets),
                repeat_every("feedback", 3_600.0, lambda: test_sets.delete_marks_before(utc_now() - keep)),
                repeat_every("drift", 2.0, partial(drift_monitor.measure_due, utc_now)),
                repeat_every("ef_search", EF_SEARCH_SECONDS, partial(recall_controller.adjust_all, utc_now)),
            ):
                yield
                stop.set()
            await recall_controller.cancel_rebuilds()
            await readiness.remove_heartbeat()

        app = create_app(
            Service(
                search=search,
                shadow=shadow,
                drift_monitor=drift_monitor,
                evaluator=Evaluator(search=search, versions=versions, sampling=sampling),
                ingest=IngestService(
                    collections=collections,
                    documents=documents,
                    queue=queue,
                    versions=versions,
                    changes=store.changes,
                    lexicon=lexicon,
                    limits=limits.documents,
                    images=image_reader(),
                ),
                collection_service=CollectionService(collections=collections, embedders=models, verifier=verifier),
                state_machine=machine,
                diagnostics=diagnostics,
                analysis=AnalysisService(
                    versions=versions, vectors=vectors, documents=documents, sampling=sampling, turns=diagnostics.turns
                ),
                recall_controller=recall_controller,
                collections=collections,
                versions=versions,
                backfills=store.backfills,
                audit=store.audit,
                api_keys=store.api_keys,
                test_sets=test_sets,
                recalls=recalls,
                documents=documents,
                vectors=vectors,
                queue=queue,
                lexicon=lexicon,
                embedders=models,
                reranker=reranker,
                limits=limits,
                keys=keys,
                cors_origins=settings.cors_origins,
                allowed_hosts=allowed_hosts(settings),
                metrics=settings.expose_metrics,
                docs=settings.expose_docs,
                languages=KNOWN,
                mcp_writes=settings.mcp_writes,
                model_aliases=settings.aliases,
                missing=readiness.missing,
                refresh_metrics=partial(gauges.refresh, utc_now),
                run=run,
            ),
            around=tracing_middleware(settings, stack),
        )
        app.openapi()  # takes long, and is kept
        app.state.pool = store.pool
        yield app


@asynccontextmanager
async def _open_recall_monitor(settings: Settings, url: str, lexicon: TantivyLexicon) -> AsyncIterator[RecallMonitor]:
    """It has connections of its own, so that probes and live searches never wait for each other's."""
    pool = await open_pool(
        url, size=2, statement_timeout_seconds=PROBE_SECONDS, application_name="azimuth-probe", parallel=False
    )
    async with pool:
        store, vectors = Store(pool), PostgresVectors(pool, parallel=False)
        spaces = SpaceResolver(store.collections, store.versions)
        yield RecallMonitor(
            dense_probe=DenseProbe(
                vectors=vectors,
                documents=store.documents,
                spaces=spaces,
                passing_cap=settings.passing_cap,
                lower_step=ef_policy.previous_step,
            ),
            lexical_probe=LexicalProbe(lexicon=lexicon, truth=lexicon, vectors=vectors, documents=store.documents),
            spaces=spaces,
            aggregator=RecallAggregator(store.recalls, utc_now),
            share=settings.probe_share,
            budget_ms=settings.probe_budget_ms,
            rng=random.Random(),  # noqa: S311  no secret
        )


def tracing_middleware(settings: Settings, stack: AsyncExitStack) -> Sequence[Middleware]:
    """Without an endpoint nothing is returned and nothing imported. Spans that wait are sent when `stack` closes."""
    if settings.traces_endpoint is None:
        return ()
    try:
        from service.api import tracing
    except ImportError as error:
        raise Misconfigured("AZIMUTH_TRACES_ENDPOINT needs the extra: pip install 'azimuth-search[tracing]'") from error
    traces = tracing.create_tracer_provider(settings.traces_endpoint)
    stack.push_async_callback(asyncio.to_thread, traces.shutdown)
    return (Middleware(tracing.TracingMiddleware, traces=traces),)
