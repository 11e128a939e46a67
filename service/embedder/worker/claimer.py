"""Who claims what: live writes whenever there are any, backfills when there are none that nobody has claimed yet."""

import asyncio
import logging
import time
from datetime import timedelta

from service.core import metrics
from service.core.errors import Unavailable
from service.core.jobs import ClaimedJob, Lane
from service.core.ports.queue import JobQueue
from service.core.ports.versions import Versions
from service.core.versions import EmbedderVersion
from service.embedder.worker.backoff import Backoff
from service.embedder.worker.failure_policy import FailurePolicy, now
from service.embedder.worker.in_flight import InFlightDocument
from service.embedder.worker.pipeline import Pipeline
from service.embedder.worker.rate_limit import RateLimit
from service.embedder.worker.version_gate import VersionGate, key_of

log = logging.getLogger(__name__)

_POLL_SECONDS, _IDLE_SECONDS = 0.05, 0.5
"""Between looks at an empty lane: soon after work, then less and less often."""
_VERSIONS_SECONDS = 0.5


class Claimer:
    """Keeps the pipelines of both lanes supplied."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        versions: Versions,
        version_gate: VersionGate,
        outcomes: FailurePolicy,
        allowance: RateLimit,
        worker: str,
        claim: int,
        lease: timedelta,
        stop: asyncio.Event,
    ) -> None:
        self._queue, self._versions, self._version_gate, self._outcomes = queue, versions, version_gate, outcomes
        self._allowance = allowance
        self._worker, self._claim_most, self._lease = worker, claim, lease
        self._stop = stop
        self._written: tuple[EmbedderVersion, ...] = ()
        self._written_at = float("-inf")
        self._live_behind = False
        """The last look at the live lane found as much as it could take: there may be more."""
        self._found: dict[Lane, bool] = {"live": False, "backfill": False}
        """What the last look found, lane by lane."""

    async def read(self, pipeline: Pipeline) -> None:
        """Claim for one lane until the stop."""
        idle, trouble = _POLL_SECONDS, Backoff()
        while not self._stop.is_set():
            await pipeline.wanting()
            works: list[InFlightDocument] = []
            try:
                works = await self._claim(pipeline)
                trouble.worked()
            except Unavailable as error:
                idle = trouble.failed()
                metrics.WORKER_BACKOFF.labels("database").inc()
                log.warning("database trouble", extra={"reason": error.detail, "pause_seconds": round(idle, 1)})
            pipeline.begin(works)
            self._found[pipeline.portions.lane] = bool(works)
            if works:
                idle = _POLL_SECONDS
            else:
                await self._outcomes.pause(idle)
                # What is busy with a backfill anyway can afford to look often for what must not wait.
                idle = _POLL_SECONDS if self._found["backfill"] else min(idle * 1.5, _IDLE_SECONDS)

    async def _claim(self, pipeline: Pipeline) -> list[InFlightDocument]:
        portions = pipeline.portions
        limit = min(self._claim_most, max(portions.claim_least, pipeline.pace.documents(portions.claim_seconds)))
        if portions.lane == "backfill":
            limit = 0 if self._live_behind else self._allowance.left(limit)
        if self._stop.is_set() or not limit:
            return []
        if time.monotonic() - self._written_at > _VERSIONS_SECONDS:
            self._written = await self._versions.written()
            self._written_at = time.monotonic()
        # The vectors of external versions come with the documents; until then their jobs wait for nobody here.
        ours = [version for version in self._written if not version.spec.external]
        encoders = self._version_gate.ready(ours)
        versions = {
            key_of(version): version
            for version in ours
            if key_of(version) in encoders and not (portions.lane == "backfill" and version.paused)
        }
        claimed: tuple[ClaimedJob, ...] = ()
        if versions:
            claimed = await self._queue.claim(
                list(versions.values()), limit, self._worker, now(), self._lease, portions.lane
            )
        if portions.lane == "backfill":
            self._allowance.take(len(claimed))
        else:
            self._live_behind = len(claimed) == limit
        return [
            InFlightDocument(one, versions[key], encoders[key])
            for one in claimed
            for key in [(one.job.collection_id, one.job.version)]
        ]
