"""What was measured of recall, in memory. The contract suite holds it to `catalog.Recalls`."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from service.core.errors import CollectionNotFound, VersionNotFound
from service.core.ids import CollectionId, VersionNumber
from service.core.recall import CalibrationCurve, EfSetting, RecallMinute, merge_minutes
from service.core.versions import AuditEntry, EmbedderVersion, VersionState
from tests.fakes.collections import FakeCollections


class FakeRecalls:
    """What it keeps of a collection is out of sight once that is deleted."""

    def __init__(self, collections: FakeCollections) -> None:
        self._collections = collections
        self._minutes: dict[CollectionId, tuple[RecallMinute, ...]] = {}
        self._curves: dict[tuple[CollectionId, VersionNumber], CalibrationCurve] = {}

    async def add(self, collection_id: CollectionId, minutes: Sequence[RecallMinute]) -> None:
        if minutes:
            self._expect(collection_id)
            self._minutes[collection_id] = merge_minutes((*self._minutes.get(collection_id, ()), *minutes))

    async def since(self, collection_id: CollectionId, moment: datetime, minutes: int = 1) -> tuple[RecallMinute, ...]:
        known = self._minutes.get(collection_id, ()) if collection_id in self._collections.rows else ()
        width = 60 * minutes
        return merge_minutes(
            replace(minute, at=datetime.fromtimestamp(minute.at.timestamp() // width * width, UTC))
            for minute in known
            if minute.at >= moment
        )

    async def delete_before(self, before: datetime) -> int:
        kept = {id_: tuple(one for one in known if one.at >= before) for id_, known in self._minutes.items()}
        gone = sum(map(len, self._minutes.values())) - sum(map(len, kept.values()))
        self._minutes = kept
        return gone

    async def ef_settings(self, collection_id: CollectionId) -> tuple[EfSetting, ...]:
        known = self._collections.ef_settings.get(collection_id, {}) if collection_id in self._collections.rows else {}
        return tuple(setting for _, setting in sorted(known.items()))

    async def put_ef_setting(self, collection_id: CollectionId, setting: EfSetting, entry: AuditEntry | None) -> None:
        self._expect(collection_id)
        if entry is not None:
            self._collections.note(collection_id, entry)
        self._collections.ef_settings.setdefault(collection_id, {})[setting.version, setting.band] = setting

    async def curve(self, version: EmbedderVersion) -> CalibrationCurve | None:
        if version.collection_id not in self._collections.rows:
            return None
        return self._curves.get((version.collection_id, version.number))

    async def put_curve(self, version: EmbedderVersion, curve: CalibrationCurve) -> None:
        if self._collections.version(version.collection_id, version.number).state is VersionState.RETIRED:
            raise VersionNotFound
        self._curves[version.collection_id, version.number] = curve

    def _expect(self, collection_id: CollectionId) -> None:
        if collection_id not in self._collections.rows:
            raise CollectionNotFound
