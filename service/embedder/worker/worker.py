"""The worker: claimed documents become stored vectors.

Stages run concurrently, with short queues between them; no transaction is open while the model runs:

    claim   lease jobs and read their documents                (`claimer`; leases committed at once)
    chunk   tokenize and chunk documents, pack chunks          (`pipeline`; a thread)
    encode  one forward pass after another                     (`encode_stage`; the model's threads)
    write   store complete documents by fenced COPY            (`pipeline`)

Live writes and backfills are two lanes with stages of their own. A backfill is claimed only when no live write is left
unclaimed, in small portions, and a live pass always comes first, so a new document waits for at most one short pass.

A failure of the database or the model is never counted against documents: the worker backs off and goes on. A failed
batch is bisected, and failures of documents that fail alone are counted if the model still encodes a plain sentence. A
document whose workers died is tried alone, with the failure counted in advance, so one that kills the process ends as a
dead letter. A lost lease harms nothing, since the write is fenced.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from service.core.errors import AzimuthError, Unavailable
from service.core.periodic import utc_now
from service.core.ports.collections import Collections
from service.core.ports.embedder import Encoder
from service.core.ports.queue import JobQueue
from service.core.ports.vectors import VectorStore
from service.core.ports.versions import Versions
from service.core.versions import EmbedderVersion
from service.embedder.worker.claimer import Claimer
from service.embedder.worker.failure_policy import FailurePolicy
from service.embedder.worker.in_flight import BACKFILL_LIMITS, LIVE_LIMITS, Leases
from service.embedder.worker.pipeline import Pipeline
from service.embedder.worker.priority_gate import PriorityGate
from service.embedder.worker.settings import WorkerSettings
from service.embedder.worker.version_gate import VersionGate

log = logging.getLogger(__name__)

_RELEASE_SECONDS = 5.0


class Worker:
    """One process' share of the queue."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        vectors: VectorStore,
        versions: Versions,
        collections: Collections,
        ensure: Callable[[EmbedderVersion], Awaitable[Encoder]],
        settings: WorkerSettings,
        housekeeping: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`ensure` verifies that a model gives the vectors of a version. `housekeeping` runs regularly."""
        self._queue, self._settings, self._housekeeping = queue, settings, housekeeping
        self._stopping = asyncio.Event()
        self._leases = Leases()
        self._failures = FailurePolicy(queue, collections, self._leases, settings, self._stopping)
        self._version_gate = VersionGate(ensure, retry_seconds=settings.backoff().initial)
        self._claimer = Claimer(queue, versions, self._version_gate, self._failures, settings, self._stopping)
        gate = PriorityGate()
        self._lanes = [
            Pipeline(limits, vectors, self._failures, self._leases, gate, settings.batch_tokens)
            for limits in (LIVE_LIMITS, BACKFILL_LIMITS)
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; then finish claimed work within the grace time and give back the rest.

        Call it once. ModelUnavailable if the model keeps failing: a new process may do better.
        """
        stages = [self._extend_leases(), *(stage for lane in self._lanes for stage in lane.stages())]
        if self._housekeeping is not None:
            stages.append(self._keep_house(self._housekeeping))
        try:
            async with asyncio.TaskGroup() as group:
                claiming = [group.create_task(self._claimer.supply(lane)) for lane in self._lanes]
                running = [*claiming, *(group.create_task(stage) for stage in stages)]
                await stop.wait()
                log.info("worker stops", extra={"in_hand": len(self._leases.jobs)})
                self._stopping.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.grace.total_seconds()):
                        await asyncio.wait(claiming)
                        await self._leases.empty.wait()
                for stage in running:
                    stage.cancel()
            if jobs := self._leases.jobs:
                with suppress(Unavailable, TimeoutError):
                    await asyncio.wait_for(self._queue.release(jobs, utc_now()), _RELEASE_SECONDS)
        except ExceptionGroup as errors:
            # A stage ends by a defect or a model that keeps failing. Leases run out: see `FailurePolicy.back_off`.
            raise errors.exceptions[0] from errors
        finally:
            await self._version_gate.close()
            for lane in self._lanes:
                lane.close()

    async def _extend_leases(self) -> None:
        """Extend the leases of all claimed documents well before they run out."""
        regular = interval = self._settings.lease.total_seconds() / 3
        while True:
            await asyncio.sleep(interval)
            interval = regular
            try:
                if jobs := self._leases.jobs:
                    await self._queue.extend(jobs, utc_now() + self._settings.lease)
            except Unavailable as error:
                interval = min(1.0, regular)
                log.warning("leases not extended", extra={"reason": error.detail})

    async def _keep_house(self, housekeeping: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._failures.sleep(self._settings.housekeeping_seconds)
            if self._stopping.is_set():
                return
            try:
                await housekeeping()
            except AzimuthError as error:
                log.warning("housekeeping postponed", extra={"reason": error.detail})
            except Exception:
                log.exception("housekeeping failed")
