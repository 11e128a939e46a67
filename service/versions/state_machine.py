"""The state machine of an embedder version, from its registration to the end of its table.

                                   .--------- resume <--------.
                                   v                          |
    register --> backfilling --> indexing --> verifying --> (failed)
                     |               |            |
                     |               |            v            promote
                     |               |          ready <-----------------> active
                     |               |            |       (the one before)
                     '----------- retire ---------'
                                     v
                                  retired

register   takes identity, fingerprint and canary; from its commit on every write goes to the new version too
backfill   workers encode the older documents, behind all live writes; complete when counts and checksums agree
index      builds HNSW concurrently, once an exact scan is slower
verify     collects the evidence: canary, recall, geometry, judgments, shadow
promote    one transaction; the previously active version stays complete, so that rolling back is one as well
retire     drops its table

The state is kept in the database alone. Any process may call `advance_all` at any time: a lock lets one at a time
change a version, and what a killed process left undone is done again.
"""

import logging
import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, cast

from service.core import metrics
from service.core.collections import ChunkingSettings, Collection, EmbedderSpec, IndexSettings
from service.core.errors import (
    Conflict,
    FieldError,
    ModelUnavailable,
    Overtaken,
    PromotionRefused,
    SpaceRefused,
    VersionExists,
)
from service.core.ids import VersionNumber
from service.core.periodic import Clock, for_each_version
from service.core.ports.backfills import Backfills
from service.core.ports.queue import JobQueue
from service.core.ports.versions import Versions
from service.core.versions import COMPLETE_STATES, Action, AuditEntry, EmbedderVersion, PromotionEvidence, VersionState
from service.spaces.model_verification import ModelVerifier
from service.versions.promotion_checks import SETTLE_SECONDS, PromotionChecks

log = logging.getLogger(__name__)

SERVICE = "azimuth"
"""The actor of changes that no operator requested."""
WINDOW = 50_000
"""Jobs of one backfill that wait at once: minutes of work for any worker, in a small queue."""
BUILD_STATES = frozenset({VersionState.BACKFILLING, VersionState.INDEXING, VersionState.VERIFYING})


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionStateMachine:
    """Registers, advances, promotes and retires embedder versions."""

    versions: Versions
    backfills: Backfills
    queue: JobQueue
    verifier: ModelVerifier
    checks: PromotionChecks
    exact_below: int
    """Chunks up to which a version has no index, because an exact scan is as fast."""

    async def register(
        self,
        collection: Collection,
        *,
        embedder: EmbedderSpec | None,
        chunking: ChunkingSettings | None,
        index: IndexSettings,
        actor: str,
        now: datetime,
        note: str = "",
    ) -> EmbedderVersion:
        """Register a version and start its backfill. What is None is as in the active version.

        VersionExists where it would equal another one.
        """
        spec, identity, canary = await self.verifier.register(embedder or collection.settings.embedder)
        chunking = chunking or collection.settings.chunking
        details = {"embedder": asdict(spec), "chunking": asdict(chunking), "index": asdict(index)}
        entry = AuditEntry(action="registered", actor=actor, at=now, note=note, details=details)
        while True:
            known = await self.versions.of(collection.id)
            for other in known:
                same = (other.fingerprint, other.chunking, other.index) == (identity.fingerprint, chunking, index)
                if other.written and same:
                    detail = f"version {other.number} ({other.state}) has the same embedder, chunking and index"
                    raise VersionExists(detail, number=other.number)
            newest = max((other.number for other in known), default=None)
            with suppress(Overtaken):  # another version was registered meanwhile: compare with that, too
                return await self.versions.register(collection, spec, chunking, index, identity, canary, entry, newest)

    async def advance_all(self, now: Clock, states: Set[VersionState] = BUILD_STATES) -> None:
        """Advance every version that is in one of `states`, one after the other, until it leaves them or has to wait.

        Building an index takes hours, measuring minutes: call this concurrently for each state.
        """

        async def advance(version: EmbedderVersion) -> None:
            if await self._has_work(version, now()):
                await self._advance(version, states, now)

        versions = await self.versions.in_states(states)
        await for_each_version(versions, advance, failure_message="version could not be advanced; it is tried again")

    async def maintain_complete(self, now: Clock) -> None:
        """Give ready and active versions the index that they need by now, and evidence that is valid."""
        await self.advance_all(now, COMPLETE_STATES)

    @property
    def _can_measure(self) -> bool:
        return self.checks.measure is not None

    async def _has_work(self, version: EmbedderVersion, now: datetime) -> bool:
        """Could `_step` do anything? Every process asks this each second of every version, so it must cost little."""
        match version.state:
            case VersionState.BACKFILLING:
                return not version.paused
            case VersionState.INDEXING:
                return True
            case VersionState.VERIFYING:
                return self._can_measure
        return await self._needs_index(version, now) or await self._needs_evidence(version, now)

    async def _advance(self, version: EmbedderVersion, states: Set[VersionState], now: Clock) -> None:
        async with self.versions.transition_lock(version) as moved:
            while moved:
                version = await self.versions.get(version.collection_id, version.number)
                try:
                    moved = version.state in states and await self._step(version, now)
                except SpaceRefused as error:
                    # The vectors are kept: `resume` continues with them.
                    await self._move(version, VersionState.FAILED, now(), reason=error.detail)
                    moved = False

    async def _step(self, version: EmbedderVersion, now: Clock) -> bool:
        """One step of one version; True where it reached another state."""
        match version.state:
            case VersionState.BACKFILLING:
                return not version.paused and await self._backfill(version, now())
            case VersionState.INDEXING:
                if await self._needs_index(version, now()) and not await self._build_index(version):
                    return False  # a build that outlived its process goes on in the server; it is measured afterwards
                await self._move(version, VersionState.VERIFYING, now())
                return True
            case VersionState.VERIFYING if self._can_measure:
                await self.verifier.reverify(version)
                evidence = await self.checks.collect_evidence(version, now)
                await self._move(version, VersionState.READY, now(), evidence=evidence)
                return True
            case VersionState.READY | VersionState.ACTIVE:
                if await self._needs_index(version, now()):
                    await self._build_index(version)
                if await self._needs_evidence(version, now()):
                    evidence = await self.checks.collect_evidence(version, now)
                    await self.versions.move(version, version.state, None, evidence=evidence)
        return False

    async def _move(
        self,
        version: EmbedderVersion,
        to: VersionState,
        now: datetime,
        *,
        reason: str | None = None,
        evidence: PromotionEvidence | None = None,
    ) -> None:
        """Change the state. The action in the audit log is called like the new state."""
        details = {} if evidence is None else _check_details(evidence)
        action, note = cast(Action, to.value), reason or ""
        entry = AuditEntry(action=action, actor=SERVICE, at=now, version=version.number, note=note, details=details)
        await self.versions.move(version, to, entry, reason=reason, evidence=evidence)
        log.info("version changed its state", extra={**_log_fields(version), "state": to.value})

    async def _backfill(self, version: EmbedderVersion, now: datetime) -> bool:
        """Keep the queue filled. Once all is encoded, compare documents and vectors; start over where they differ."""
        if not version.spec.external:
            with suppress(ModelUnavailable):  # in this process; a worker may have the model
                await self.verifier.ensure(version)
        backfill = await self.backfills.advance(version, now, WINDOW)
        await self.backfills.record_progress(version, now)
        if not backfill.everything or backfill.waiting:
            return False
        completeness = await self.backfills.completeness(version)
        if not completeness.agrees:
            extra = _log_fields(version) | asdict(completeness)
            log.warning("documents and vectors differ; the backfill starts over", extra=extra)
            await self.backfills.restart(version)
            return False
        await self._move(version, VersionState.INDEXING, now)
        return True

    async def _needs_index(self, version: EmbedderVersion, now: datetime) -> bool:
        """Is an index missing (or half-built) on a table that is too large for exact scans?

        In the middle of a bulk load it waits: building once afterwards costs a fraction of inserting row by row.
        """
        status = await self.versions.status(version)
        if status.indexed or not status.indexable or status.rows <= self.exact_below:
            return False
        waiting = (await self.queue.status(version.collection_id, version.number, now)).pending
        return waiting <= status.rows / 10 or status.rows > 20 * self.exact_below

    async def _build_index(self, version: EmbedderVersion) -> bool:
        """False where another process is building it."""
        started = time.monotonic()
        built = await self.versions.build_index(version)
        if built:
            log.info("index built", extra={**_log_fields(version), "seconds": round(time.monotonic() - started, 1)})
        return built

    async def _needs_evidence(self, version: EmbedderVersion, now: datetime) -> bool:
        return self._can_measure and await self.checks.needs_evidence(version, now)

    async def promote(
        self, collection: Collection, number: VersionNumber, *, force: bool, actor: str, now: Clock, note: str = ""
    ) -> Collection:
        """Make the version active if its evidence allows it, or if `force` overrides that. No change where it is.

        PromotionRefused names all checks that failed.
        """
        if number == collection.active_version:
            return collection
        version = await self.versions.get(collection.id, number)
        if version.state is not VersionState.READY:
            raise Conflict(f"version {number} is {version.state}; only one that is ready can be promoted")
        async with self.versions.transition_lock(version, wait_seconds=SETTLE_SECONDS) as locked:
            if not locked:
                raise Conflict(f"version {number} is locked by another operation; retry")
            version = await self.versions.get(collection.id, number)  # the last holder of the lock may have changed it
            evidence = await self.checks.evidence_for_promotion(version, now)
            version = await self.versions.move(version, version.state, None, evidence=evidence)
            if evidence.failed and not force:
                metrics.PROMOTIONS.labels(collection.name, "refused").inc()
                reasons = "; ".join(f"{check.name}: {check.detail}" for check in evidence.failed)
                errors = [FieldError(check.name, check.detail) for check in evidence.failed]
                raise PromotionRefused(f"version {number} is not promoted: {reasons}", errors)
            details = {**_check_details(evidence), "forced": bool(evidence.failed)}
            entry = AuditEntry(action="promoted", actor=actor, at=now(), version=number, note=note, details=details)
            return await self._activate(collection, version, entry)

    async def roll_back(
        self, collection: Collection, *, leaving: VersionNumber | None = None, actor: str, now: datetime, note: str = ""
    ) -> Collection:
        """Make the previously active version active again. It stayed complete, so only its model is checked.

        Conflict where another version than `leaving` is active: a repeated request must not go forward again.
        """
        if leaving not in (None, collection.active_version):
            raise Conflict(f"version {collection.active_version} is active, not {leaving}")
        if collection.previous_version is None:
            raise Conflict("there is no version to go back to")
        version = await self.versions.get(collection.id, collection.previous_version)
        if version.state is not VersionState.READY:
            raise Conflict(f"version {version.number} is {version.state}: there is nothing to go back to")
        await self.verifier.ensure(version)
        entry = AuditEntry(action="rolled_back", actor=actor, at=now, version=version.number, note=note)
        return await self._activate(collection, version, entry)

    async def _activate(self, collection: Collection, version: EmbedderVersion, entry: AuditEntry) -> Collection:
        entry = replace(entry, before=collection.active_version)
        activated = await self.versions.promote(collection, version, entry)
        metrics.PROMOTIONS.labels(collection.name, entry.action).inc()
        return activated

    async def pause(
        self, collection: Collection, number: VersionNumber, *, actor: str, now: datetime
    ) -> EmbedderVersion:
        """Pause a backfill. Live writes still go to the version."""
        version = await self.versions.get(collection.id, number)
        if version.state is not VersionState.BACKFILLING:
            raise Conflict(f"version {number} is {version.state}; only a backfill can be paused")
        entry = AuditEntry(action="paused", actor=actor, at=now, version=number)
        return await self.versions.pause(version, True, entry)

    async def resume(
        self, collection: Collection, number: VersionNumber, *, actor: str, now: datetime
    ) -> EmbedderVersion:
        """Continue a paused backfill or a failed version with the vectors that it has."""
        version = await self.versions.get(collection.id, number)
        entry = AuditEntry(action="resumed", actor=actor, at=now, version=number)
        if version.state is VersionState.FAILED:
            return await self.versions.move(version, VersionState.BACKFILLING, entry)
        if version.state is not VersionState.BACKFILLING:
            raise Conflict(f"version {number} is {version.state}; there is nothing to resume")
        return await self.versions.pause(version, False, entry)

    async def retire(
        self, collection: Collection, number: VersionNumber, *, actor: str, now: datetime, note: str = ""
    ) -> EmbedderVersion:
        """End a version in any state but active, and drop its table. This cannot be undone."""
        version = await self.versions.get(collection.id, number)
        if version.state is VersionState.RETIRED:
            return version
        if number == collection.active_version:
            raise Conflict(f"version {number} is active: promote another one first")
        entry = AuditEntry(action="retired", actor=actor, at=now, version=number, note=note)
        return await self.versions.retire(version, entry)


def _check_details(evidence: PromotionEvidence) -> dict[str, Any]:
    return {"checks": [asdict(check) for check in evidence.checks]}


def _log_fields(version: EmbedderVersion) -> dict[str, Any]:
    return {"collection_id": version.collection_id, "version": version.number}
