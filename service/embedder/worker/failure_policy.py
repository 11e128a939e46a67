"""How work ends other than by being stored: as a failure of the document, or given back without one."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from service.core import metrics
from service.core.concurrency import set_within
from service.core.errors import AzimuthError, ModelUnavailable, Unavailable
from service.core.ids import CollectionId
from service.core.periodic import utc_now
from service.core.ports.collections import Collections
from service.core.ports.queue import JobQueue
from service.embedder.worker.backoff import Backoff
from service.embedder.worker.in_flight import InFlightDocument, Leases
from service.embedder.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_MODEL_FAILURES = 8
"""Consecutive failures of the model after which the process ends: nothing else repairs a broken GPU context."""

MAX_DATABASE_SECONDS = 3.0
"""Longest pause before the database is called again: while it is away such a call costs nothing."""


class FailurePolicy:
    """The worker's reactions to failures. One for each run."""

    def __init__(
        self, queue: JobQueue, collections: Collections, leases: Leases, settings: WorkerSettings, stop: asyncio.Event
    ) -> None:
        self._queue, self._collections, self._leases = queue, collections, leases
        self._settings, self._stop = settings, stop
        self._model_backoff, self._refusals = settings.backoff(), settings.backoff()
        self._names: dict[CollectionId, str] = {}

    async def collection_name(self, collection_id: CollectionId) -> str:
        """The collection's name for metric labels; its number if the name is not known."""
        if collection_id not in self._names:
            with suppress(Unavailable):
                self._names.update({row.id: row.name for row in await self._collections.all()})
        return self._names.get(collection_id, str(collection_id))

    async def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until the stop."""
        await set_within(self._stop, seconds)

    async def retry_database(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call the database until it answers. Cancelled at the latest when the grace time is over."""
        backoff = self._settings.backoff()
        while True:
            try:
                return await call()
            except Unavailable as error:
                await asyncio.sleep(database_failed(error.detail, backoff))

    async def record_failures(self, failed: Sequence[tuple[InFlightDocument, Exception]]) -> None:
        """Count a failed attempt for documents that failed alone, and settle them."""
        for document, error in failed:
            if document.is_settled:
                continue
            reason = error.detail if isinstance(error, AzimuthError) else f"{type(error).__name__}: {error}"
            self._leases.settle([document])
            wait = timedelta(seconds=min(300.0, self._settings.backoff().initial * 2.0 ** (document.job.attempts + 1)))
            if document.failure_recorded:
                await self._release([document], wait)
            else:
                await self._record_failure(document, reason, wait)

    async def record_failure_in_advance(self, document: InFlightDocument) -> bool:
        """Count an attempt before it is made, for a document that workers died with. False if it was the last one."""
        reason = "A worker died each time this document was being encoded."
        dead_lettered = await self._record_failure(document, reason, self._settings.lease)
        document.failure_recorded = True
        if dead_lettered:
            self._leases.settle([document])
        return not dead_lettered

    async def _record_failure(self, document: InFlightDocument, reason: str, wait: timedelta) -> bool:
        """Whether this was the last attempt, so that the document is a dead letter now."""
        job = document.job
        dead_lettered = await self.retry_database(
            lambda: self._queue.record_failure([job], reason, self._settings.max_attempts, utc_now(), utc_now() + wait)
        )
        place = {"collection_id": job.collection_id, "document_id": job.document_id, "version": job.version}
        message = "document dead-lettered" if dead_lettered else "document failure recorded"
        log.warning(message, extra={**place, "reason": reason})
        if dead_lettered:
            metrics.DOCUMENTS_SET_ASIDE.labels(await self.collection_name(job.collection_id)).inc()
        return bool(dead_lettered)

    async def _release(self, documents: Sequence[InFlightDocument], wait: timedelta) -> None:
        jobs = [document.job for document in documents]
        await self.retry_database(lambda: self._queue.release(jobs, utc_now() + wait))

    def model_succeeded(self) -> None:
        """The model gave a usable vector, so its failures are not consecutive."""
        self._model_backoff.reset()

    async def back_off(self, cause: str, documents: Sequence[InFlightDocument], error: BaseException) -> None:
        """The model or its device failed: give the documents back without a failure, and wait.

        ModelUnavailable after `MAX_MODEL_FAILURES` in a row. The documents are not given back then, so that their
        leases count as lost: if one document breaks the device each time, it will be tried alone.
        """
        delay = self._model_backoff.next_delay()
        metrics.WORKER_BACKOFF.labels(cause).inc()
        log.error("model failed", extra={"cause": cause, "reason": repr(error), "pause_seconds": round(delay, 1)})
        if self._model_backoff.failures >= MAX_MODEL_FAILURES:
            raise ModelUnavailable(f"The model failed {MAX_MODEL_FAILURES} times in a row: {error}") from error
        await self._give_back(documents, delay)

    def database_accepted(self) -> None:
        """The database stored something, so its refusals are not consecutive."""
        self._refusals.reset()

    async def database_refused(self, documents: Sequence[InFlightDocument], error: Exception) -> None:
        """It answers, but stores none of these documents: neither they nor the model are to blame."""
        await self._give_back(documents, database_failed(f"it refuses all documents: {error!r}", self._refusals))

    async def _give_back(self, documents: Sequence[InFlightDocument], delay: float) -> None:
        documents = [document for document in documents if not document.is_settled]
        self._leases.settle(documents)
        await self._release(documents, timedelta(seconds=delay))
        await self.sleep(delay)


def database_failed(reason: str, backoff: Backoff) -> float:
    """Count and log a failed call of the database; the seconds to wait before the next one."""
    delay = min(backoff.next_delay(), MAX_DATABASE_SECONDS)
    metrics.WORKER_BACKOFF.labels("database").inc()
    log.warning("database unavailable", extra={"reason": reason, "pause_seconds": round(delay, 1)})
    return delay
