from contextlib import AbstractAsyncContextManager
from typing import Protocol

from service.core.index_health import IndexHealth
from service.core.versions import EmbedderVersion


class Indexes(Protocol):
    """The HNSW indexes of versions: their health, and how they are rebuilt."""

    async def health(self, version: EmbedderVersion) -> IndexHealth:
        """VersionNotFound where it is gone."""

    def ef_search_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        """True for the only process that may set `ef_search` of this version, as long as the block lasts."""

    def rebuild_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        """True for the only process that may build this index, as long as the block lasts."""

    async def rebuild(self, version: EmbedderVersion) -> None:
        """Inside `rebuild_lock`: rebuild the index beside searches and writes, which use the old one until then.

        Takes minutes for millions of rows. VersionNotFound where it is gone; TimedOut where it was cancelled.
        """
