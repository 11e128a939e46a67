"""Port of the recall that was measured."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from service.core.ids import CollectionId
from service.core.recall import CalibrationCurve, EfSetting, RecallMinute
from service.core.versions import AuditEntry, EmbedderVersion


class RecallStore(Protocol):
    """What was measured of recall, and what was made of it. Kept where every API process sees it."""

    async def add(self, collection_id: CollectionId, minutes: Sequence[RecallMinute]) -> None:
        """Add these sums to what is there. CollectionNotFound where it was deleted."""
        ...

    async def since(self, collection_id: CollectionId, moment: datetime, minutes: int = 1) -> tuple[RecallMinute, ...]:
        """The minutes from `moment` on, oldest first; so many `minutes` of the clock together, told by the first."""
        ...

    async def delete_before(self, before: datetime) -> int:
        """Drop older minutes, of every collection. Answers how many."""
        ...

    async def ef_settings(self, collection_id: CollectionId) -> tuple[EfSetting, ...]: ...

    async def put_ef_setting(self, collection_id: CollectionId, setting: EfSetting, entry: AuditEntry | None) -> None:
        """Set it, with its audit entry (None: only the reason is another) in one transaction. CollectionNotFound."""
        ...

    async def curve(self, version: EmbedderVersion) -> CalibrationCurve | None: ...

    async def put_curve(self, version: EmbedderVersion, curve: CalibrationCurve) -> None:
        """VersionNotFound where it is gone."""
        ...
