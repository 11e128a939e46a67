"""Creates collections with their first version, and changes the settings that may change in place."""

from dataclasses import dataclass, replace
from datetime import datetime

from service.core.collections import Collection, CollectionSettings, IndexSettings
from service.core.errors import EmbedderChange, Invalid
from service.core.ids import CollectionName
from service.core.ports.collections import Collections
from service.core.ports.embedder import Embedders
from service.core.versions import AuditEntry
from service.spaces.model_verification import ModelVerifier


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionService:
    """Creates and configures collections."""

    collections: Collections
    embedders: Embedders
    verifier: ModelVerifier

    async def create(
        self,
        name: CollectionName,
        settings: CollectionSettings,
        now: datetime,
        *,
        actor: str,
        index: IndexSettings | None = None,
    ) -> Collection:
        """Register the embedder as the active version 1 of a new collection. Conflict where the name is taken."""
        spec, identity, canary = await self.verifier.register(settings.embedder)
        settings = replace(settings, embedder=spec)
        return await self.collections.create(name, settings, identity, canary, now, actor, index)

    async def configure(
        self, collection: Collection, settings: CollectionSettings, now: datetime, *, actor: str
    ) -> Collection:
        """Change the settings. EmbedderChange where that would need a new version.

        Conflict where they were changed since `collection` was read; Invalid where they were tuned on another version
        than the active one.
        """
        before = collection.settings
        # An unchanged embedder is not resolved: the operator may have removed it from the allowed models since.
        if settings.embedder != before.embedder and self.embedders.resolve(settings.embedder) != before.embedder:
            raise EmbedderChange
        if settings.chunking != before.chunking:
            raise EmbedderChange("Chunks are versioned with the embedder; another chunking is a new version.")
        tuned = settings.tuned
        if tuned is None or tuned == before.tuned:
            entry = AuditEntry(action="settings", actor=actor, at=now)
        elif tuned.version == collection.active_version:
            entry = AuditEntry(action="tuned", actor=actor, at=now, version=tuned.version)
        else:
            raise Invalid.at("tuned.version", f"version {collection.active_version} is active")
        return await self.collections.update(collection, replace(settings, embedder=before.embedder), entry)
