"""How work ends other than by being stored: charged to the document, or given back because it was not its fault."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from service.core import metrics
from service.core.errors import AzimuthError, ModelUnavailable, Unavailable
from service.core.ids import CollectionId
from service.core.ports.collections import Collections
from service.core.ports.queue import JobQueue
from service.embedder.worker.backoff import Backoff
from service.embedder.worker.in_flight import InFlightDocument, Leases

log = logging.getLogger(__name__)

T = TypeVar("T")

HOPELESS = 8
"""So many failures of the model in a row, and the process ends: a broken GPU context heals by nothing else."""


def now() -> datetime:
    return datetime.now(UTC)


class FailurePolicy:
    """Answers of the worker to trouble. One for each run."""

    def __init__(
        self,
        queue: JobQueue,
        collections: Collections,
        leases: Leases,
        *,
        max_attempts: int,
        lease: timedelta,
        backoff: Callable[[], Backoff],
        stop: asyncio.Event,
    ) -> None:
        self._queue, self._collections, self._leases = queue, collections, leases
        self._max_attempts, self._lease = max_attempts, lease
        self._new_backoff = backoff
        self._model = backoff()
        self._stop = stop
        self._names: dict[CollectionId, str] = {}

    async def name(self, collection_id: CollectionId) -> str:
        """The collection's name, for labels; its number where it is not known."""
        if collection_id not in self._names:
            with suppress(Unavailable):
                self._names.update({row.id: row.name for row in await self._collections.all()})
        return self._names.get(collection_id, str(collection_id))

    async def pause(self, seconds: float) -> None:
        """Sleep, but not into the stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call the database until it answers. Ends by being cancelled, at the latest when the grace time is over."""
        backoff = self._new_backoff()
        while True:
            try:
                return await call()
            except Unavailable as error:
                seconds = backoff.failed()
                metrics.WORKER_BACKOFF.labels("database").inc()
                log.warning("database trouble", extra={"reason": error.detail, "pause_seconds": round(seconds, 1)})
                await asyncio.sleep(seconds)

    async def record_failure(self, failed: Sequence[tuple[InFlightDocument, Exception]]) -> None:
        """Count a failed attempt against documents that failed alone, and let go of them."""
        for work, error in failed:
            if work.ended:
                continue
            reason = error.detail if isinstance(error, AzimuthError) else f"{type(error).__name__}: {error}"
            self._leases.end([work])
            wait = timedelta(seconds=min(300.0, self._new_backoff().first * 2.0 ** (work.job.attempts + 1)))
            if work.charged:
                await self.persist(lambda work=work, wait=wait: self._queue.release([work.job], now() + wait))  # type: ignore[misc]
                continue
            await self._count(work, reason, wait)

    async def charge_before(self, work: InFlightDocument) -> bool:
        """Count an attempt before it is made, for a document that workers died with. False: it was the last one."""
        reason = "A worker died each time this document was being encoded."
        dead_lettered = await self._count(work, reason, self._lease)
        work.charged = True
        if dead_lettered:
            self._leases.end([work])
        return not dead_lettered

    async def _count(self, work: InFlightDocument, reason: str, wait: timedelta) -> bool:
        dead_lettered = await self.persist(
            lambda: self._queue.record_failure([work.job], reason, self._max_attempts, now(), now() + wait)
        )
        log.warning(
            "document set aside" if dead_lettered else "document charged",
            extra={
                "collection_id": work.job.collection_id,
                "document_id": work.job.document_id,
                "version": work.job.version,
                "reason": reason,
            },
        )
        if dead_lettered:
            metrics.DOCUMENTS_SET_ASIDE.labels(await self.name(work.job.collection_id)).inc()
        return bool(dead_lettered)

    def worked(self) -> None:
        """The model gave something usable."""
        self._model.worked()

    async def trouble(self, cause: str, works: Sequence[InFlightDocument], error: BaseException) -> None:
        """The model or its device fails: give the work back uncharged and pause.

        ModelUnavailable when it goes on and on; the work is not given back then, so that its leases count as lost:
        should one document be what breaks the device each time, it will be tried alone.
        """
        seconds = self._model.failed()
        metrics.WORKER_BACKOFF.labels(cause).inc()
        log.error("model trouble", extra={"cause": cause, "reason": repr(error), "pause_seconds": round(seconds, 1)})
        if self._model.failures >= HOPELESS:
            raise ModelUnavailable(f"The model failed {HOPELESS} times in a row: {error}") from error
        works = [work for work in works if not work.ended]
        self._leases.end(works)
        await self.persist(
            lambda: self._queue.release([work.job for work in works], now() + timedelta(seconds=seconds))
        )
        await self.pause(seconds)
