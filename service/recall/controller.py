"""The recall controller: searches along an index find at least the `recall_target` of their collection.

calibrate  when an index was built, its rows have changed much, or the target has: a curve is measured
           (`calibration_curve.py`) and `ef_search` is set by it
hold       from then on probes of live searches move it by a step at a time (`ef_policy.py`)
audit      each change is recorded with its reason, also that not even the largest `ef_search` holds the target
reindex    on demand the index is rebuilt beside searches, and then calibrated again

Of all processes one acts on a version at a time; every process exports what the database holds (`db_gauges.py`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from service.core.collections import Collection
from service.core.errors import Conflict
from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.index_health import IndexHealth, IndexState
from service.core.periodic import Clock, failures_logged, for_each_version
from service.core.ports.audit import Audit
from service.core.ports.collections import Collections
from service.core.ports.indexes import Indexes
from service.core.ports.queue import JobQueue
from service.core.ports.recall import RecallStore
from service.core.ports.test_sets import TestSets
from service.core.ports.versions import Versions
from service.core.recall import Band, CalibrationCurve, EfSetting, RecallMinute
from service.core.versions import COMPLETE_STATES, AuditEntry, EmbedderVersion
from service.recall import ef_policy
from service.recall.calibration_curve import CurveMeasurer
from service.recall.ef_policy import EfDecision, ProbeHistory
from service.recall.index_advice import IndexAdvice, advise
from service.spaces.resolver import Space

log = logging.getLogger(__name__)

SERVICE = "azimuth"
PROBE_RETENTION = timedelta(days=1)
"""Older probes tell of another index, or of other queries."""
FLUSH_LAG = timedelta(minutes=2)
"""The sums of a minute may grow for so long: processes flush them now and then."""
RECALIBRATION_CHANGED_SHARE = 0.25
"""Share of the rows that are new or gone since the curve was measured: it is measured again."""
RECALIBRATION_DEAD_SHARE = 0.10
"""Change in the share of dead rows that has the same effect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EfChange:
    """The `ef_search` of a band is to change from `before` to what was decided."""

    band: Band
    before: EfSetting | None
    decision: EfDecision


@dataclass(kw_only=True, eq=False)
class RecallController:
    """Holds the recall target of each version by its `ef_search`, and rebuilds indexes on demand.

    `exact_below`: chunks up to which a version has no index, because an exact scan is as fast.
    """

    collections: Collections
    versions: Versions
    queue: JobQueue
    recalls: RecallStore
    indexes: Indexes
    audit: Audit
    test_sets: TestSets
    curve_measurer: CurveMeasurer
    live_texts: Callable[[CollectionName], Sequence[str]]
    """The texts of the remembered live searches of a collection."""
    exact_below: int
    _minutes: dict[CollectionId, tuple[RecallMinute, ...]] = field(default_factory=dict, init=False)
    _rebuilds: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    async def adjust_all(self, now: Clock) -> None:
        """Calibrate each version that is or may be searched, where due, and apply the changes that probes ask for."""
        standing = await self.versions.in_states(COMPLETE_STATES)
        ids = {version.collection_id for version in standing}
        self._minutes = {id_: known for id_, known in self._minutes.items() if id_ in ids}
        adjust = partial(self._adjust, now=now)
        await for_each_version(standing, adjust, failure_message="ef_search not adjusted")

    async def _adjust(self, version: EmbedderVersion, now: Clock) -> None:
        health = await self.indexes.health(version)
        index = health.index
        if index is None or not index.valid or index.building:
            return
        collection = await self.collections.get(version.collection_id)
        target = collection.settings.recall_target
        curve = await self.recalls.curve(version)
        if curve is not None and curve.build == index.build and await self._changes(collection, version, curve, now()):
            async with self.indexes.ef_search_lock(version) as ours:
                if ours:  # determines the changes again: the process that had the lock before may have applied them
                    await self._apply_changes(collection, version, curve, now())
        if calibration_due(curve, health, index, target) and not await self._loading(version, health, now()):
            async with self.indexes.ef_search_lock(version) as ours:
                if ours and calibration_due(await self.recalls.curve(version), health, index, target):
                    await self._calibrate(collection, version, health, now)

    async def prepare(self, collection: Collection, version: EmbedderVersion, now: Clock) -> None:
        """Set the `ef_search` of a version before its promotion is judged by its recall.

        A curve of this index suffices, even if much was written since, because a promotion waits for this.
        """
        health = await self.indexes.health(version)
        target = collection.settings.recall_target
        if health.index is not None and health.index.valid:
            async with self.indexes.ef_search_lock(version) as ours:
                if ours and unmeasured(await self.recalls.curve(version), health.index, target):
                    await self._calibrate(collection, version, health, now)

    async def _loading(self, version: EmbedderVersion, health: IndexHealth, now: datetime) -> bool:
        """Is a bulk load running? To calibrate in the middle of it would mean to calibrate twice."""
        return (await self.queue.status(version.collection_id, version.number, now)).pending > health.rows / 10

    async def _calibrate(
        self, collection: Collection, version: EmbedderVersion, health: IndexHealth, now: Clock
    ) -> None:
        space = Space(collection=collection, version=version, status=await self.versions.status(version))
        judgments = await self.test_sets.get(collection.id)
        curve = await self.curve_measurer.measure(space, health, judgments, self.live_texts(collection.name), now)
        if curve is None:
            return
        await self.recalls.put_curve(version, curve)
        extra = {"collection_id": collection.id, "version": version.number, "queries": curve.queries}
        log.info("calibrated", extra=extra)
        await self._apply_changes(collection, version, curve, now())

    async def _changes(
        self, collection: Collection, version: EmbedderVersion, curve: CalibrationCurve, now: datetime
    ) -> list[EfChange]:
        target = collection.settings.recall_target
        settings = await self.recalls.ef_settings(collection.id)
        known = {one.band: one for one in settings if one.version == version.number}
        minutes = await self._recent_minutes(collection.id, now)
        since = max(curve.measured_at, now - PROBE_RETENTION)
        unfiltered = known.get("all")
        if unfiltered is None or unfiltered.target != target or unfiltered.changed_at < curve.measured_at:
            probes = ProbeHistory.of(minutes, version.number, "all").since(since)
            return _initial_changes(known, ef_policy.initial_decision(curve, target, probes))
        changes = []
        for band in dict.fromkeys(minute.series.band for minute in minutes):
            before = known.get(band, unfiltered)
            probes = ProbeHistory.of(minutes, version.number, band).since(since)
            decision = ef_policy.next_decision(
                before.ef_search, before.missed, target, probes, before.changed_at, filtered=band != "all"
            )
            if decision is not None:
                changes.append(EfChange(band=band, before=before, decision=decision))
        return changes

    async def _recent_minutes(self, collection_id: CollectionId, now: datetime) -> tuple[RecallMinute, ...]:
        """Of the last day. Minutes that were read before are kept; those that may have grown since are read again."""
        known = self._minutes.get(collection_id, ())
        oldest = now - PROBE_RETENTION
        again = max((minute.at for minute in known), default=oldest) - FLUSH_LAG
        kept = [minute for minute in known if oldest <= minute.at < again]
        self._minutes[collection_id] = (*kept, *await self.recalls.since(collection_id, max(again, oldest)))
        return self._minutes[collection_id]

    async def _apply_changes(
        self, collection: Collection, version: EmbedderVersion, curve: CalibrationCurve, now: datetime
    ) -> None:
        """Store each change. One that changes the reason alone is neither audited nor logged."""
        target = collection.settings.recall_target
        for change in await self._changes(collection, version, curve, now):
            before, decision = change.before, change.decision
            setting = EfSetting(
                version=version.number,
                band=change.band,
                ef_search=decision.ef_search,
                missed=decision.target_missed,
                reason=decision.reason,
                changed_at=now,
                target=target,
            )
            if before is not None and (before.ef_search, before.missed) == (setting.ef_search, setting.missed):
                await self.recalls.put_ef_setting(collection.id, setting, None)
                continue
            details = {
                "band": setting.band,
                "ef_search": setting.ef_search,
                "before": None if before is None else before.ef_search,
                "target": target,
                "missed": setting.missed,
            }
            entry = AuditEntry(
                action="effort", actor=SERVICE, at=now, version=version.number, note=setting.reason, details=details
            )
            await self.recalls.put_ef_setting(collection.id, setting, entry)
            extra = {"collection_id": collection.id, "version": version.number, **details, "reason": setting.reason}
            log.log(logging.WARNING if setting.missed else logging.INFO, "ef_search set", extra=extra)

    async def health(
        self, collection: Collection, version: EmbedderVersion
    ) -> tuple[IndexHealth, tuple[IndexAdvice, ...]]:
        """The health of the index, and what to do about it."""
        health = await self.indexes.health(version)
        settings = await self.recalls.ef_settings(collection.id)
        missed = any(one.missed and one.version == version.number for one in settings)
        return health, advise(health, exact_below=self.exact_below, target_missed=missed and health.index is not None)

    async def reindex(self, collection: Collection, number: VersionNumber, *, actor: str, now: Clock) -> None:
        """Start to rebuild the index. Conflict where there is none, or where a build is running."""
        version = await self.versions.get(collection.id, number)
        if not version.written:
            raise Conflict(f"version {number} is {version.state}: it has no index")
        health = await self.indexes.health(version)
        if health.index is None:
            raise Conflict(f"version {number} has no index: its {health.rows} vectors are scanned exactly")
        async with AsyncExitStack() as lock:
            if health.index.building or not await lock.enter_async_context(self.indexes.rebuild_lock(version)):
                raise Conflict(f"the index of version {number} is being built already")
            entry = AuditEntry(action="reindexed", actor=actor, at=now(), version=number)
            await self.audit.add(collection.id, entry)
            task = asyncio.create_task(self._rebuild(version, lock.pop_all()))
            self._rebuilds.add(task)
            task.add_done_callback(self._rebuilds.discard)
            await asyncio.sleep(0)  # let it begin, so that whoever looks next sees the index being built

    async def _rebuild(self, version: EmbedderVersion, lock: AsyncExitStack) -> None:
        started = time.monotonic()
        about: dict[str, Any] = {"collection_id": version.collection_id, "version": version.number}
        with failures_logged("index not rebuilt", **about):
            async with lock:
                await self.indexes.rebuild(version)
            log.info("index rebuilt", extra={**about, "seconds": round(time.monotonic() - started, 1)})

    async def cancel_rebuilds(self) -> None:
        """Stop waiting for rebuilds: the server completes a build, or leaves an invalid one for the next to drop."""
        for task in self._rebuilds:
            task.cancel()
        await asyncio.gather(*self._rebuilds, return_exceptions=True)


def unmeasured(curve: CalibrationCurve | None, index: IndexState, target: float) -> bool:
    """Is there no curve of this index for this target?"""
    return curve is None or curve.build != index.build or curve.target != target


def calibration_due(curve: CalibrationCurve | None, health: IndexHealth, index: IndexState, target: float) -> bool:
    """Is a curve to be measured, because there is none or because the rows have changed since?

    Statistics that were reset, as after a crash, begin at zero: then all that they count came since.
    """
    if curve is None or unmeasured(curve, index, target):
        return True
    written = health.written - curve.written if health.written >= curve.written else health.written
    changed = max(written, abs(health.rows - curve.rows)) >= RECALIBRATION_CHANGED_SHARE * max(1, curve.rows)
    return changed or abs(health.dead_share - curve.dead) >= RECALIBRATION_DEAD_SHARE


def _initial_changes(known: Mapping[Band, EfSetting], decision: EfDecision) -> list[EfChange]:
    """Set the unfiltered band, and shift those with an `ef_search` of their own by as many steps."""
    unfiltered = known.get("all")
    changes = [EfChange(band="all", before=unfiltered, decision=decision)]
    for band, before in known.items():
        if unfiltered is not None and band != "all":
            ef_search = ef_policy.shifted(before.ef_search, unfiltered.ef_search, decision.ef_search)
            reason = f"as far from that of searches without a filter as before: {decision.reason}"
            shifted = EfDecision(ef_search=ef_search, reason=reason)
            changes.append(EfChange(band=band, before=before, decision=shifted))
    return changes
