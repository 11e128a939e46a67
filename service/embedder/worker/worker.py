"""The worker: claimed documents become stored vectors.

Stages run at once, with short queues between them, so that the model never waits for the database or the tokenizer:

    read    claim what the queue has, documents included       (`reader`; leases committed at once)
    cut     tokenize and cut into chunks, pack them by tokens  (`pipeline`; a thread)
    encode  one forward pass after the other                   (`encoding`; the model's threads)
    write   store finished documents by fenced COPY            (`pipeline`)

and beside them one that extends leases and one that keeps house. No transaction is open while anything else happens.

There are two lanes, live writes and backfills, and each has all of these stages to itself. A backfill is claimed only
when no live write is left unclaimed, in small portions, as fast as `backfill_per_second` allows; its passes are short,
and a live one always comes next (`turns`). So a new document waits for at most one short pass.

Faults. What the database or the model does wrong is never charged to documents: the worker pauses, longer each time,
and goes on. When a batch fails it is halved until it is known which documents fail alone; these are charged, if the
model still encodes a text that it always could. A document that was held by workers that died is tried alone, charged
before, so that one that kills the process ends set aside. A lost lease harms nothing: the write is fenced.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from service.core.errors import AzimuthError, Unavailable
from service.core.ports.collections import Collections
from service.core.ports.embedder import Encoder
from service.core.ports.queue import JobQueue
from service.core.ports.vectors import VectorStore
from service.core.ports.versions import Versions
from service.core.versions import EmbedderVersion
from service.embedder.worker.backoff import Backoff
from service.embedder.worker.claimer import Claimer
from service.embedder.worker.failure_policy import FailurePolicy, now
from service.embedder.worker.in_flight import BACKFILL, LIVE, Leases
from service.embedder.worker.pipeline import Pipeline
from service.embedder.worker.priority_gate import PriorityGate
from service.embedder.worker.rate_limit import RateLimit
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
        claim: int,
        lease: timedelta,
        max_attempts: int,
        batch_tokens: int = 0,
        tend: Callable[[], Awaitable[None]] | None = None,
        tend_seconds: float = 30.0,
        grace: timedelta = timedelta(seconds=20),
        backoff: Callable[[], Backoff] = Backoff,
        backfill_per_second: float = 0.0,
    ) -> None:
        """`admit` proves that a model gives the vectors of a version. `claim`: most documents leased at once.

        `batch_tokens`: padded tokens of one forward pass, 0: what suits the device. `tend` keeps house, every
        `tend_seconds`. `grace`: how long work in hand may take to finish after the stop. `backfill_per_second`: most
        documents of backfills, 0: no limit.
        """
        self._queue, self._lease, self._grace = queue, lease, grace
        self._keep_house, self._tend_seconds = tend, tend_seconds
        self._stopping = asyncio.Event()
        self._leases = Leases()
        self._outcomes = FailurePolicy(
            queue,
            collections,
            self._leases,
            max_attempts=max_attempts,
            lease=lease,
            backoff=backoff,
            stop=self._stopping,
        )
        self._version_gate = VersionGate(ensure, retry=backoff().first)
        self._reader = Claimer(
            queue=queue,
            versions=versions,
            version_gate=self._version_gate,
            outcomes=self._outcomes,
            allowance=RateLimit(backfill_per_second),
            worker=f"{socket.gethostname()}:{os.getpid()}",
            claim=claim,
            lease=lease,
            stop=self._stopping,
        )
        turns = PriorityGate()
        self._lanes = [
            Pipeline(
                portions,
                vectors=vectors,
                outcomes=self._outcomes,
                leases=self._leases,
                turns=turns,
                batch_tokens=batch_tokens,
            )
            for portions in (LIVE, BACKFILL)
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; then finish what is in hand, within the grace time, and give back the rest uncharged.

        Once for each worker. ModelUnavailable where the model fails without end: a fresh process may do better.
        """
        stages = [self._beat(), *(stage for lane in self._lanes for stage in lane.stages())]
        if self._keep_house is not None:
            stages.append(self._tend(self._keep_house))
        try:
            async with asyncio.TaskGroup() as group:
                reading = [group.create_task(self._reader.read(lane)) for lane in self._lanes]
                running = [*reading, *(group.create_task(stage) for stage in stages)]
                await stop.wait()
                log.info("worker stops", extra={"in_hand": len(self._leases.jobs)})
                self._stopping.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._finished(reading), self._grace.total_seconds())
                for stage in running:
                    stage.cancel()
            await self._give_back()
        except ExceptionGroup as errors:
            # A stage that ends is a defect, or a model past hope. Leases are left to run out (`FailurePolicy.trouble`).
            raise errors.exceptions[0] from errors
        finally:
            await self._version_gate.close()
            for lane in self._lanes:
                lane.close()

    async def _finished(self, reading: Sequence[asyncio.Task[None]]) -> None:
        await asyncio.wait(reading)
        await self._leases.empty.wait()

    async def _give_back(self) -> None:
        if jobs := self._leases.jobs:
            with suppress(Unavailable, TimeoutError):
                await asyncio.wait_for(self._queue.release(jobs, now()), _RELEASE_SECONDS)

    # ------------------------------------------------------------ beside

    async def _beat(self) -> None:
        """Extend the leases of everything in hand, in good time."""
        beat = self._lease.total_seconds() / 3
        while True:
            await asyncio.sleep(beat)
            try:
                if jobs := self._leases.jobs:
                    await self._queue.extend(jobs, now() + self._lease)
                beat = self._lease.total_seconds() / 3
            except Unavailable as error:
                beat = min(1.0, beat)
                log.warning("leases not extended", extra={"reason": error.detail})

    async def _tend(self, keep_house: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._outcomes.pause(self._tend_seconds)
            if self._stopping.is_set():
                return
            try:
                await keep_house()
            except AzimuthError as error:
                log.warning("housekeeping put off", extra={"reason": error.detail})
            except Exception:
                log.exception("housekeeping failed")
