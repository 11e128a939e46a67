"""The version's story, from registration to the end of its table. No space is ever mixed with another on the way.

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

register   identity, fingerprint and canary are taken; from its commit on every write goes to the new version too
backfill   workers encode what was there before, behind all live writes; complete when counts and checksums agree
index      HNSW over what was loaded, built concurrently, where an exact scan is no longer as fast
verify     the evidence: canary, recall, geometry, judgments, shadow
promote    one transaction; the version that was active stays complete, so that rolling back is one as well
retire     its table is dropped

State is kept in the database alone. `drive` moves every version on as far as it goes: any process may call it, at any
time, as often as it likes; one at a time gets to do something, and what a killed one left is done again.
"""

import dataclasses
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

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
from service.core.ports.collections import Collections
from service.core.ports.queue import JobQueue
from service.core.ports.versions import Versions
from service.core.versions import (
    COMPLETE_STATES,
    Action,
    AuditEntry,
    EmbedderVersion,
    PromotionCheck,
    PromotionEvidence,
    VersionState,
)
from service.spaces.model_verification import ModelVerifier
from service.versions.promotion_checks import SETTLE_SECONDS, PromotionChecks, counted

log = logging.getLogger(__name__)

SERVICE = "azimuth"
"""The actor of what nobody asked for by hand."""

WINDOW = 50_000
"""Jobs of one backfill that wait at once: minutes of work for any worker, and a queue that stays small."""
BUILD_STATES = frozenset({VersionState.BACKFILLING, VersionState.INDEXING, VersionState.VERIFYING})


class VersionStateMachine:
    """`exact_below`: chunks up to which a version has no index, because an exact scan is as fast."""

    def __init__(
        self,
        *,
        collections: Collections,
        versions: Versions,
        backfills: Backfills,
        queue: JobQueue,
        verifier: ModelVerifier,
        verification: PromotionChecks,
        exact_below: int,
    ) -> None:
        self._collections = collections
        self._versions = versions
        self._backfills = backfills
        self._queue = queue
        self._verifier = verifier
        self._exact_below = exact_below
        self._verification = verification

    # ------------------------------------------------------------ register

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
        """A new version beside the active one; what is None is as the active one has it. Its backfill starts at once.

        VersionExists where it would be the same as a version that is written already.
        """
        spec, identity, canary = await self._verifier.register(embedder or collection.settings.embedder)
        chunking = chunking or collection.settings.chunking
        details = _described(spec, chunking, index)
        entry = AuditEntry(action="registered", actor=actor, at=now, note=note, details=details)
        while True:
            known = await self._versions.of(collection.id)
            for other in known:
                same = (other.fingerprint, other.chunking, other.index) == (identity.fingerprint, chunking, index)
                if other.written and same:
                    detail = f"version {other.number} ({other.state}) has the same embedder, chunking and index"
                    raise VersionExists(detail, number=other.number)
            newest = max((other.number for other in known), default=None)
            with suppress(Overtaken):  # what was registered meanwhile may be the same
                return await self._versions.register(collection, spec, chunking, index, identity, canary, entry, newest)

    # ------------------------------------------------------------ drive

    async def advance_all(self, now: Clock, states: frozenset[VersionState] = BUILD_STATES) -> None:
        """Move every version that is in one of these states on, one after the other, until it leaves them or waits.

        Building an index takes hours and measuring takes minutes; who calls this for each state apart fills other
        versions meanwhile.
        """

        async def move(version: EmbedderVersion) -> None:
            if await self._wanting(version, now()):
                await self._advance(version, states, now)

        await for_each_version(await self._versions.in_states(states), move, failure_message="version waits")

    async def maintain_complete(self, now: Clock) -> None:
        """What versions need that are or may be searched: an index beyond the exact scan, fresh evidence."""
        await self.advance_all(now, COMPLETE_STATES)

    async def _wanting(self, version: EmbedderVersion, now: datetime) -> bool:
        """Is there anything to do for it here? Asked often, of every version, so it must cost little."""
        match version.state:
            case VersionState.BACKFILLING:
                return not version.paused
            case VersionState.INDEXING:
                return True
            case VersionState.VERIFYING:
                return self._verification.possible
        if await self._outgrown(version, now):
            return True
        return self._verification.possible and await self._verification.outdated(version, now)

    async def _advance(self, version: EmbedderVersion, states: frozenset[VersionState], now: Clock) -> None:
        async with self._versions.transition_lock(version) as ours:
            moved = ours
            while moved:
                version = await self._versions.get(version.collection_id, version.number)
                try:
                    moved = version.state in states and await self._step(version, now)
                except SpaceRefused as error:
                    # Nothing is lost: what was encoded stays, and `resume` goes on from there.
                    await self._move(version, VersionState.FAILED, now(), reason=error.detail)
                    moved = False

    async def _step(self, version: EmbedderVersion, now: Clock) -> bool:
        """One step of one version; True where it reached another state."""
        match version.state:
            case VersionState.BACKFILLING:
                return not version.paused and await self._backfill(version, now())
            case VersionState.INDEXING:
                if await self._outgrown(version, now()) and not await self._build(version):
                    return False  # what a killed process began goes on in the server; it is to be measured first
                await self._move(version, VersionState.VERIFYING, now())
                return True
            case VersionState.VERIFYING if self._verification.possible:
                await self._verifier.reverify(version)
                evidence = await self._verification.gather(version, now)
                await self._move(version, VersionState.READY, now(), evidence=evidence)
                return True
            case VersionState.READY | VersionState.ACTIVE:
                if await self._outgrown(version, now()):
                    await self._build(version)
                if self._verification.possible and await self._verification.outdated(version, now()):
                    evidence = await self._verification.gather(version, now)
                    await self._versions.move(version, version.state, None, evidence=evidence)
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
        actions: Mapping[VersionState, Action] = {
            VersionState.INDEXING: "indexing",
            VersionState.VERIFYING: "verifying",
            VersionState.READY: "ready",
            VersionState.FAILED: "failed",
        }
        details: dict[str, Any] = {} if evidence is None else _told(evidence.checks)
        entry = AuditEntry(
            action=actions[to], actor=SERVICE, at=now, version=version.number, note=reason or "", details=details
        )
        await self._versions.move(version, to, entry, reason=reason, evidence=evidence)
        log.info(
            "version moved",
            extra={"collection_id": version.collection_id, "version": version.number, "state": to.value},
        )

    # ------------------------------------------------------------ backfill

    async def _backfill(self, version: EmbedderVersion, now: datetime) -> bool:
        """Keep the queue filled; when all is done, compare documents and vectors, and start over where they differ."""
        if not version.spec.external:
            with suppress(ModelUnavailable):  # this process' trouble; a worker may have the model
                await self._verifier.ensure(version)
        backfill = await self._backfills.advance(version, now, WINDOW)
        await self._backfills.record_progress(version, now)
        if not backfill.everything or backfill.waiting:
            return False
        completeness = await self._backfills.completeness(version)
        if not completeness.agrees:
            log.warning("backfill starts over", extra={"version": version.number, **counted(completeness)})
            await self._backfills.restart(version)
            return False
        await self._move(version, VersionState.INDEXING, now)
        return True

    # ------------------------------------------------------------ index

    async def _outgrown(self, version: EmbedderVersion, now: datetime) -> bool:
        """Should there be an index that is not there (or was left half-built)?

        Not in the middle of a bulk load: building once afterwards is several times cheaper than inserting row by row.
        """
        status = await self._versions.status(version)
        if status.indexed or not status.indexable or status.rows <= self._exact_below:
            return False
        waiting = (await self._queue.status(version.collection_id, version.number, now)).pending
        return waiting <= status.rows / 10 or status.rows > 20 * self._exact_below

    async def _build(self, version: EmbedderVersion) -> bool:
        """False where somebody else is at it."""
        started = time.monotonic()
        built = await self._versions.build_index(version)
        if built:
            log.info(
                "index built",
                extra={
                    "collection_id": version.collection_id,
                    "version": version.number,
                    "seconds": round(time.monotonic() - started, 1),
                },
            )
        return built

    # ------------------------------------------------------------ promote and roll back

    async def promote(
        self,
        collection: Collection,
        number: VersionNumber,
        *,
        force: bool,
        actor: str,
        now: Clock,
        note: str = "",
    ) -> Collection:
        """Let this version answer from now on, if the evidence allows it or `force` overrides it.

        PromotionRefused names all checks that failed. Nothing happens where it is active already.
        """
        if number == collection.active_version:
            return collection
        version = await self._versions.get(collection.id, number)
        if version.state is not VersionState.READY:
            raise Conflict(f"version {number} is {version.state}; only one that is ready can be promoted")
        async with self._versions.transition_lock(version, wait_seconds=SETTLE_SECONDS) as ours:
            if not ours:
                raise Conflict(f"somebody else is at version {number} just now; try again")
            version = await self._versions.get(collection.id, number)  # whoever was at it may have brought new evidence
            evidence = await self._verification.current(version, now)
            version = await self._versions.move(version, version.state, None, evidence=evidence)
            if evidence.failed and not force:
                metrics.PROMOTIONS.labels(collection.name, "refused").inc()
                raise PromotionRefused(
                    f"version {number} is not promoted: "
                    + "; ".join(f"{check.name}: {check.detail}" for check in evidence.failed),
                    [FieldError(check.name, check.detail) for check in evidence.failed],
                )
            details = {**_told(evidence.checks), "forced": bool(evidence.failed)}
            return await self._switch(collection, version, "promoted", actor, now(), note, details)

    async def roll_back(
        self,
        collection: Collection,
        *,
        leaving: VersionNumber | None = None,
        actor: str,
        now: datetime,
        note: str = "",
    ) -> Collection:
        """Let the version answer that answered before: it stayed complete, so nothing is asked but its model.

        Conflict where another version than `leaving` is active: a request that is repeated must not go forward again.
        """
        if leaving not in (None, collection.active_version):
            raise Conflict(f"version {collection.active_version} is active, not {leaving}")
        if collection.previous_version is None:
            raise Conflict("there is no version to go back to")
        version = await self._versions.get(collection.id, collection.previous_version)
        if version.state is not VersionState.READY:
            raise Conflict(f"version {version.number} is {version.state}: there is nothing to go back to")
        await self._verifier.ensure(version)
        return await self._switch(collection, version, "rolled_back", actor, now, note, {})

    async def _switch(
        self,
        collection: Collection,
        version: EmbedderVersion,
        action: Action,
        actor: str,
        now: datetime,
        note: str,
        details: Mapping[str, Any],
    ) -> Collection:
        entry = AuditEntry(
            action=action,
            actor=actor,
            at=now,
            version=version.number,
            before=collection.active_version,
            note=note,
            details=details,
        )
        switched = await self._versions.promote(collection, version, entry)
        metrics.PROMOTIONS.labels(collection.name, action).inc()
        return switched

    # ------------------------------------------------------------ pause, resume, retire

    async def pause(
        self, collection: Collection, number: VersionNumber, *, actor: str, now: datetime
    ) -> EmbedderVersion:
        """Let a backfill rest. Live writes still go to the version."""
        version = await self._versions.get(collection.id, number)
        if version.state is not VersionState.BACKFILLING:
            raise Conflict(f"version {number} is {version.state}; only a backfill can be paused")
        entry = AuditEntry(action="paused", actor=actor, at=now, version=number)
        return await self._versions.pause(version, True, entry)

    async def resume(
        self, collection: Collection, number: VersionNumber, *, actor: str, now: datetime
    ) -> EmbedderVersion:
        """Let a paused backfill go on, or take a failed version up again: what it has already is not made anew."""
        version = await self._versions.get(collection.id, number)
        entry = AuditEntry(action="resumed", actor=actor, at=now, version=number)
        if version.state is VersionState.FAILED:
            return await self._versions.move(version, VersionState.BACKFILLING, entry)
        if version.state is not VersionState.BACKFILLING:
            raise Conflict(f"version {number} is {version.state}; there is nothing to resume")
        return await self._versions.pause(version, False, entry)

    async def retire(
        self, collection: Collection, number: VersionNumber, *, actor: str, now: datetime, note: str = ""
    ) -> EmbedderVersion:
        """End a version, also one that is under way. Its table is dropped: there is no way back."""
        version = await self._versions.get(collection.id, number)
        if version.state is VersionState.RETIRED:
            return version
        if number == collection.active_version:
            raise Conflict(f"version {number} is active: promote another one first")
        entry = AuditEntry(action="retired", actor=actor, at=now, version=number, note=note)
        return await self._versions.retire(version, entry)


def _told(checks: tuple[PromotionCheck, ...]) -> dict[str, Any]:
    return {"checks": [dataclasses.asdict(check) for check in checks]}


def _described(spec: EmbedderSpec, chunking: ChunkingSettings, index: IndexSettings) -> dict[str, Any]:
    return {
        "embedder": dataclasses.asdict(spec),
        "chunking": dataclasses.asdict(chunking),
        "index": dataclasses.asdict(index),
    }
