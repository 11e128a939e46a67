"""The indexes of versions, in memory. What `catalog.Indexes` promises of them is held by the contract suite."""

import asyncio
import dataclasses
from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager

from service.core.ids import CollectionId, VersionNumber
from service.core.index_health import IndexHealth, IndexState
from service.core.versions import EmbedderVersion
from tests.fakes.exclusive import exclusive
from tests.fakes.versions import FakeVersions

Key = tuple[CollectionId, VersionNumber]


class FakeIndexes:
    """There is an index where the status of a version says so. `healths`: what a test says of a version.

    A build lasts until `go` is set.
    """

    def __init__(self, versions: FakeVersions) -> None:
        self._versions = versions
        self.healths: dict[Key, IndexHealth] = {}
        self.go = asyncio.Event()
        self.go.set()
        self._builds: dict[Key, int] = {}
        self._building: set[Key] = set()
        self._held: set[Hashable] = set()

    async def health(self, version: EmbedderVersion) -> IndexHealth:
        key = (version.collection_id, version.number)
        status = await self._versions.status(version)
        known = self.healths.get(key)
        index = None
        if status.indexed:
            name, build = f"vectors_{key[0]}_{key[1]}_hnsw", self._builds.get(key, 1)
            index = IndexState(name=name, valid=True, bytes=8_192, building=key in self._building, build=build)
        if known is not None:
            return dataclasses.replace(known, index=index if known.index is None else known.index)
        return IndexHealth(
            rows=status.rows,
            dead_rows=0,
            unindexed_rows=0,
            written=status.rows,
            index=index,
            indexable=status.indexable,
            table_bytes=8_192,
            cache_bytes=2**30,
        )

    def ef_search_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        return exclusive(self._held, ("effort", version.collection_id, version.number))

    def rebuild_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        return exclusive(self._held, ("index", version.collection_id, version.number))

    async def rebuild(self, version: EmbedderVersion) -> None:
        await self._versions.status(version)
        key = (version.collection_id, version.number)
        self._building.add(key)
        try:
            await self.go.wait()
            self._builds[key] = self._builds.get(key, 1) + 1
        finally:
            self._building.discard(key)
