"""Port of the HNSW indexes."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from service.core.index_health import IndexHealth
from service.core.versions import EmbedderVersion


class Indexes(Protocol):
    """The HNSW indexes of versions: how they stand, and how they are built anew."""

    async def health(self, version: EmbedderVersion) -> IndexHealth:
        """VersionNotFound where it is gone."""
        ...

    def ef_search_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        """True for the one process of all that may set how far searches look, as long as the block lasts."""
        ...

    def rebuild_lock(self, version: EmbedderVersion) -> AbstractAsyncContextManager[bool]:
        """True for the one process of all that may build this index, as long as the block lasts."""
        ...

    async def rebuild(self, version: EmbedderVersion) -> None:
        """Inside of `rebuild_lock`: build the index anew beside searches and writes; the old one serves until then.

        Takes minutes for millions of rows. VersionNotFound where it is gone; TimedOut where it was cancelled.
        """
        ...
