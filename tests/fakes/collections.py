"""Collections in memory, with their audit trail, judgments, processes."""

import dataclasses
import itertools
from collections.abc import Mapping
from datetime import datetime, timedelta

import orjson

from service.core import versions
from service.core.collections import (
    Collection,
    CollectionCounts,
    CollectionSettings,
    FieldState,
    IndexedField,
    IndexSettings,
)
from service.core.errors import CollectionNotFound, Conflict, NotFound, VersionNotFound
from service.core.filters import Filter
from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.recall import Band, EfSetting
from service.core.versions import (
    Action,
    ApiProcess,
    AuditEntry,
    EmbedderIdentity,
    EmbedderVersion,
    Judgments,
    Mark,
    VersionState,
)


class FakeCollections:
    """`known_counts` is what a test says of documents, for they live elsewhere."""

    def __init__(self) -> None:
        self.rows: dict[CollectionId, Collection] = {}
        self.versions: dict[CollectionId, list[EmbedderVersion]] = {}
        self.known_counts: dict[CollectionId, CollectionCounts] = {}
        self.entries: dict[CollectionId, list[AuditEntry]] = {}
        self.judgments: dict[CollectionId, Judgments] = {}
        self.ef_settings: dict[CollectionId, dict[tuple[VersionNumber, Band], EfSetting]] = {}
        self.alias_ids: dict[CollectionName, CollectionId] = {}
        self._ids = itertools.count(1)
        self._numbers = itertools.count(1)

    def note(self, collection_id: CollectionId, entry: AuditEntry) -> None:
        if collection_id not in self.rows:
            raise CollectionNotFound
        details = orjson.loads(orjson.dumps(entry.details))  # as a database keeps them: lists, where there were tuples
        self.entries[collection_id].append(dataclasses.replace(entry, number=next(self._numbers), details=details))

    def version(self, collection_id: CollectionId, number: VersionNumber) -> EmbedderVersion:
        """VersionNotFound where there is none."""
        for version in self.versions.get(collection_id, ()):
            if version.number == number:
                return version
        raise VersionNotFound

    async def create(
        self,
        name: CollectionName,
        settings: CollectionSettings,
        identity: EmbedderIdentity,
        canary: Mapping[str, tuple[float, ...]],
        now: datetime,
        actor: str = "azimuth",
        index: IndexSettings | None = None,
    ) -> Collection:
        self._require_free(name)
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
            index=index or IndexSettings(),
            created_at=now,
        )
        self.rows[collection.id] = collection
        self.versions[collection.id] = [version]
        self.entries[collection.id] = []
        details = {"settings": dataclasses.asdict(settings)}
        entry = AuditEntry(at=now, actor=actor, action="created", version=version.number, details=details)
        self.note(collection.id, entry)
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

    def _require_free(self, name: CollectionName) -> None:
        if name in self.alias_ids or any(row.name == name for row in self.rows.values()):
            raise Conflict

    async def rename(self, collection: Collection, name: CollectionName, entry: AuditEntry) -> Collection:
        if collection.id not in self.rows:
            raise CollectionNotFound
        self._require_free(name)
        details = {"before": collection.name, "after": name}
        self.note(collection.id, dataclasses.replace(entry, details=details))
        self.rows[collection.id] = dataclasses.replace(self.rows[collection.id], name=name)
        return self.rows[collection.id]

    async def copy(
        self, source: Collection, version: EmbedderVersion, name: CollectionName, now: datetime, actor: str
    ) -> Collection:
        """Of the settings alone: documents live elsewhere."""
        return await self.create(name, source.settings, version.identity, version.canary, now, actor)

    async def aliases(self) -> Mapping[CollectionName, CollectionName]:
        return {alias: self.rows[id_].name for alias, id_ in sorted(self.alias_ids.items())}

    async def set_aliases(
        self, changes: Mapping[CollectionName, CollectionId | None], now: datetime, actor: str
    ) -> None:
        for alias, id_ in changes.items():
            if id_ is None and alias not in self.alias_ids:
                raise NotFound
            if id_ is not None and (id_ not in self.rows or any(row.name == alias for row in self.rows.values())):
                raise Conflict
        for alias, id_ in changes.items():
            action: Action = "alias_deleted" if id_ is None else "alias_set"
            entry = AuditEntry(at=now, actor=actor, action=action, details={"alias": alias})
            self.note(self.alias_ids[alias] if id_ is None else id_, entry)
            self.alias_ids.pop(alias, None)
            if id_ is not None:
                self.alias_ids[alias] = id_

    async def by_name(self, name: CollectionName) -> Collection:
        for row in self.rows.values():
            if name == row.name or (name in self.alias_ids and self.alias_ids[name] == row.id):
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
        self.alias_ids = {alias: id_ for alias, id_ in self.alias_ids.items() if id_ != collection_id}

    async def counts(self, collection: Collection, within: Filter | None = None) -> CollectionCounts:
        if collection.id not in self.rows:
            raise VersionNotFound
        known = self.known_counts.get(collection.id, CollectionCounts(documents=0, chunks=0, pending=0, failed=0))
        return known if within is None else dataclasses.replace(known, chunks=None)

    async def fields(self, collection_id: CollectionId) -> tuple[IndexedField, ...]:
        names = sorted(self.rows[collection_id].settings.field_types) if collection_id in self.rows else ()
        return tuple(IndexedField(name=name, state=FieldState.READY) for name in names)


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
        self._marks: dict[tuple[CollectionId, str], Mark] = {}

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

    async def put_mark(self, collection_id: CollectionId, mark: Mark) -> None:
        if collection_id not in self._collections.rows:
            raise CollectionNotFound
        self._marks[collection_id, mark.id] = mark
        newest = sorted(self._marks_of(collection_id, mark.tenant), key=lambda one: one.at, reverse=True)
        for one in newest[versions.MAX_MARKS :]:
            del self._marks[collection_id, one.id]

    def _marks_of(self, collection_id: CollectionId, tenant: str | None, mark_id: str | None = None) -> list[Mark]:
        return [
            mark
            for (owner, id_), mark in sorted(self._marks.items())
            if owner == collection_id in self._collections.rows
            and tenant in {None, mark.tenant}
            and mark_id in {None, id_}
        ]

    async def marks(self, collection_id: CollectionId, tenant: str | None, after: str, limit: int) -> tuple[Mark, ...]:
        return tuple(mark for mark in self._marks_of(collection_id, tenant) if mark.id > after)[:limit]

    async def count_marks(self, collection_id: CollectionId, tenant: str) -> int:
        return len(self._marks_of(collection_id, tenant))

    async def delete_marks(self, collection_id: CollectionId, tenant: str | None, mark_id: str | None) -> int:
        gone = self._marks_of(collection_id, tenant, mark_id)
        self._marks = {key: mark for key, mark in self._marks.items() if mark not in gone}
        return len(gone)

    async def delete_marks_before(self, before: datetime) -> None:
        self._marks = {key: mark for key, mark in self._marks.items() if mark.at >= before}


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
