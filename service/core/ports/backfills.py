from datetime import datetime
from typing import Protocol

from service.core.versions import BackfillStatus, Completeness, EmbedderVersion, Progress


class Backfills(Protocol):
    """Backfills give a new version the documents that are older than it."""

    async def advance(self, version: EmbedderVersion, now: datetime, window: int) -> BackfillStatus:
        """Enqueue the next documents whose current content the version lacks, up to about `window` waiting jobs.

        Continues where the last call of any process ended.
        """

    async def restart(self, version: EmbedderVersion) -> None:
        """Begin with the first document again, and delete vectors whose document was deleted."""

    async def progress(self, version: EmbedderVersion, now: datetime) -> Progress: ...

    async def record_progress(self, version: EmbedderVersion, now: datetime) -> None:
        """Record the present progress: the rate is computed between such records."""

    async def completeness(self, version: EmbedderVersion) -> Completeness: ...
