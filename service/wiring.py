"""Settings -> running objects. The only file that picks implementations."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fastapi import FastAPI

from service import metrics
from service.api.app import create_app
from service.api.dependencies import Limits, Service
from service.domain import Collection, EmbedderSpec, VersionState
from service.embedder.registry import Registry
from service.embedder.reranker import CrossEncoderReranker
from service.embedder.worker import Worker
from service.errors import AzimuthError
from service.ingest import Ingest
from service.ingest import Limits as DocumentLimits
from service.lifecycle import Lifecycle
from service.search import Search
from service.settings import Settings
from service.store import housekeeping, server
from service.store.analyzer import LANGUAGES
from service.store.changes import PostgresChanges
from service.store.collections import PostgresCollections
from service.store.documents import PostgresDocuments
from service.store.follower import Follower
from service.store.lexical import TantivyLexicon
from service.store.pool import Pool, open_pool
from service.store.queue import PostgresQueue
from service.store.vectors import PostgresVectors
from service.store.versions import PostgresVersions

log = logging.getLogger(__name__)

TEND_SECONDS = 5.0
TOMBSTONE_AGE = timedelta(days=1)
WARM_UP_SECONDS = 5.0
"""Pause before what is missing is tried again."""


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
    )


def lifecycle(settings: Settings, store: Store, models: Registry) -> Lifecycle:
    return Lifecycle(
        collections=store.collections,
        versions=store.versions,
        queue=store.queue,
        embedders=models,
        exact_below=settings.exact_below,
    )


# ---------------------------------------------------------------- the API


class Readiness:
    """What keeps this API from being usable; empty when it is ready."""

    def __init__(self, store: Store, flow: Lifecycle, lexicon: TantivyLexicon, models: Registry) -> None:
        self._store = store
        self._lifecycle = flow
        self._lexicon = lexicon
        self._models = models
        self._models_missing = ["models: loading"]
        self._lexicon_stood = False
        self._started = datetime.now(UTC)

    async def watch_models(self, check_seconds: float) -> None:
        """Load the default model and prove every active version; soon again what failed, the rest now and then."""
        while True:
            missing = [reason async for reason in self._unproven()]
            if missing != self._models_missing and missing:
                log.warning("not ready", extra={"missing": missing})
            self._models_missing = missing
            await asyncio.sleep(min(WARM_UP_SECONDS, check_seconds) if missing else check_seconds)

    async def _unproven(self) -> AsyncIterator[str]:
        try:
            await self._models.get(self._models.resolve(EmbedderSpec()))
            collections = await self._store.collections.all()
        except AzimuthError as error:
            yield f"models: {error.detail}"
            return
        for collection in collections:
            try:
                for version in await self._store.versions.of(collection.id):
                    if version.number == collection.active_version:
                        await self._lifecycle.prove(version)
            except AzimuthError as error:
                yield f"collection {collection.name}: {error.detail}"

    async def missing(self) -> list[str]:
        missing = list(self._models_missing)
        try:
            # What was created since is empty, and found a moment later: no reason to send clients away.
            unbuilt = [
                f"lexical index of {collection.name}: being built"
                for collection in await self._store.collections.all()
                if collection.created_at < self._started and not self._lexicon.built(collection)
            ]
        except AzimuthError as error:
            return [*missing, f"database: {error.detail}"]
        # Once all stood, one that is built anew (another language) makes searches there say so, and no more.
        self._lexicon_stood = self._lexicon_stood or not unbuilt
        return missing if self._lexicon_stood else [*missing, *unbuilt]


@asynccontextmanager
async def api(settings: Settings, url: str) -> AsyncIterator[FastAPI]:
    """The application over open connections. Models load while it serves already: /readyz tells when they are there."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings, url, "api"))
        await housekeeping.repair_after_restore(store.pool)
        models = embedders(settings)
        stack.push_async_callback(models.close)
        flow = lifecycle(settings, store, models)
        lexicon = TantivyLexicon(settings.data_dir / "lexical", await server.installation(store.pool))
        stack.push_async_callback(lexicon.close)
        follower = Follower(lexicon, store.collections, store.changes)
        reranker = None
        if settings.reranker:
            reranker = CrossEncoderReranker(settings.reranker, device=settings.device, precision=settings.precision)
            stack.callback(reranker.close)
        limits = Limits(
            body_bytes=settings.max_body_bytes,
            line_bytes=settings.max_line_bytes,
            documents=DocumentLimits(text_length=settings.max_text_length, batch=settings.max_batch),
        )
        readiness = Readiness(store, flow, lexicon, models)
        known: set[str] = set()

        @asynccontextmanager
        async def run() -> AsyncIterator[None]:
            stop = asyncio.Event()
            async with _running(follower.run(stop)), _running(readiness.watch_models(settings.check_seconds)):
                yield
                stop.set()

        yield create_app(
            Service(
                search=Search(
                    collections=store.collections,
                    versions=store.versions,
                    documents=store.documents,
                    vectors=store.vectors,
                    lexicon=lexicon,
                    embedders=models,
                    lifecycle=flow,
                    reranker=reranker,
                    passing_cap=settings.passing_cap,
                    max_concurrent=settings.max_concurrent_searches,
                ),
                ingest=Ingest(
                    documents=store.documents,
                    queue=store.queue,
                    changes=store.changes,
                    lexicon=lexicon,
                    limits=limits.documents,
                ),
                lifecycle=flow,
                collections=store.collections,
                versions=store.versions,
                documents=store.documents,
                queue=store.queue,
                lexicon=lexicon,
                embedders=models,
                reranker=reranker,
                limits=limits,
                api_keys=tuple(key.get_secret_value() for key in settings.api_keys),
                languages=frozenset(LANGUAGES),
                missing=readiness.missing,
                refresh_metrics=lambda: refresh_metrics(store, known),
                run=run,
            )
        )


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


async def standing(collections: PostgresCollections, known: set[str]) -> tuple[Collection, ...]:
    """The collections that there are. Gauges of those that are gone since the last look (`known`) go too."""
    there = await collections.all()
    names: set[str] = {collection.name for collection in there}
    for name in known - names:
        metrics.forget(name)
    known.clear()
    known.update(names)
    return there


async def refresh_metrics(store: Store, known: set[str]) -> None:
    """Bring the gauges that mirror the database up to date, right before they are read."""
    now = datetime.now(UTC)
    for collection in await standing(store.collections, known):
        queue = await store.queue.status(collection.id, now)
        metrics.QUEUE_PENDING.labels(collection.name).set(queue.pending)
        metrics.QUEUE_FAILED.labels(collection.name).set(queue.failed)
        metrics.QUEUE_OLDEST.labels(collection.name).set(queue.oldest_seconds)
        for version in await store.versions.of(collection.id):
            for state in VersionState:
                labels = (collection.name, str(version.number), state.value)
                metrics.VERSION_STATE.labels(*labels).set(version.state is state)


# ---------------------------------------------------------------- the worker


async def work(settings: Settings, url: str, stop: asyncio.Event) -> None:
    """One embedder process until `stop`."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings, url, "worker"))
        models = embedders(settings)
        stack.push_async_callback(models.close)
        flow = lifecycle(settings, store, models)

        checked = time.monotonic()

        known: set[str] = set()

        async def tend() -> None:
            nonlocal checked
            if time.monotonic() - checked > settings.check_seconds:
                await flow.prove_all()
                checked = time.monotonic()
            await standing(store.collections, known)
            await flow.tend(datetime.now(UTC))
            await housekeeping.purge_tombstones(store.pool, datetime.now(UTC) - TOMBSTONE_AGE)

        embedder = Worker(
            queue=store.queue,
            vectors=store.vectors,
            versions=store.versions,
            collections=store.collections,
            admit=flow.admit,
            claim=settings.claim,
            lease=timedelta(seconds=settings.lease_seconds),
            max_attempts=settings.max_attempts,
            batch_tokens=settings.batch_tokens,
            tend=tend,
            tend_seconds=TEND_SECONDS,
        )
        await embedder.run(stop)
