"""Settings -> running objects. The only file that picks implementations."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from fastapi import FastAPI
from starlette.middleware import Middleware

from service import effort, metrics
from service.api.app import create_app
from service.api.dependencies import Limits, Service
from service.appraisal import Appraisal
from service.control import Control
from service.diagnosis import Diagnosis
from service.domain import Collection
from service.embedder.registry import Registry
from service.embedder.reranker import CrossEncoderReranker
from service.embedder.worker import Worker
from service.errors import AzimuthError, Misconfigured
from service.evidence import Examiner
from service.ingest import Ingest
from service.ingest import Limits as DocumentLimits
from service.learning import Learning
from service.ledger import Ledger
from service.lexical_probe import LexicalProbe
from service.lifecycle import UNDER_WAY, Lifecycle
from service.lookout import PAUSE_SECONDS, Lookout
from service.probe import Probe
from service.proof import Proof
from service.readiness import Readiness
from service.sampling import Sampling
from service.search import Search
from service.settings import NO_RERANKER, Settings
from service.shadow import Shadow
from service.space import Spaces
from service.store import housekeeping, server
from service.store.audit import PostgresAudit
from service.store.backfills import PostgresBackfills
from service.store.changes import PostgresChanges
from service.store.collections import PostgresCollections
from service.store.documents import PostgresDocuments
from service.store.follower import Follower
from service.store.health import PostgresIndexes
from service.store.indexed import IndexedFields
from service.store.languages import KNOWN
from service.store.lexical import TantivyLexicon
from service.store.pool import Pool, open_pool
from service.store.processes import PostgresProcesses
from service.store.queue import PostgresQueue
from service.store.recall import PostgresRecalls
from service.store.test_sets import PostgresTestSets
from service.store.vectors import PostgresVectors
from service.store.versions import PostgresVersions
from service.survey import Survey
from service.traffic import Traffic
from service.verification import Examine, Verification
from service.version import VersionState
from service.watch import Watch

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """The adapters over one pool."""

    pool: Pool
    collections: PostgresCollections
    versions: PostgresVersions
    documents: PostgresDocuments
    queue: PostgresQueue
    vectors: PostgresVectors
    changes: PostgresChanges
    backfills: PostgresBackfills
    audit: PostgresAudit
    test_sets: PostgresTestSets
    processes: PostgresProcesses
    recalls: PostgresRecalls
    indexes: PostgresIndexes
    fields: IndexedFields


@asynccontextmanager
async def open_store(settings: Settings, url: str, name: str) -> AsyncIterator[Store]:
    """Check the server, open the pool. DatabaseTooOld, MissingRights or DatabaseUnavailable where it cannot serve."""
    await server.check(url)
    pool = await open_pool(
        url,
        size=settings.pool_size,
        statement_timeout_seconds=settings.statement_timeout_seconds,
        application_name=f"azimuth-{name}",
    )
    try:
        yield Store(
            pool=pool,
            collections=PostgresCollections(pool),
            versions=PostgresVersions(pool),
            documents=PostgresDocuments(pool),
            queue=PostgresQueue(pool),
            vectors=PostgresVectors(pool),
            changes=PostgresChanges(pool),
            backfills=PostgresBackfills(pool),
            audit=PostgresAudit(pool),
            test_sets=PostgresTestSets(pool),
            processes=PostgresProcesses(pool),
            recalls=PostgresRecalls(pool),
            indexes=PostgresIndexes(pool),
            fields=IndexedFields(pool),
        )
    finally:
        await pool.close()


def embedders(settings: Settings) -> Registry:
    return Registry(
        default=settings.embedder,
        allowed=settings.models,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        encoder_url=settings.encoder_url,
        encoder_key=None if settings.encoder_key is None else settings.encoder_key.get_secret_value(),
    )


def lifecycle(
    settings: Settings, store: Store, models: Registry, proof: Proof, examine: Examine | None = None
) -> Lifecycle:
    verification = Verification(
        collections=store.collections,
        versions=store.versions,
        backfills=store.backfills,
        test_sets=store.test_sets,
        processes=store.processes,
        proof=proof,
        examine=examine,
    )
    return Lifecycle(
        collections=store.collections,
        versions=store.versions,
        backfills=store.backfills,
        queue=store.queue,
        embedders=models,
        proof=proof,
        verification=verification,
        exact_below=settings.exact_below,
    )


def prove(store: Store, models: Registry) -> Proof:
    return Proof(collections=store.collections, versions=store.versions, embedders=models)


async def regularly(name: str, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do `work` every so many seconds, for ever: what goes wrong is logged, and tried again at the next turn."""
    while True:
        try:
            await work()
        except AzimuthError as error:
            log.warning("put off", extra={"what": name, "reason": error.detail})
        except Exception:
            log.exception("failed", extra={"what": name})
        await asyncio.sleep(seconds)


def now() -> datetime:
    return datetime.now(UTC)


# ---------------------------------------------------------------- the API


@asynccontextmanager
async def api(settings: Settings, url: str) -> AsyncIterator[FastAPI]:
    """The application over open connections. Models load while it serves already: /readyz tells when they are there."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings, url, "api"))
        await housekeeping.repair_after_restore(store.pool)
        models = embedders(settings)
        stack.push_async_callback(models.close)
        proof = prove(store, models)
        lexicon = TantivyLexicon(settings.data_dir / "lexical", await server.installation(store.pool))
        stack.push_async_callback(lexicon.close)
        follower = Follower(lexicon, store.collections, store.changes)
        reranker = None
        if settings.reranker != NO_RERANKER:
            reranker = CrossEncoderReranker(
                settings.reranker, device=settings.device, precision=settings.precision, threads=settings.threads
            )
            stack.callback(reranker.close)
        limits = Limits(
            body_bytes=settings.max_body_bytes,
            line_bytes=settings.max_line_bytes,
            documents=DocumentLimits(text_length=settings.max_text_length, batch=settings.max_batch),
        )
        watch = await stack.enter_async_context(_watch(settings, url, lexicon))
        traffic = Traffic(settings.drift_seconds)
        search = Search(
            collections=store.collections,
            versions=store.versions,
            documents=store.documents,
            vectors=store.vectors,
            lexicon=lexicon,
            embedders=models,
            proof=proof,
            reranker=reranker,
            passing_cap=settings.passing_cap,
            max_concurrent=settings.max_concurrent_searches,
            observers=(watch, traffic),
        )
        shadow = Shadow(
            search=search, collections=store.collections, versions=store.versions, share=settings.shadow_share
        )
        sampling = Sampling(vectors=store.vectors, documents=store.documents, embedders=models, proof=proof)
        control = Control(
            collections=store.collections,
            versions=store.versions,
            queue=store.queue,
            recalls=store.recalls,
            indexes=store.indexes,
            audit=store.audit,
            test_sets=store.test_sets,
            survey=Survey(vectors=store.vectors, sampling=sampling),
            remembered=lambda name: [request.text for request in shadow.remembered(name)],
            exact_below=settings.exact_below,
        )
        examiner = Examiner(
            search=search,
            versions=store.versions,
            vectors=store.vectors,
            documents=store.documents,
            test_sets=store.test_sets,
            embedders=models,
            proof=proof,
            shadow=shadow,
            prepare=partial(control.prepare, now=now),
        )
        flow = lifecycle(settings, store, models, proof, examiner)
        readiness = Readiness(
            collections=store.collections,
            versions=store.versions,
            processes=store.processes,
            embedders=models,
            proof=proof,
            lexicon_built=lexicon.built,
            check_seconds=settings.check_seconds,
        )
        diagnosis = Diagnosis(
            collections=store.collections,
            versions=store.versions,
            vectors=store.vectors,
            documents=store.documents,
            sampling=sampling,
        )
        learning = Learning(
            collections=store.collections,
            versions=store.versions,
            queue=store.queue,
            vectors=store.vectors,
            lexicon=lexicon,
            test_sets=store.test_sets,
            sampling=sampling,
        )
        lookout = Lookout(
            traffic=traffic,
            collections=store.collections,
            versions=store.versions,
            vectors=store.vectors,
            lexicon=lexicon,
            sampling=sampling,
            pause=min(PAUSE_SECONDS, settings.drift_seconds),
        )
        known: set[str] = set()

        @asynccontextmanager
        async def run() -> AsyncIterator[None]:
            stop = asyncio.Event()
            async with (
                _running(follower.run(stop)),
                _running(shadow.run(stop)),
                _running(watch.run(stop)),
                _running(regularly("models", min(WATCH_SECONDS, settings.check_seconds), readiness.watch_models)),
                _running(regularly("heartbeat", WATCH_SECONDS, readiness.beat)),
                _running(_warm(reranker, readiness)),
                _driving(flow, store.fields),
                _running(regularly("confidence", LEARN_SECONDS, partial(learning.tend, now))),
                _running(regularly("geometry", DIAGNOSE_SECONDS, diagnosis.tend)),
                _running(regularly("drift", LOOK_SECONDS, partial(lookout.tend, now))),
                _running(regularly("effort", EFFORT_SECONDS, partial(control.tend, now))),
            ):
                yield
                stop.set()
            await control.leave()
            await readiness.leave()

        yield create_app(
            Service(
                search=search,
                shadow=shadow,
                lookout=lookout,
                appraisal=Appraisal(search=search, versions=store.versions, sampling=sampling),
                ingest=Ingest(
                    documents=store.documents,
                    queue=store.queue,
                    changes=store.changes,
                    lexicon=lexicon,
                    limits=limits.documents,
                ),
                lifecycle=flow,
                diagnosis=diagnosis,
                control=control,
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
                refresh_metrics=lambda: refresh_metrics(store, control, known),
                run=run,
            ),
            around=_tracing(settings, stack),
        )


@asynccontextmanager
async def _watch(settings: Settings, url: str, lexicon: TantivyLexicon) -> AsyncIterator[Watch]:
    """On connections of its own, so that looks never wait for those of live searches, nor they for looks."""
    pool = await open_pool(
        url,
        size=PROBE_CONNECTIONS,
        statement_timeout_seconds=PROBE_SECONDS,
        application_name="azimuth-probe",
        alone=True,
    )
    async with pool:
        documents, vectors = PostgresDocuments(pool), PostgresVectors(pool)
        spaces = Spaces(PostgresCollections(pool), PostgresVersions(pool))
        yield Watch(
            probe=Probe(
                vectors=vectors,
                documents=documents,
                spaces=spaces,
                passing_cap=settings.passing_cap,
                below=effort.below,
            ),
            lexical=LexicalProbe(lexicon=lexicon, truth=lexicon, vectors=vectors, documents=documents),
            spaces=spaces,
            ledger=Ledger(PostgresRecalls(pool), now),
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
async def _running(work: Awaitable[None]) -> AsyncIterator[None]:
    """Run `work` for as long as the block does."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def _driving(flow: Lifecycle, fields: IndexedFields) -> AsyncIterator[None]:
    """Move versions and declared fields on for as long as the block lasts.

    What takes hours in one state holds up nothing in another.
    """
    async with AsyncExitStack() as stack:
        for state in sorted(UNDER_WAY):
            work = partial(flow.drive, now, frozenset({state}))
            await stack.enter_async_context(_running(regularly(state.value, DRIVE_SECONDS, work)))
        await stack.enter_async_context(_running(regularly("fields", DRIVE_SECONDS, lambda: fields.tend(now()))))
        await stack.enter_async_context(_running(regularly("indexes", TEND_SECONDS, partial(flow.tend, now))))
        yield


async def standing(collections: PostgresCollections, known: set[str]) -> tuple[Collection, ...]:
    """The collections that there are. Gauges of those that are gone since the last look (`known`) go too."""
    there = await collections.all()
    names: set[str] = {collection.name for collection in there}
    for name in known - names:
        metrics.forget(name)
    known.clear()
    known.update(names)
    return there


async def refresh_metrics(store: Store, control: Control, known: set[str]) -> None:
    """Bring the gauges that mirror the database up to date, right before they are read."""
    moment = now()
    for collection in await standing(store.collections, known):
        queue = await store.queue.status(collection.id, collection.active_version, moment)
        metrics.QUEUE_PENDING.labels(collection.name).set(queue.pending)
        metrics.QUEUE_FAILED.labels(collection.name).set(queue.failed)
        metrics.QUEUE_OLDEST.labels(collection.name).set(queue.oldest_seconds)
        await control.export(collection)
        for version in await store.versions.of(collection.id):
            labels = (collection.name, str(version.number))
            for state in VersionState:
                metrics.VERSION_STATE.labels(*labels, state.value).set(version.state is state)
            if version.state is VersionState.BACKFILLING:
                progress = await store.backfills.progress(version, moment)
                metrics.BACKFILL_REMAINING.labels(*labels).set(progress.total - progress.done)
            else:
                metrics.BACKFILL_REMAINING.remove_by_labels({"collection": labels[0], "version": labels[1]})


# ---------------------------------------------------------------- the worker


async def work(settings: Settings, url: str, stop: asyncio.Event) -> None:
    """One embedder process until `stop`."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings, url, "worker"))
        models = embedders(settings)
        stack.push_async_callback(models.close)
        proof = prove(store, models)
        flow = lifecycle(settings, store, models, proof)
        known: set[str] = set()

        async def tend() -> None:
            await standing(store.collections, known)
            await housekeeping.purge_tombstones(store.pool, now() - TOMBSTONE_AGE)

        embedder = Worker(
            queue=store.queue,
            vectors=store.vectors,
            versions=store.versions,
            collections=store.collections,
            admit=proof.admit,
            claim=settings.claim,
            lease=timedelta(seconds=settings.lease_seconds),
            max_attempts=settings.max_attempts,
            batch_tokens=settings.batch_tokens,
            backfill_per_second=settings.backfill_per_second,
            tend=tend,
            tend_seconds=TEND_SECONDS,
        )
        # All beside each other: while an index is built for minutes, a swapped model must be noticed all the same.
        async with _driving(flow, store.fields), _running(regularly("models", settings.check_seconds, proof.prove_all)):
            await embedder.run(stop)
