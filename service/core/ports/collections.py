from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from service.core.collections import Collection, CollectionCounts, CollectionSettings, IndexedField, IndexSettings
from service.core.filters import Filter
from service.core.ids import CollectionId, CollectionName
from service.core.versions import AuditEntry, EmbedderIdentity, EmbedderVersion


class Collections(Protocol):
    """Named sets of documents and their settings."""

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
        """Create a collection with its active version 1 and an audit entry, in one transaction.

        Conflict where the name is taken, also by a concurrent call.
        """

    async def update(
        self, collection: Collection, settings: CollectionSettings, entry: AuditEntry | None = None
    ) -> Collection:
        """Replace the settings. Conflict where they are no longer those of `collection`.

        The audit entry is completed with the settings before and after; without a change none is written.
        """

    async def rename(self, collection: Collection, name: CollectionName, entry: AuditEntry) -> Collection:
        """Conflict where the name is taken. The entry is completed with the names."""

    async def copy(
        self, source: Collection, version: EmbedderVersion, name: CollectionName, now: datetime, actor: str
    ) -> Collection:
        """A collection with these settings and documents, and with the vectors of this version: its active version 1.

        Conflict where the name is taken. All of it is there, or nothing.
        """

    async def aliases(self) -> Mapping[CollectionName, CollectionName]:
        """The collection of each alias, by name."""

    async def set_aliases(
        self, changes: Mapping[CollectionName, CollectionId | None], now: datetime, actor: str
    ) -> None:
        """Let each alias lead to this collection, or to none any more; all at once.

        Conflict where an alias is the name of a collection; NotFound where one that is to go is not there.
        """

    async def by_name(self, name: CollectionName) -> Collection:
        """Of this name, or else of this alias. CollectionNotFound where there is none."""

    async def get(self, collection_id: CollectionId) -> Collection:
        """CollectionNotFound where there is none."""

    async def all(self) -> tuple[Collection, ...]: ...

    async def delete(self, collection_id: CollectionId) -> None:
        """Delete it with its documents, jobs, changes and tables of vectors."""

    async def counts(self, collection: Collection, within: Filter | None = None) -> CollectionCounts:
        """Of the documents that pass; `chunks` only where all do."""

    async def fields(self, collection_id: CollectionId) -> tuple[IndexedField, ...]:
        """The declared fields by name, and whether filters can use them yet."""
