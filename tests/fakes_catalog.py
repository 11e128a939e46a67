"""Collections and versions in memory, for tests that need no database. The contract suites hold them to the ports."""

import dataclasses
import itertools
from collections.abc import Mapping
from datetime import datetime

from service.domain import (
    Collection,
    CollectionId,
    CollectionName,
    CollectionSettings,
    Counts,
    EmbedderVersion,
    Identity,
    SpaceStatus,
    VersionNumber,
    VersionState,
)
from service.errors import CollectionNotFound, Conflict, VersionNotFound

EMPTY = SpaceStatus(rows=0, indexed=False, chunks_per_document=1.0)


class FakeCollections:
    """`known_counts` is what a test says of documents, for they live elsewhere."""

    def __init__(self) -> None:
        self.rows: dict[CollectionId, Collection] = {}
        self.versions: dict[CollectionId, list[EmbedderVersion]] = {}
        self.known_counts: dict[CollectionId, Counts] = {}
        self._ids = itertools.count(1)

    async def create(
        self,
        name: CollectionName,
        settings: CollectionSettings,
        identity: Identity,
        canary: Mapping[str, tuple[float, ...]],
        now: datetime,
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
        return collection

    async def update(self, collection: Collection, settings: CollectionSettings) -> Collection:
        if collection.id not in self.rows:
            raise CollectionNotFound
        if self.rows[collection.id].settings != collection.settings:
            raise Conflict
        self.rows[collection.id] = dataclasses.replace(self.rows[collection.id], settings=settings)
        return self.rows[collection.id]

    async def by_name(self, name: CollectionName) -> Collection:
        for row in self.rows.values():
            if row.name == name:
                return row
        raise CollectionNotFound

    async def all(self) -> tuple[Collection, ...]:
        return tuple(sorted(self.rows.values(), key=lambda row: row.name.encode()))

    async def delete(self, collection_id: CollectionId) -> None:
        for table in (self.rows, self.versions, self.known_counts):
            table.pop(collection_id, None)

    async def counts(self, collection: Collection) -> Counts:
        if collection.id not in self.rows:
            raise VersionNotFound
        return self.known_counts.get(collection.id, Counts(documents=0, chunks=0, pending=0, failed=0))


class FakeVersions:
    """`statuses` is what a test says of vectors, for they live elsewhere."""

    def __init__(self, collections: FakeCollections) -> None:
        self._collections = collections
        self.statuses: dict[tuple[CollectionId, VersionNumber], SpaceStatus] = {}

    async def of(self, collection_id: CollectionId) -> tuple[EmbedderVersion, ...]:
        return tuple(self._collections.versions.get(collection_id, ()))

    async def written(self) -> tuple[EmbedderVersion, ...]:
        unwritten = {VersionState.RETIRED, VersionState.FAILED}
        known = itertools.chain.from_iterable(self._collections.versions.values())
        return tuple(version for version in known if version.state not in unwritten)

    async def status(self, version: EmbedderVersion) -> SpaceStatus:
        if version.collection_id not in self._collections.versions:
            raise VersionNotFound
        return self.statuses.get((version.collection_id, version.number), EMPTY)

    async def build_index(self, version: EmbedderVersion) -> bool:
        status = await self.status(version)
        self.statuses[version.collection_id, version.number] = dataclasses.replace(status, indexed=True)
        return True
