"""Collections, versions and what else there is one of, in memory, for tests that need no database.

The contract suites hold them to the ports. Every method runs without awaiting anything, so each is a transaction.
"""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import orjson

from service.core.collections import (
    ChunkingSettings,
    Collection,
    CollectionCounts,
    CollectionSettings,
    EmbedderSpec,
    FieldState,
    IndexedField,
    IndexSettings,
)
from service.core.errors import CollectionNotFound, Conflict, Overtaken, VersionNotFound
from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.recall import Band, EfSetting
from service.core.versions import (
    ApiProcess,
    AuditEntry,
    Calibration,
    EmbedderIdentity,
    EmbedderVersion,
    Judgments,
    PromotionEvidence,
    SpaceStatus,
    VersionState,
)

if TYPE_CHECKING:
    from tests.fakes import FakeStore

MAX_WRITTEN = 8

EMPTY = SpaceStatus(rows=0, indexed=False, chunks_per_document=1.0)


class FakeCollections:
    """`known_counts` is what a test says of documents, for they live elsewhere."""

    def __init__(self) -> None:
        self.rows: dict[CollectionId, Collection] = {}
        self.versions: dict[CollectionId, list[EmbedderVersion]] = {}
        self.known_counts: dict[CollectionId, CollectionCounts] = {}
        self.entries: dict[CollectionId, list[AuditEntry]] = {}
        self.judgments: dict[CollectionId, Judgments] = {}
        self.ef_settings: dict[CollectionId, dict[tuple[VersionNumber, Band], EfSetting]] = {}
        self._ids = itertools.count(1)
        self._numbers = itertools.count(1)

    def note(self, collection_id: CollectionId, entry: AuditEntry) -> None:
        if collection_id not in self.rows:
            raise CollectionNotFound
        details = orjson.loads(orjson.dumps(entry.details))  # as a database keeps them: lists, where there were tuples
        self.entries[collection_id].append(dataclasses.replace(entry, number=next(self._numbers), details=details))

    async def create(
        self,
        name: CollectionName,
        settings: CollectionSettings,
        identity: EmbedderIdentity,
        canary: Mapping[str, tuple[float, ...]],
        now: datetime,
        actor: str = "azimuth",
    ) -> Collection:
        if any(row.name == name for row in self.rows.values()):
            raise Conflict
        collection = Collection(
            id=CollectionId(next(self._ids)),
            name=name,
            settings=settings,
            active_version=VersionNumber(1),
            created_at=now,
        )
        version = EmbedderVersion(
            collection_id=collection.id,
            number=collection.active_version,
            state=VersionState.ACTIVE,
            spec=settings.embedder,
            chunking=settings.chunking,
            identity=identity,
            fingerprint=identity.fingerprint,
            canary=dict(canary),
            created_at=now,
        )
        self.rows[collection.id] = collection
        self.versions[collection.id] = [version]
        self.entries[collection.id] = []
        details = {"settings": dataclasses.asdict(settings)}
        self.note(
            collection.id, AuditEntry(at=now, actor=actor, action="created", version=version.number, details=details)
        )
        return collection

    async def update(
        self, collection: Collection, settings: CollectionSettings, entry: AuditEntry | None = None
    ) -> Collection:
        if collection.id not in self.rows:
            raise CollectionNotFound
        if self.rows[collection.id].settings != collection.settings:
            raise Conflict
        if entry is not None and settings != collection.settings:
            details = {"before": dataclasses.asdict(collection.settings), "after": dataclasses.asdict(settings)}
            self.note(collection.id, dataclasses.replace(entry, details={**entry.details, **details}))
        self.rows[collection.id] = dataclasses.replace(self.rows[collection.id], settings=settings)
        return self.rows[collection.id]

    async def by_name(self, name: CollectionName) -> Collection:
        for row in self.rows.values():
            if row.name == name:
                return row
        raise CollectionNotFound

    async def get(self, collection_id: CollectionId) -> Collection:
        if collection_id not in self.rows:
            raise CollectionNotFound
        return self.rows[collection_id]

    async def all(self) -> tuple[Collection, ...]:
        return tuple(sorted(self.rows.values(), key=lambda row: row.name.encode()))

    async def delete(self, collection_id: CollectionId) -> None:
        for table in (self.rows, self.versions, self.known_counts, self.entries, self.judgments):
            table.pop(collection_id, None)

    async def counts(self, collection: Collection) -> CollectionCounts:
        if collection.id not in self.rows:
            raise VersionNotFound
        return self.known_counts.get(collection.id, CollectionCounts(documents=0, chunks=0, pending=0, failed=0))

    async def fields(self, collection_id: CollectionId) -> tuple[IndexedField, ...]:
        names = sorted(self.rows[collection_id].settings.indexed) if collection_id in self.rows else ()
        return tuple(IndexedField(name=name, state=FieldState.READY) for name in names)


class FakeVersions:
    """`statuses` is what a test says of vectors; jobs and vectors themselves live in `store`, where there is one."""

    def __init__(self, collections: FakeCollections, store: "FakeStore | None" = None) -> None:
        self._collections = collections
        self._store = store
        self._driven: set[tuple[CollectionId, VersionNumber]] = set()
        self._learning: set[tuple[CollectionId, VersionNumber]] = set()
        self.statuses: dict[tuple[CollectionId, VersionNumber], SpaceStatus] = {}

    async def of(self, collection_id: CollectionId) -> tuple[EmbedderVersion, ...]:
        return tuple(self._collections.versions.get(collection_id, ()))

    async def written(self) -> tuple[EmbedderVersion, ...]:
        known = itertools.chain.from_iterable(self._collections.versions.values())
        return tuple(version for version in known if version.written)

    async def in_states(self, states: Iterable[VersionState]) -> tuple[EmbedderVersion, ...]:
        wanted = frozenset(states)
        known = itertools.chain.from_iterable(self._collections.versions.values())
        return tuple(version for version in known if version.state in wanted)

    async def get(self, collection_id: CollectionId, number: VersionNumber) -> EmbedderVersion:
        for version in self._collections.versions.get(collection_id, ()):
            if version.number == number:
                return version
        raise VersionNotFound

    async def status(self, version: EmbedderVersion) -> SpaceStatus:
        if (await self.get(version.collection_id, version.number)).state is VersionState.RETIRED:
            raise VersionNotFound
        status = self.statuses.get((version.collection_id, version.number), EMPTY)
        chosen = self._collections.ef_settings.get(version.collection_id, {}).items()
        ef_settings: dict[str, int] = {
            band: effort.ef_search for (number, band), effort in chosen if number == version.number
        }
        return dataclasses.replace(status, ef_settings=ef_settings) if ef_settings else status

    async def build_index(self, version: EmbedderVersion) -> bool:
        status = await self.status(version)
        self.statuses[version.collection_id, version.number] = dataclasses.replace(status, indexed=True)
        return True

    # ------------------------------------------------------------ the lifecycle

    async def register(
        self,
        collection: Collection,
        spec: EmbedderSpec,
        chunking: ChunkingSettings,
        index: IndexSettings,
        identity: EmbedderIdentity,
        canary: Mapping[str, tuple[float, ...]],
        entry: AuditEntry,
        newest: VersionNumber | None = None,
    ) -> EmbedderVersion:
        if collection.id not in self._collections.rows:
            raise CollectionNotFound
        self._room(collection.id)
        if newest is not None and newest != self._collections.versions[collection.id][-1].number:
            raise Overtaken
        version = EmbedderVersion(
            collection_id=collection.id,
            number=VersionNumber(1 + self._collections.versions[collection.id][-1].number),
            state=VersionState.BACKFILLING,
            spec=spec,
            chunking=chunking,
            identity=identity,
            fingerprint=identity.fingerprint,
            canary=dict(canary),
            index=index,
            created_at=entry.at,
        )
        self._collections.versions[collection.id].append(version)
        self._collections.note(collection.id, dataclasses.replace(entry, version=version.number))
        return version

    @asynccontextmanager
    async def calibration_lock(self, version: EmbedderVersion) -> AsyncIterator[bool]:
        key = (version.collection_id, version.number)
        ours = key not in self._learning
        self._learning.add(key)
        try:
            yield ours
        finally:
            if ours:
                self._learning.discard(key)

    async def save_calibration(self, version: EmbedderVersion, calibration: Calibration) -> bool:
        known = self._collections.versions.get(version.collection_id, [])
        for at, one in enumerate(known):
            if one.number == version.number and one.written and one.calibration == version.calibration:
                known[at] = dataclasses.replace(one, calibration=calibration)
                return True
        return False

    @asynccontextmanager
    async def transition_lock(self, version: EmbedderVersion, wait_seconds: float = 0.0) -> AsyncIterator[bool]:
        key = (version.collection_id, version.number)
        deadline = time.monotonic() + wait_seconds
        while key in self._driven and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        if key in self._driven:
            yield False
            return
        self._driven.add(key)
        try:
            yield True
        finally:
            self._driven.remove(key)

    async def move(
        self,
        version: EmbedderVersion,
        to: VersionState,
        entry: AuditEntry | None,
        *,
        reason: str | None = None,
        evidence: PromotionEvidence | None = None,
    ) -> EmbedderVersion:
        if to is not version.state and {version.state, to} & {VersionState.ACTIVE, VersionState.RETIRED}:
            raise Conflict
        standing = await self._expected(version)
        if version.state is VersionState.FAILED:
            self._room(version.collection_id)
        if to is VersionState.FAILED:
            self._drop_jobs(version)
        moved = dataclasses.replace(
            standing, state=to, reason=reason, evidence=evidence or standing.evidence, paused=False
        )
        return self._keep(moved, entry)

    async def pause(self, version: EmbedderVersion, paused: bool, entry: AuditEntry) -> EmbedderVersion:
        standing = await self._expected(version)
        if standing.paused is paused:
            return standing
        return self._keep(dataclasses.replace(standing, paused=paused), entry)

    async def promote(self, collection: Collection, version: EmbedderVersion, entry: AuditEntry) -> Collection:
        row = self._collections.rows.get(collection.id)
        if row is None:
            raise CollectionNotFound
        if row.active_version != collection.active_version or row.active_version == version.number:
            raise Conflict
        new = await self.get(collection.id, version.number)
        if new.state is not VersionState.READY:
            raise Conflict
        old = await self.get(collection.id, row.active_version)
        self._keep(dataclasses.replace(old, state=VersionState.READY), None)
        self._keep(dataclasses.replace(new, state=VersionState.ACTIVE), entry)
        for (owner, _, number), job in () if self._store is None else self._store.jobs.items():
            if owner == row.id and (number, job.priority) in ((old.number, 0), (new.number, 1)):
                job.priority = 1 - job.priority
        self._collections.rows[row.id] = dataclasses.replace(
            row,
            active_version=new.number,
            previous_version=old.number,
            settings=dataclasses.replace(row.settings, embedder=new.spec, chunking=new.chunking),
        )
        return self._collections.rows[row.id]

    async def retire(self, version: EmbedderVersion, entry: AuditEntry) -> EmbedderVersion:
        standing = await self.get(version.collection_id, version.number)
        if standing.state is VersionState.RETIRED:
            return standing
        if standing.state is VersionState.ACTIVE:
            raise Conflict
        row = self._collections.rows[version.collection_id]
        if row.previous_version == version.number:
            self._collections.rows[row.id] = dataclasses.replace(row, previous_version=None)
        self._drop_jobs(version)
        if self._store is not None:
            self._store.vectors.pop((version.collection_id, version.number), None)
        return self._keep(dataclasses.replace(standing, state=VersionState.RETIRED, paused=False), entry)

    def _room(self, collection_id: CollectionId) -> None:
        if sum(version.written for version in self._collections.versions[collection_id]) >= MAX_WRITTEN:
            raise Conflict

    async def _expected(self, version: EmbedderVersion) -> EmbedderVersion:
        standing = await self.get(version.collection_id, version.number)
        if standing.state is not version.state:
            raise Conflict
        return standing

    def _keep(self, version: EmbedderVersion, entry: AuditEntry | None) -> EmbedderVersion:
        versions = self._collections.versions[version.collection_id]
        versions[[one.number for one in versions].index(version.number)] = version
        if entry is not None:
            self._collections.note(version.collection_id, entry)
        return version

    def _drop_jobs(self, version: EmbedderVersion) -> None:
        if self._store is not None:
            jobs = self._store.jobs
            for key in [key for key in jobs if (key[0], key[2]) == (version.collection_id, version.number)]:
                del jobs[key]


class FakeAudit:
    def __init__(self, collections: FakeCollections) -> None:
        self._collections = collections

    async def page(self, collection_id: CollectionId, before: int | None, limit: int) -> tuple[AuditEntry, ...]:
        entries = reversed(self._collections.entries.get(collection_id, []))
        return tuple(entry for entry in entries if before is None or entry.number < before)[:limit]

    async def add(self, collection_id: CollectionId, entry: AuditEntry) -> None:
        self._collections.note(collection_id, entry)


class FakeTestSets:
    def __init__(self, collections: FakeCollections) -> None:
        self._collections = collections

    async def put(self, collection_id: CollectionId, judgments: Judgments, entry: AuditEntry) -> None:
        self._collections.note(collection_id, entry)
        self._collections.judgments[collection_id] = judgments

    async def get(self, collection_id: CollectionId) -> Judgments | None:
        return self._collections.judgments.get(collection_id)

    async def uploaded_at(self, collection_id: CollectionId) -> datetime | None:
        judgments = self._collections.judgments.get(collection_id)
        return None if judgments is None else judgments.uploaded_at

    async def delete(self, collection_id: CollectionId, entry: AuditEntry) -> None:
        if self._collections.judgments.pop(collection_id, None) is not None:
            self._collections.note(collection_id, entry)


class FakeProcesses:
    def __init__(self) -> None:
        self._rows: dict[str, ApiProcess] = {}

    async def record_heartbeat(self, process: ApiProcess) -> None:
        forgotten = process.seen_at - timedelta(hours=1)
        self._rows = {id_: row for id_, row in self._rows.items() if row.seen_at >= forgotten}
        self._rows[process.id] = process

    async def seen_since(self, moment: datetime) -> tuple[ApiProcess, ...]:
        return tuple(row for _, row in sorted(self._rows.items()) if row.seen_at >= moment)

    async def remove(self, process_id: str) -> None:
        self._rows.pop(process_id, None)
