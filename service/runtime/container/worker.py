"""The worker process: claims documents, encodes them, writes their vectors, and keeps house."""

import asyncio
import logging
import os
from contextlib import AsyncExitStack
from datetime import timedelta

from service.core.periodic import in_background, repeat_every, utc_now
from service.embedder.worker.settings import WorkerSettings
from service.embedder.worker.worker import Worker
from service.runtime.container import components
from service.runtime.container.background import RESTORE_SECONDS, load_default_model, report_restore, version_tasks
from service.runtime.db_gauges import KnownCollections
from service.runtime.settings import Settings
from service.store.postgres import maintenance
from service.store.postgres.restores import RestoreWatch
from service.store.postgres.schema import migrations

log = logging.getLogger(__name__)

TOMBSTONE_AGE = timedelta(days=1)


async def run_worker(settings: Settings, url: str, stop: asyncio.Event) -> None:
    """One embedder process until `stop`. It begins anew, and forgets what it knew, when the database was restored."""
    while not stop.is_set():
        await _work(settings, url, stop)
        if not stop.is_set():
            await migrations.apply(url)


async def _work(settings: Settings, url: str, stop: asyncio.Event) -> None:
    """Until `stop`, or until the database was restored: what is in hand then is of another state, and is dropped."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(components.open_store(settings, url, "worker"))
        models = components.model_registry(settings)
        stack.push_async_callback(models.close)
        verifier = components.model_verifier(store, models)
        machine = components.state_machine(settings, store, verifier)
        collections = KnownCollections(store.collections)

        async def keep_house() -> None:
            await collections.refresh()
            await maintenance.purge_tombstones(store.pool, utc_now() - TOMBSTONE_AGE)
            await maintenance.forget_marks(store.pool, utc_now())

        worker = Worker(
            queue=store.queue,
            vectors=store.vectors,
            versions=store.versions,
            collections=store.collections,
            ensure=verifier.ensure,
            settings=WorkerSettings(
                claim=settings.claim,
                lease=timedelta(seconds=settings.lease_seconds),
                max_attempts=settings.max_attempts,
                batch_tokens=settings.batch_tokens,
                backfill_per_second=settings.backfill_per_second,
                housekeeping_seconds=5.0,
            ),
            housekeeping=keep_house,
        )
        # Side by side: a swapped model must be noticed also while an index is built for minutes.
        verification = repeat_every("models", settings.check_seconds, verifier.reverify_all)
        loading = load_default_model(store.collections, verifier)
        working = asyncio.ensure_future(worker.run(stop))
        watch = RestoreWatch()

        async def end_when_restored() -> None:
            if await watch.restored(store.pool):
                if working.cancelling():  # something in it waits for the former database
                    log.error("the worker does not end by itself; this process ends")
                    os._exit(1)  # it is started again
                report_restore()
                working.cancel()

        watching = repeat_every("database", 2 * RESTORE_SECONDS, end_when_restored)
        async with in_background(*version_tasks(machine, store.fields), verification, loading, watching):
            await asyncio.wait([working])
        if not working.cancelled():
            working.result()
