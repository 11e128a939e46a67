"""Resolution of a search's space: which version of which collection answers, and the state of its vectors."""

from dataclasses import dataclass
from functools import partial

from service.core.collections import Collection
from service.core.errors import Conflict, VersionNotFound
from service.core.ids import CollectionName, VersionNumber
from service.core.ports.collections import Collections
from service.core.ports.versions import Versions
from service.core.versions import EmbedderVersion, SpaceStatus
from service.spaces.sample_cache import SampleCache

CACHE_SECONDS, MAX_SPACES = 1.0, 10_000
"""How long settings, active version and state of a collection are cached between searches, and of how many spaces."""

Key = tuple[CollectionName, VersionNumber | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """Read once at the start of a search, which takes encoder, table and settings from it: no answer mixes two.
    `previous`: the version that was active before."""

    collection: Collection
    version: EmbedderVersion
    status: SpaceStatus
    previous: EmbedderVersion | None = None

    @property
    def ambiguous(self) -> bool:
        """Whether a client's vector that names no version could as well be of the version that was active before."""
        before = self.previous
        if before is None or not before.written or not before.spec.external:
            return False
        return before.fingerprint != self.version.fingerprint and before.dimensions == self.version.dimensions


class SpaceResolver:
    """Resolves spaces and caches them; searches that need the same space at once share one look-up."""

    def __init__(self, collections: Collections, versions: Versions) -> None:
        self._collections = collections
        self._versions = versions
        self._cached = SampleCache[Key, Space](seconds=CACHE_SECONDS, outdated_seconds=0.0, capacity=MAX_SPACES)

    async def resolve(self, name: CollectionName, number: VersionNumber | None) -> Space:
        """The space of a version, or of the active one.

        CollectionNotFound or VersionNotFound; Conflict where the version failed or was retired.
        """
        return await self._cached.get_or_compute((name, number), partial(self._load, name, number))

    async def _load(self, name: CollectionName, number: VersionNumber | None) -> Space:
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

    def forget(self) -> None:
        """This process changed a collection: the next search reads it anew, under whatever name or alias."""
        self._cached.clear()
