"""Port of the backfill of a new version."""

from datetime import datetime
from typing import Protocol

from service.core.versions import BackfillStatus, Completeness, EmbedderVersion, Progress


class Backfills(Protocol):
    """How a new version gets the documents that were there before it."""

    async def advance(self, version: EmbedderVersion, now: datetime, window: int) -> BackfillStatus:
        """Enqueue the next documents that the version lacks, so that about `window` jobs of the backfill wait.

        Goes on where the last call ended, whoever made it. What the version has in its present content is left out.
        """
        ...

    async def restart(self, version: EmbedderVersion) -> None:
        """Look at every document again, and drop vectors whose document is gone: something was missed."""
        ...

    async def progress(self, version: EmbedderVersion, now: datetime) -> Progress: ...

    async def record_progress(self, version: EmbedderVersion, now: datetime) -> None:
        """Remember how far it is now: the rate is measured between such notes."""
        ...

    async def completeness(self, version: EmbedderVersion) -> Completeness: ...
