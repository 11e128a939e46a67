"""Claim jobs: live writes whenever there are any, backfills only when no live write is left unclaimed."""

import asyncio
import os
import socket
import time
import uuid

from service.core.errors import Unavailable
from service.core.jobs import Lane
from service.core.periodic import utc_now
from service.core.ports.queue import JobQueue
from service.core.ports.versions import Versions
from service.core.versions import EmbedderVersion
from service.embedder.worker.backoff import Backoff
from service.embedder.worker.failure_policy import FailurePolicy, database_failed
from service.embedder.worker.in_flight import InFlightDocument
from service.embedder.worker.pipeline import Pipeline
from service.embedder.worker.rate_limit import RateLimit
from service.embedder.worker.settings import WorkerSettings
from service.embedder.worker.version_gate import VersionGate, key_of

_POLL_SECONDS, _IDLE_SECONDS = 0.05, 0.5
"""Between claims of an empty lane: at first the former, growing to the latter."""
_VERSIONS_SECONDS = 0.5


class Claimer:
    """Keeps the pipelines of both lanes supplied."""

    def __init__(
        self,
        queue: JobQueue,
        versions: Versions,
        version_gate: VersionGate,
        failures: FailurePolicy,
        settings: WorkerSettings,
        stop: asyncio.Event,
    ) -> None:
        self._queue, self._versions, self._version_gate, self._failures = queue, versions, version_gate, failures
        self._settings, self._stop = settings, stop
        self._backfill_rate = RateLimit(settings.backfill_per_second)
        # Unique: containers often have the same name and number when they are started again.
        self._worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._written: tuple[EmbedderVersion, ...] = ()
        self._written_at = float("-inf")
        self._live_backlog = False
        """Whether the last live claim took as much as it could: more live writes may wait."""
        self._claimed: dict[Lane, bool] = {"live": False, "backfill": False}
        """Whether the last claim of each lane found anything."""

    async def supply(self, pipeline: Pipeline) -> None:
        """Claim for one lane until the stop."""
        delay, backoff = _POLL_SECONDS, Backoff()
        while not self._stop.is_set():
            await pipeline.wait_for_capacity()
            documents: list[InFlightDocument] = []
            try:
                documents = await self._claim(pipeline)
                backoff.reset()
            except Unavailable as error:
                delay = database_failed(error.detail, backoff)
            pipeline.submit(documents)
            self._claimed[pipeline.limits.lane] = bool(documents)
            if documents:
                delay = _POLL_SECONDS
            else:
                await self._failures.sleep(delay)
                # A worker that is busy with a backfill anyway can afford to poll often for live writes.
                delay = _POLL_SECONDS if self._claimed["backfill"] else min(delay * 1.5, _IDLE_SECONDS)

    async def _claim(self, pipeline: Pipeline) -> list[InFlightDocument]:
        limits = pipeline.limits
        backfill = limits.lane == "backfill"
        wanted = max(limits.min_claim, pipeline.throughput.documents_in(limits.claim_seconds))
        limit = min(self._settings.claim, wanted)
        if backfill:
            limit = 0 if self._live_backlog else self._backfill_rate.available(limit)
        if self._stop.is_set() or not limit:
            return []
        if time.monotonic() - self._written_at > _VERSIONS_SECONDS:
            self._written = await self._versions.written()
            self._written_at = time.monotonic()
        # External vectors come with the documents, so no worker encodes for their versions.
        encodable = {key_of(version): version for version in self._written if not version.spec.external}
        encoders = self._version_gate.writable(list(encodable.values()))
        versions = {
            key: version for key, version in encodable.items() if key in encoders and not (backfill and version.paused)
        }
        if versions:
            claimed = await self._queue.claim(
                list(versions.values()), limit, self._worker, utc_now(), self._settings.lease, limits.lane
            )
        else:
            claimed = ()
        if backfill:
            self._backfill_rate.consume(len(claimed))
        else:
            self._live_backlog = len(claimed) == limit
        keys = [(one.job.collection_id, one.job.version) for one in claimed]
        return [InFlightDocument(one, versions[key], encoders[key]) for one, key in zip(claimed, keys, strict=True)]
