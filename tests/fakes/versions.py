"""Embedder versions in memory."""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from service.core.collections import ChunkingSettings, Collection, EmbedderSpec, IndexSettings
from service.core.errors import CollectionNotFound, Conflict, Overtaken, VersionNotFound
from service.core.ids import CollectionId, VersionNumber
from service.core.versions import (
    AuditEntry,
    Calibration,
    EmbedderIdentity,
    EmbedderVersion,
    PromotionEvidence,
    SpaceStatus,
    VersionState,
)
from tests.fakes.collections import FakeCollections
from tests.fakes.exclusive import exclusive

if TYPE_CHECKING:
    from tests.fakes.store import FakeStore

MAX_WRITTEN = 8

EMPTY = SpaceStatus(rows=0, indexed=False, chunks_per_document=1.0)


class FakeVersions:
    """`statuses` is what a test says of vectors; jobs and vectors themselves live in `store`, where there is one."""

    def __init__(self, collections: FakeCollections, store: "FakeStore | None" = None) -> None:
        self._collections = collections
        self._store = store
        self._held: set[Hashable] = set()
        self.statuses: dict[tuple[CollectionId, VersionNumber], SpaceStatus] = {}

    async def of(self, collection_id: CollectionId) -> tuple[EmbedderVersion, ...]:
        return tuple(self._collections.versions.get(collection_id, ()))

    async def written(self) -> tuple[EmbedderVersion, ...]:
        return tuple(version for version in self._all() if version.written)

    async def in_states(self, states: Iterable[VersionState]) -> tuple[EmbedderVersion, ...]:
        wanted = frozenset(states)
        return tuple(version for version in self._all() if version.state in wanted)

    def _all(self) -> Iterable[EmbedderVersion]:
        return itertools.chain.from_iterable(self._collections.versions.values())

    async def get(self, collection_id: CollectionId, number: VersionNumber) -> EmbedderVersion:
        return self._collections.version(collection_id, number)

    async def status(self, version: EmbedderVersion) -> SpaceStatus:
        if (await self.get(version.collection_id, version.number)).state is VersionState.RETIRED:
            raise VersionNotFound
        status = self.statuses.get((version.collection_id, version.number), EMPTY)
        chosen = self._collections.ef_settings.get(version.collection_id, {}).items()
        ef_settings: dict[str, int] = {
            band: one.ef_search for (number, band), one in chosen if number == version.number
        }
        return dataclasses.replace(status, ef_settings=ef_settings)

    async def build_index(self, version: EmbedderVersion) -> bool:
        status = await self.status(version)
        self.statuses[version.collection_id, version.number] = dataclasses.replace(status, indexed=True)
        return True

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
        self._require_room(collection.id)
        last = self._collections.versions[collection.id][-1].number
        if newest is not None and newest != last:
            raise Overtaken
        version = EmbedderVersion(
            collection_id=collection.id,
            number=VersionNumber(last + 1),
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

    def calibration_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        return exclusive(self._held, ("calibration", version.collection_id, version.number))

    async def save_calibration(self, version: EmbedderVersion, calibration: Calibration) -> bool:
        known = self._collections.versions.get(version.collection_id, [])
        for at, one in enumerate(known):
            if one.number == version.number and one.written and one.calibration == version.calibration:
                known[at] = dataclasses.replace(one, calibration=calibration)
                return True
        return False

    @asynccontextmanager
    async def transition_lock(self, version: EmbedderVersion, wait_seconds: float = 0.0) -> AsyncIterator[bool]:
        key = ("transition", version.collection_id, version.number)
        deadline = time.monotonic() + wait_seconds
        while key in self._held and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        async with exclusive(self._held, key) as free:
            yield free

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
        current = await self._expected(version)
        if version.state is VersionState.FAILED:
            self._require_room(version.collection_id)
        if to is VersionState.FAILED:
            self._drop_jobs(version)
        moved = dataclasses.replace(
            current, state=to, reason=reason, evidence=evidence or current.evidence, paused=False
        )
        return self._replace(moved, entry)

    async def pause(self, version: EmbedderVersion, paused: bool, entry: AuditEntry) -> EmbedderVersion:
        current = await self._expected(version)
        if current.paused is paused:
            return current
        return self._replace(dataclasses.replace(current, paused=paused), entry)

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
        self._replace(dataclasses.replace(old, state=VersionState.READY), None)
        self._replace(dataclasses.replace(new, state=VersionState.ACTIVE), entry)
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
        current = await self.get(version.collection_id, version.number)
        if current.state is VersionState.RETIRED:
            return current
        if current.state is VersionState.ACTIVE:
            raise Conflict
        row = self._collections.rows[version.collection_id]
        if row.previous_version == version.number:
            self._collections.rows[row.id] = dataclasses.replace(row, previous_version=None)
        self._drop_jobs(version)
        if self._store is not None:
            self._store.vectors.pop((version.collection_id, version.number), None)
        return self._replace(dataclasses.replace(current, state=VersionState.RETIRED, paused=False), entry)

    def _require_room(self, collection_id: CollectionId) -> None:
        if sum(version.written for version in self._collections.versions[collection_id]) >= MAX_WRITTEN:
            raise Conflict

    async def _expected(self, version: EmbedderVersion) -> EmbedderVersion:
        current = await self.get(version.collection_id, version.number)
        if current.state is not version.state:
            raise Conflict
        return current

    def _replace(self, version: EmbedderVersion, entry: AuditEntry | None) -> EmbedderVersion:
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
