"""What was measured of recall, and what was made of it. Adapter of `catalog.Recalls`."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg.errors import ForeignKeyViolation

from service.core.errors import CollectionNotFound, VersionNotFound
from service.core.ids import CollectionId, VersionNumber
from service.core.recall import CalibrationCurve, EfSetting, RecallMinute, RecallSeries, RecallStats, merge_minutes
from service.core.versions import AuditEntry, EmbedderVersion
from service.store.postgres import audit, json_records
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Pool, retrying

SQL = sql_files.load("recall")


class PostgresRecalls:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, collection_id: CollectionId, minutes: Sequence[RecallMinute]) -> None:
        if not minutes:
            return
        values = {"collection_id": collection_id, **_columns(merge_minutes(minutes))}

        async def commit() -> None:
            async with self._pool.connection() as connection:
                await connection.execute(SQL.add, values)

        try:
            await retrying(commit)
        except ForeignKeyViolation as error:
            raise CollectionNotFound from error

    async def since(self, collection_id: CollectionId, moment: datetime, minutes: int = 1) -> tuple[RecallMinute, ...]:
        values = {"collection_id": collection_id, "moment": moment, "width": timedelta(minutes=minutes)}
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(SQL.since, values)).fetchall()
        return tuple(_minute(*row) for row in rows)

    async def delete_before(self, before: datetime) -> int:
        async with self._pool.connection() as connection:
            return (await connection.execute(SQL.forget, {"before": before})).rowcount

    async def ef_settings(self, collection_id: CollectionId) -> tuple[EfSetting, ...]:
        """In the order of versions and bands."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(SQL.ef_settings, {"collection_id": collection_id})).fetchall()
        return tuple(
            EfSetting(
                version=VersionNumber(version),
                band=band,
                ef_search=ef_search,
                missed=missed,
                reason=reason,
                changed_at=changed_at,
                target=target,
            )
            for version, band, ef_search, missed, reason, changed_at, target in rows
        )

    async def put_ef_setting(self, collection_id: CollectionId, setting: EfSetting, entry: AuditEntry | None) -> None:
        values = {**dataclasses.asdict(setting), "collection_id": collection_id}
        try:
            async with self._pool.transaction() as connection:
                await connection.execute(SQL.put_ef_setting, values)
                if entry is not None:
                    await audit.write(connection, collection_id, entry)
        except ForeignKeyViolation as error:
            raise CollectionNotFound from error

    async def curve(self, version: EmbedderVersion) -> CalibrationCurve | None:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL.curve, _key(version))).fetchone()
        return None if row is None or row[0] is None else json_records.curve_from_json(row[0])

    async def put_curve(self, version: EmbedderVersion, curve: CalibrationCurve) -> None:
        async with self._pool.connection() as connection:
            kept = await connection.execute(
                SQL.put_curve, {**_key(version), "curve": json_records.curve_to_json(curve)}
            )
        if not kept.rowcount:
            raise VersionNotFound(f"The embedder version {version.number} is gone.")


# ---------------------------------------------------------------- rows


def _columns(minutes: Sequence[RecallMinute]) -> dict[str, list[Any]]:
    """One array for each column."""
    series, stats_by_ef_search = [minute.series for minute in minutes], [minute.stats for minute in minutes]
    return {
        "versions": [one.version for one in series],
        "legs": [one.leg for one in series],
        "plans": [one.plan for one in series],
        "bands": [one.band for one in series],
        "ef_searches": [one.ef_search for one in series],
        "minutes": [minute.at for minute in minutes],
        "queries": [one.queries for one in stats_by_ef_search],
        "recalls": [one.recall for one in stats_by_ef_search],
        "recall_squares": [one.recall_squares for one in stats_by_ef_search],
        "distance_recalls": [one.distance_recall for one in stats_by_ef_search],
        "seconds": [one.seconds for one in stats_by_ef_search],
    }


def _minute(
    version: int,
    leg: Any,
    plan: str,
    band: Any,
    ef_search: int,
    at: datetime,
    queries: int,
    recall: float,
    recall_squares: float,
    distance_recall: float,
    seconds: float,
) -> RecallMinute:
    """The columns in the order in which the query gives them."""
    return RecallMinute(
        series=RecallSeries(version=VersionNumber(version), leg=leg, plan=plan, band=band, ef_search=ef_search),
        at=at,
        stats=RecallStats(
            queries=queries,
            recall=recall,
            recall_squares=recall_squares,
            distance_recall=distance_recall,
            seconds=seconds,
        ),
    )


def _key(version: EmbedderVersion) -> dict[str, int]:
    return {"collection_id": version.collection_id, "number": version.number}
