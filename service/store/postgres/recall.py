"""Measured recall, and the `ef_search` values and calibration curves that follow from it."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta

from psycopg.types.json import Jsonb

from service.core.errors import VersionNotFound
from service.core.ids import CollectionId
from service.core.recall import CalibrationCurve, EfSetting, RecallMinute, RecallSeries, RecallStats, merge_minutes
from service.core.versions import AuditEntry, EmbedderVersion
from service.store.postgres import audit
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Adapter, retrying
from service.store.postgres.json_records import read_optional
from service.store.postgres.rows import version_key

SQL = sql_files.load("recall")

_SERIES = ("version", "leg", "plan", "band", "ef_search")
_SUMS = ("queries", "recall", "recall_squares", "distance_recall", "seconds")


class PostgresRecalls(Adapter):
    """Adapter of `ports.RecallStore`."""

    async def add(self, collection_id: CollectionId, minutes: Sequence[RecallMinute]) -> None:
        if not minutes:
            return
        minutes = merge_minutes(minutes)
        values = {
            "collection_id": collection_id,
            "minutes": [minute.at for minute in minutes],
            **{name: [getattr(minute.series, name) for minute in minutes] for name in _SERIES},
            **{name: [getattr(minute.stats, name) for minute in minutes] for name in _SUMS},
        }
        await retrying(lambda: self._pool.execute(SQL.add, values))

    async def since(self, collection_id: CollectionId, moment: datetime, minutes: int = 1) -> tuple[RecallMinute, ...]:
        values = {"collection_id": collection_id, "moment": moment, "width": timedelta(minutes=minutes)}
        return tuple(
            RecallMinute(
                series=RecallSeries(**dict(zip(_SERIES, columns[: len(_SERIES)], strict=True))),
                at=at,
                stats=RecallStats(**dict(zip(_SUMS, columns[len(_SERIES) :], strict=True))),
            )
            for at, *columns in await self._pool.fetch_all(SQL.since, values)
        )

    async def delete_before(self, before: datetime) -> int:
        return await self._pool.execute(SQL.delete_before, {"before": before})

    async def ef_settings(self, collection_id: CollectionId) -> tuple[EfSetting, ...]:
        return await self._pool.fetch_objects(EfSetting, SQL.ef_settings, {"collection_id": collection_id})

    async def put_ef_setting(self, collection_id: CollectionId, setting: EfSetting, entry: AuditEntry | None) -> None:
        values = {**dataclasses.asdict(setting), "collection_id": collection_id}
        async with self._pool.transaction() as connection:
            await connection.execute(SQL.put_ef_setting, values)
            if entry is not None:
                await audit.write(connection, collection_id, entry)

    async def curve(self, version: EmbedderVersion) -> CalibrationCurve | None:
        row = await self._pool.fetch_one(SQL.curve, version_key(version))
        return None if row is None else read_optional(CalibrationCurve, row[0])

    async def put_curve(self, version: EmbedderVersion, curve: CalibrationCurve) -> None:
        if not await self._pool.execute(SQL.put_curve, {**version_key(version), "curve": Jsonb(curve)}):
            raise VersionNotFound(f"The embedder version {version.number} is gone.")
