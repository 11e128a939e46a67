from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from service.core.collections import Collection, CollectionCounts, CollectionSettings, IndexedField
from service.core.filters import Filter
from service.core.ids import CollectionId, CollectionName
from service.core.versions import AuditEntry, EmbedderIdentity


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

    async def by_name(self, name: CollectionName) -> Collection:
        """CollectionNotFound where there is none."""

    async def get(self, collection_id: CollectionId) -> Collection:
        """CollectionNotFound where there is none."""

    async def all(self) -> tuple[Collection, ...]: ...

    async def delete(self, collection_id: CollectionId) -> None:
        """Delete it with its documents, jobs, changes and tables of vectors."""

    async def counts(self, collection: Collection, within: Filter | None = None) -> CollectionCounts:
        """Of the documents that pass; `chunks` only where all do."""

    async def fields(self, collection_id: CollectionId) -> tuple[IndexedField, ...]:
        """The declared fields by name, and whether filters can use them yet."""
