"""Where a search happens: which version of which collection answers, and how its vectors stand."""

import asyncio
import time
from dataclasses import dataclass

from service.core.collections import Collection
from service.core.errors import Conflict, VersionNotFound
from service.core.ids import CollectionName, VersionNumber
from service.core.ports.collections import Collections
from service.core.ports.versions import Versions
from service.core.versions import EmbedderVersion, SpaceStatus

REMEMBERED_SECONDS = 1.0
"""How long settings, active version and state of a collection may be remembered between searches."""

Key = tuple[CollectionName, VersionNumber | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """A search reads it once, at its start: encoder, table and settings all come from here, so no answer mixes."""

    collection: Collection
    version: EmbedderVersion
    status: SpaceStatus
    previous: EmbedderVersion | None = None
    """The version that answered before."""

    @property
    def ambiguous(self) -> bool:
        """Could a client's vector, of no version by name, as well be of the version that answered before?"""
        before = self.previous
        return (
            before is not None
            and before.written
            and before.spec.external
            and before.fingerprint != self.version.fingerprint
            and before.dimensions == self.version.dimensions
        )


class SpaceResolver:
    """What was looked up lately. Searches that need the same at once share one look."""

    def __init__(self, collections: Collections, versions: Versions) -> None:
        self._collections = collections
        self._versions = versions
        self._known: dict[Key, tuple[float, Space]] = {}
        self._looks: dict[Key, asyncio.Task[Space]] = {}

    async def resolve(self, name: CollectionName, number: VersionNumber | None) -> Space:
        """The space of a version, or of the active one.

        CollectionNotFound or VersionNotFound; Conflict where the version failed or was retired.
        """
        key = (name, number)
        until, space = self._known.get(key, (0.0, None))
        if space is not None and time.monotonic() < until:
            return space
        look = self._looks.get(key)
        if look is None:
            look = self._looks[key] = asyncio.create_task(self._look(name, number))
            look.add_done_callback(lambda done: self._looked(key, done))
        # Shielded: a client that leaves must not take the answer away from the others.
        return await asyncio.shield(look)

    async def _look(self, name: CollectionName, number: VersionNumber | None) -> Space:
        collection = await self._collections.by_name(name)
        wanted = number or collection.active_version
        versions = {version.number: version for version in await self._versions.of(collection.id)}
        if wanted not in versions:
            raise VersionNotFound(f"collection {name} has no embedder version {wanted}")
        version = versions[wanted]
        if not version.written:
            raise Conflict(f"version {wanted} is {version.state}: it answers no searches")
        status = await self._versions.status(version)
        previous = None if collection.previous_version is None else versions.get(collection.previous_version)
        return Space(collection=collection, version=version, status=status, previous=previous)

    def _looked(self, key: Key, look: asyncio.Task[Space]) -> None:
        """Remember what was found, unless it was to be forgotten meanwhile."""
        if self._looks.get(key) is look:
            del self._looks[key]
            if not look.cancelled() and look.exception() is None:
                self._known[key] = (time.monotonic() + REMEMBERED_SECONDS, look.result())
        elif not look.cancelled():
            look.exception()  # whoever waits for it hears it; nobody may be waiting any more

    def forget(self, name: CollectionName) -> None:
        """The collection was changed by this process: look again at the next search."""
        self._known = {key: known for key, known in self._known.items() if key[0] != name}
        self._looks = {key: look for key, look in self._looks.items() if key[0] != name}
