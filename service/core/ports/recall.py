from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from service.core.ids import CollectionId
from service.core.recall import CalibrationCurve, EfSetting, RecallMinute
from service.core.versions import AuditEntry, EmbedderVersion


class RecallStore(Protocol):
    """What was measured of recall, and the `ef_search` that was chosen from it. Shared by all API processes."""

    async def add(self, collection_id: CollectionId, minutes: Sequence[RecallMinute]) -> None:
        """Add these sums to the stored ones. CollectionNotFound where it was deleted."""

    async def since(self, collection_id: CollectionId, moment: datetime, minutes: int = 1) -> tuple[RecallMinute, ...]:
        """From `moment` on, oldest first, summed by intervals of so many `minutes`; `at` is the start of each."""

    async def delete_before(self, before: datetime) -> int:
        """Delete older minutes of every collection, and return how many."""

    async def ef_settings(self, collection_id: CollectionId) -> tuple[EfSetting, ...]: ...

    async def put_ef_setting(self, collection_id: CollectionId, setting: EfSetting, entry: AuditEntry | None) -> None:
        """Store it with its audit entry (None: only the reason changed) in one transaction. CollectionNotFound."""

    async def curve(self, version: EmbedderVersion) -> CalibrationCurve | None: ...

    async def put_curve(self, version: EmbedderVersion, curve: CalibrationCurve) -> None:
        """VersionNotFound where it is gone."""
