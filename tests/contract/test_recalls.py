"""The contract of the port `RecallStore`, for the fake and for PostgreSQL."""

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from service.core.errors import CollectionNotFound, VersionNotFound
from service.core.ids import VersionNumber
from service.core.recall import Band, CalibrationCurve, CurvePoint, EfSetting, RecallMinute, RecallSeries, RecallStats
from service.core.versions import AuditEntry, VersionState
from tests.world import NOW, World, later

ONE = VersionNumber(1)
DENSE = RecallSeries(version=ONE, leg="dense", plan="hnsw", band="all", ef_search=120)
NARROW = RecallSeries(version=ONE, leg="dense", plan="hnsw_iterative", band="narrow", ef_search=1000)
LEXICAL = RecallSeries(version=ONE, leg="lexical", plan="bm25", band="all", ef_search=0)
STATS = RecallStats(queries=3, recall=2.75, recall_squares=2.5625, distance_recall=3.0, seconds=0.125)

CURVE = CalibrationCurve(
    points=(
        CurvePoint(ef_search=40, recall=0.875, low=0.75, high=0.9375, milliseconds=1.25),
        CurvePoint(ef_search=80, recall=1.0, low=0.96875, high=1.0, milliseconds=2.0),
    ),
    queries=200,
    rows=100_000,
    measured_at=later(7.5),
    exact_milliseconds=30.0,
    sources={"judged queries": 120, "own chunks": 80},
    target=0.95,
    build=16_384,
    written=120_000,
    dead=0.125,
)


def minute(series: RecallSeries, at: datetime = NOW, stats: RecallStats = STATS) -> RecallMinute:
    return RecallMinute(series=series, at=at, stats=stats)


def ef_setting(band: Band = "all", version: int = 1, **changes: Any) -> EfSetting:
    fields: dict[str, Any] = {"ef_search": 120, "missed": False, "reason": "calibrated", "changed_at": later(1)}
    return EfSetting(version=VersionNumber(version), band=band, target=0.95, **(fields | changes))


async def audit_entries(world: World) -> int:
    return sum(entry.action == "tuned" for entry in await world.audit.page(world.collection.id, None, 100))


async def test_nothing_is_known_at_first(world: World) -> None:
    assert await world.recalls.since(world.collection.id, NOW) == ()
    assert await world.recalls.ef_settings(world.collection.id) == ()
    assert await world.recalls.curve(world.version) is None
    await world.recalls.add(world.collection.id, [])
    assert await world.recalls.delete_before(NOW) == 0


async def test_what_was_measured_is_read_back_oldest_first(world: World) -> None:
    late, early = minute(DENSE, later(60)), minute(LEXICAL)
    await world.recalls.add(world.collection.id, [late, minute(NARROW), early])
    assert await world.recalls.since(world.collection.id, NOW) == (minute(NARROW), early, late)
    assert await world.recalls.since(world.collection.id, later(1)) == (late,)
    assert await world.recalls.since(world.collection.id, later(61)) == ()


async def test_minutes_are_grouped_by_the_first_of_them(world: World) -> None:
    moments = [later(60 * at) for at in (0, 4, 5, 14)]
    await world.recalls.add(world.collection.id, [minute(DENSE, at) for at in moments])
    await world.recalls.add(world.collection.id, [minute(LEXICAL, later(60))])
    assert await world.recalls.since(world.collection.id, NOW, 5) == (
        minute(DENSE, NOW, STATS + STATS),
        minute(LEXICAL, NOW),
        minute(DENSE, later(300)),
        minute(DENSE, later(600)),
    )
    assert await world.recalls.since(world.collection.id, later(240), 5) == (
        minute(DENSE, NOW),
        minute(DENSE, later(300)),
        minute(DENSE, later(600)),
    )


async def test_sums_of_one_minute_are_added_up_by_series(world: World) -> None:
    more = RecallStats(queries=1, recall=0.5, recall_squares=0.25, distance_recall=0.75, seconds=0.5)
    await world.recalls.add(world.collection.id, [minute(DENSE), minute(NARROW), minute(NARROW)])
    await world.recalls.add(world.collection.id, [minute(DENSE, stats=more), minute(DENSE, later(60))])
    found = await world.recalls.since(world.collection.id, NOW)
    narrow = minute(NARROW, stats=STATS + STATS)
    assert found == (minute(DENSE, stats=STATS + more), narrow, minute(DENSE, later(60)))


async def test_processes_that_add_at_once_lose_nothing(world: World) -> None:
    series = [replace(DENSE, ef_search=ef_search) for ef_search in range(20)]
    orders = [[minute(one) for one in (series if at % 2 else reversed(series))] for at in range(8)]
    await asyncio.gather(*(world.recalls.add(world.collection.id, order) for order in orders))
    found = await world.recalls.since(world.collection.id, NOW)
    assert [(one.series, one.stats.queries) for one in found] == [(one, 8 * STATS.queries) for one in series]


async def test_old_minutes_are_deleted_and_counted(world: World) -> None:
    await world.recalls.add(world.collection.id, [minute(DENSE), minute(LEXICAL), minute(DENSE, later(60))])
    assert await world.recalls.delete_before(later(60)) == 2
    assert await world.recalls.since(world.collection.id, NOW) == (minute(DENSE, later(60)),)


async def test_a_setting_replaces_the_former_one(world: World) -> None:
    entry = AuditEntry(at=NOW, actor="azimuth", action="tuned", version=ONE)
    await world.recalls.put_ef_setting(world.collection.id, ef_setting("wide"), entry)
    await world.recalls.put_ef_setting(world.collection.id, ef_setting("all", version=2), entry)
    await world.recalls.put_ef_setting(world.collection.id, ef_setting("all"), entry)
    missed = ef_setting("wide", ef_search=1000, missed=True, reason="not even the largest", changed_at=later(2))
    await world.recalls.put_ef_setting(world.collection.id, missed, entry)
    expected = ef_setting("all"), missed, ef_setting("all", version=2)
    assert await world.recalls.ef_settings(world.collection.id) == expected
    assert await audit_entries(world) == 4


async def test_another_reason_alone_is_not_audited(world: World) -> None:
    await world.recalls.put_ef_setting(world.collection.id, ef_setting(), None)
    assert await world.recalls.ef_settings(world.collection.id) == (ef_setting(),)
    assert await audit_entries(world) == 0


async def test_a_curve_is_read_back_as_it_was_and_replaced(world: World) -> None:
    await world.recalls.put_curve(world.version, CURVE)
    assert await world.recalls.curve(world.version) == CURVE
    newer = replace(CURVE, points=CURVE.points[1:], measured_at=later(100), sources={})
    await world.recalls.put_curve(world.version, newer)
    assert await world.recalls.curve(world.version) == newer
    second = await world.add_version(2, VersionState.READY)
    assert await world.recalls.curve(second) is None


async def test_a_retired_version_takes_no_curve(world: World) -> None:
    second = await world.add_version(2, VersionState.READY)
    await world.versions.retire(second, AuditEntry(at=NOW, actor="azimuth", action="retired", version=second.number))
    with pytest.raises(VersionNotFound):
        await world.recalls.put_curve(second, CURVE)


async def test_all_of_it_goes_with_the_collection(world: World) -> None:
    await world.recalls.add(world.collection.id, [minute(DENSE)])
    await world.recalls.put_ef_setting(world.collection.id, ef_setting(), None)
    await world.recalls.put_curve(world.version, CURVE)
    await world.collections.delete(world.collection.id)
    assert await world.recalls.since(world.collection.id, NOW) == ()
    assert await world.recalls.ef_settings(world.collection.id) == ()
    assert await world.recalls.curve(world.version) is None
    with pytest.raises(CollectionNotFound):
        await world.recalls.add(world.collection.id, [minute(DENSE)])
    with pytest.raises(CollectionNotFound):
        await world.recalls.put_ef_setting(world.collection.id, ef_setting(), None)
    with pytest.raises(VersionNotFound):
        await world.recalls.put_curve(world.version, CURVE)
