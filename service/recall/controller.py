"""The promise's story: searches along an index find at least the `recall_target` of their collection.

calibrate  when an index was built, or what it holds has changed much, or the target: a curve is measured (`survey.py`)
           and `ef_search` set by it
hold       from then on probes of live searches move it, a rung at a time (`effort.py`)
audit      each change is noted with its reason; where not even the largest setting holds the target, that is said
reindex    on demand the index is built anew, beside searches; then it is calibrated again

One process of all acts on a version at a time; every process exports what stands in the database (`gauges.py`).
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from service.core.collections import Collection
from service.core.errors import AzimuthError, Conflict
from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.index_health import IndexHealth
from service.core.periodic import Clock, for_each_version
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
from service.recall.index_advice import IndexAdvice, advice

log = logging.getLogger(__name__)

SERVICE = "azimuth"
MEMORY = timedelta(days=1)
"""ProbeHistory that are older speak of another index, or of other questions."""
LATE = timedelta(minutes=2)
"""Sums of a minute may still grow for so long: processes write them down now and then."""
CHANGED = 0.25
"""Share of the rows that are new or gone since the curve was measured: it is measured again."""
DEAD = 0.10
"""Difference in the share of dead rows that does the same."""

Remembered = Callable[[CollectionName], Sequence[str]]
"""The texts of live searches, as far as they are remembered."""


class RecallController:
    """`exact_below`: chunks up to which a version has no index, because an exact scan is as fast."""

    def __init__(
        self,
        *,
        collections: Collections,
        versions: Versions,
        queue: JobQueue,
        recalls: RecallStore,
        indexes: Indexes,
        audit: Audit,
        test_sets: TestSets,
        survey: CurveMeasurer,
        remembered: Remembered,
        exact_below: int,
    ) -> None:
        self._collections = collections
        self._versions = versions
        self._queue = queue
        self._recalls = recalls
        self._indexes = indexes
        self._audit = audit
        self._test_sets = test_sets
        self._survey = survey
        self._remembered = remembered
        self._exact_below = exact_below
        self._minutes: dict[CollectionId, tuple[RecallMinute, ...]] = {}
        self._rebuilds: set[asyncio.Task[None]] = set()

    async def tend(self, now: Clock) -> None:
        """Calibrate what is to be, and set what probes ask for, of every version that is or may be searched."""
        standing = await self._versions.in_states(COMPLETE_STATES)
        self._minutes = {
            id_: known for id_, known in self._minutes.items() if id_ in {v.collection_id for v in standing}
        }
        await for_each_version(standing, lambda version: self._tend(version, now), failure_message="effort stays")

    async def _tend(self, version: EmbedderVersion, now: Clock) -> None:
        health = await self._indexes.health(version)
        if health.index is None or not health.index.valid or health.index.building:
            return
        collection = await self._collections.get(version.collection_id)
        target = collection.settings.recall_target
        curve = await self._recalls.curve(version)
        if curve is not None and curve.build == health.index.build:
            changes = await self._changes(collection, version, curve, now())
            if changes:
                async with self._indexes.ef_search_lock(version) as ours:
                    if ours:  # whoever had the lock before may have done it
                        for changed in await self._changes(collection, version, curve, now()):
                            await self._set(collection, version, changed, now())
        if due(curve, health, target) and await self._quiet(version, health, now()):
            async with self._indexes.ef_search_lock(version) as ours:
                if ours and due(await self._recalls.curve(version), health, target):
                    await self._calibrate(collection, version, health, now)

    # ------------------------------------------------------------ calibrate

    async def prepare(self, collection: Collection, version: EmbedderVersion, now: Clock) -> None:
        """Before a version is judged by its recall: it is to be searched as far as it will be.

        A curve of this index will do, even if much was written since: who promotes waits for this.
        """
        health = await self._indexes.health(version)
        target = collection.settings.recall_target
        if health.index is not None and health.index.valid:
            async with self._indexes.ef_search_lock(version) as ours:
                if ours and unmeasured(await self._recalls.curve(version), health, target):
                    await self._calibrate(collection, version, health, now)

    async def _quiet(self, version: EmbedderVersion, health: IndexHealth, now: datetime) -> bool:
        """Not in the middle of a bulk load: it would be measured twice."""
        waiting = (await self._queue.status(version.collection_id, version.number, now)).pending
        return waiting <= health.rows / 10

    async def _calibrate(
        self, collection: Collection, version: EmbedderVersion, health: IndexHealth, now: Clock
    ) -> None:
        status = await self._versions.status(version)
        judgments = await self._test_sets.get(collection.id)
        live = self._remembered(collection.name)
        curve = await self._survey.curve(collection, version, status, health, judgments, live, now())
        if curve is None:
            return
        curve = dataclasses.replace(curve, measured_at=now())
        await self._recalls.put_curve(version, curve)
        log.info(
            "calibrated",
            extra={"collection_id": collection.id, "version": version.number, "queries": curve.queries},
        )
        for changed in await self._changes(collection, version, curve, now()):
            await self._set(collection, version, changed, now())

    # ------------------------------------------------------------ hold

    async def _changes(
        self, collection: Collection, version: EmbedderVersion, curve: CalibrationCurve, now: datetime
    ) -> list[tuple[Band, EfSetting | None, EfDecision]]:
        """What is to be set otherwise: the band, what it was, what it is to be."""
        target = collection.settings.recall_target
        known = {
            one.band: one for one in await self._recalls.ef_settings(collection.id) if one.version == version.number
        }
        minutes = await self._probes(collection.id, now)
        since = max(curve.measured_at, now - MEMORY)
        standing = known.get("all")
        if standing is None or standing.target != target or standing.changed_at < curve.measured_at:
            choice = ef_policy.begin(curve, target, ProbeHistory.of(minutes, version.number, "all").since(since))
            return [("all", standing, choice), *_shifted(known, choice)]
        found: list[tuple[Band, EfSetting | None, EfDecision]] = []
        bands: dict[Band, None] = dict.fromkeys(minute.series.band for minute in minutes)
        for band in bands:
            before = known.get(band, standing)
            probes = ProbeHistory.of(minutes, version.number, band).since(since)
            step = ef_policy.step if band == "all" else ef_policy.step_under_filter
            changed = step(before.ef_search, before.missed, target, probes, before.changed_at)
            if changed is not None:
                found.append((band, before, changed))
        return found

    async def _probes(self, collection_id: CollectionId, now: datetime) -> tuple[RecallMinute, ...]:
        """Of the last day; what was read before is kept, and what may have grown since is read again."""
        known = self._minutes.get(collection_id, ())
        again = max((minute.at for minute in known), default=now - MEMORY) - LATE
        kept = [minute for minute in known if now - MEMORY <= minute.at < again]
        self._minutes[collection_id] = (*kept, *await self._recalls.since(collection_id, max(again, now - MEMORY)))
        return self._minutes[collection_id]

    # ------------------------------------------------------------ audit

    async def _set(
        self,
        collection: Collection,
        version: EmbedderVersion,
        changed: tuple[Band, EfSetting | None, EfDecision],
        now: datetime,
    ) -> None:
        band, before, choice = changed
        target = collection.settings.recall_target
        made = EfSetting(
            version=version.number,
            band=band,
            ef_search=choice.ef_search,
            missed=choice.missed,
            reason=choice.reason,
            changed_at=now,
            target=target,
        )
        same = before is not None and (before.ef_search, before.missed) == (choice.ef_search, choice.missed)
        details: Mapping[str, Any] = {
            "band": band,
            "ef_search": choice.ef_search,
            "before": None if before is None else before.ef_search,
            "target": target,
            "missed": choice.missed,
        }
        entry = AuditEntry(
            action="effort", actor=SERVICE, at=now, version=version.number, note=choice.reason, details=details
        )
        await self._recalls.put_ef_setting(collection.id, made, None if same else entry)
        if not same:
            extra = {"collection_id": collection.id, "version": version.number, **details, "reason": choice.reason}
            log.log(logging.WARNING if choice.missed else logging.INFO, "effort set", extra=extra)

    # ------------------------------------------------------------ reindex

    async def health(
        self, collection: Collection, version: EmbedderVersion
    ) -> tuple[IndexHealth, tuple[IndexAdvice, ...]]:
        """How the index stands, and what to do about it."""
        health = await self._indexes.health(version)
        ef_settings = await self._recalls.ef_settings(collection.id)
        missed = any(one.missed and one.version == version.number for one in ef_settings)
        return health, advice(health, exact_below=self._exact_below, missed=missed and health.index is not None)

    async def reindex(self, collection: Collection, number: VersionNumber, *, actor: str, now: Clock) -> None:
        """Begin to build the index anew. Conflict where there is none, or where it is being built."""
        version = await self._versions.get(collection.id, number)
        if not version.written:
            raise Conflict(f"version {number} is {version.state}: it has no index")
        health = await self._indexes.health(version)
        if health.index is None:
            raise Conflict(f"version {number} has no index: its {health.rows} vectors are scanned exactly")
        begun: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if not health.index.building:
            task = asyncio.create_task(self._rebuild(version, begun, actor, now))
            self._rebuilds.add(task)
            task.add_done_callback(self._rebuilds.discard)
        if health.index.building or not await begun:
            raise Conflict(f"the index of version {number} is being built already")

    async def _rebuild(self, version: EmbedderVersion, begun: asyncio.Future[bool], actor: str, now: Clock) -> None:
        """`begun` is told whether it is ours to do, or what went wrong before that was known."""
        started = time.monotonic()
        try:
            async with self._indexes.rebuild_lock(version) as ours:
                if ours:
                    entry = AuditEntry(action="reindexed", actor=actor, at=now(), version=version.number)
                    await self._audit.add(version.collection_id, entry)
                begun.set_result(ours)
                if not ours:
                    return
                await self._indexes.rebuild(version)
        except Exception as error:
            if not begun.done():
                begun.set_exception(error)
            elif isinstance(error, AzimuthError):
                log.warning("index not rebuilt", extra={"version": version.number, "reason": error.detail})
            else:
                log.exception("index not rebuilt", extra={"version": version.number})
            return
        log.info(
            "index rebuilt",
            extra={
                "collection_id": version.collection_id,
                "version": version.number,
                "seconds": round(time.monotonic() - started, 1),
            },
        )

    async def leave(self) -> None:
        """End what was begun here: the server goes on with a build, or leaves an invalid one for the next to drop."""
        for task in self._rebuilds:
            task.cancel()
        await asyncio.gather(*self._rebuilds, return_exceptions=True)


def unmeasured(curve: CalibrationCurve | None, health: IndexHealth, target: float) -> bool:
    """Is there no curve of this index for this target?"""
    if health.index is None:
        return False
    return curve is None or curve.build != health.index.build or curve.target != target


def due(curve: CalibrationCurve | None, health: IndexHealth, target: float) -> bool:
    """Is the curve to be measured (again), because there is none or because the rows are others by now?

    Statistics that were reset, as after a crash, begin at zero: then all that is counted came since.
    """
    if health.index is None:
        return False
    if curve is None or unmeasured(curve, health, target):
        return True
    written = health.written - curve.written if health.written >= curve.written else health.written
    changed = max(written, abs(health.rows - curve.rows))
    return changed >= CHANGED * max(1, curve.rows) or abs(health.dead_share - curve.dead) >= DEAD


def _shifted(known: Mapping[Band, EfSetting], choice: EfDecision) -> list[tuple[Band, EfSetting | None, EfDecision]]:
    """Bands with an effort of their own keep their distance to that without a filter."""
    standing = known.get("all")
    if standing is None:
        return []
    return [
        (
            band,
            before,
            EfDecision(
                ef_search=ef_policy.shifted(before.ef_search, standing.ef_search, choice.ef_search),
                reason=f"as far from that of searches without a filter as before: {choice.reason}",
            ),
        )
        for band, before in known.items()
        if band != "all"
    ]
