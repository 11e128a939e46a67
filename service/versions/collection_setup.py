"""How a collection is founded, with its first version, and what of it may change in place."""

import dataclasses
from datetime import datetime

from service.core.collections import Collection, CollectionSettings
from service.core.errors import EmbedderChange, Invalid
from service.core.ids import CollectionName
from service.core.ports.collections import Collections
from service.core.ports.embedder import Embedders
from service.core.versions import AuditEntry
from service.spaces.model_verification import ModelVerifier


class CollectionService:
    def __init__(self, *, collections: Collections, embedders: Embedders, verifier: ModelVerifier) -> None:
        self._collections = collections
        self._embedders = embedders
        self._verifier = verifier

    async def create(
        self, name: CollectionName, settings: CollectionSettings, now: datetime, *, actor: str
    ) -> Collection:
        """Register the embedder as version 1 of a new collection, active at once. Conflict where the name is taken."""
        spec, identity, canary = await self._verifier.register(settings.embedder)
        settings = dataclasses.replace(settings, embedder=spec)
        return await self._collections.create(name, settings, identity, canary, now, actor)

    async def configure(
        self,
        collection: Collection,
        settings: CollectionSettings,
        now: datetime,
        *,
        actor: str,
    ) -> Collection:
        """Change what may change in place. EmbedderChange where the embedder or the chunking would be another.

        Conflict where somebody else changed it since `collection` was read; Invalid where it was tuned on another
        version than the active one.
        """
        kept = collection.settings.embedder
        # What is kept needs no leave: an operator may have taken the model from the list since.
        if settings.embedder != kept and self._embedders.resolve(settings.embedder) != kept:
            raise EmbedderChange
        if settings.chunking != collection.settings.chunking:
            raise EmbedderChange("Chunks are versioned with the embedder; another chunking is a new version.")
        settings = dataclasses.replace(settings, embedder=collection.settings.embedder)
        tuned = settings.tuned
        if tuned is None or tuned == collection.settings.tuned:
            entry = AuditEntry(action="settings", actor=actor, at=now)
        elif tuned.version == collection.active_version:
            entry = AuditEntry(action="tuned", actor=actor, at=now, version=tuned.version)
        else:
            raise Invalid.at("tuned.version", f"version {collection.active_version} is active")
        return await self._collections.update(collection, settings, entry)
