"""The recall controller: when an index is calibrated, how probes then move `ef_search`, and what is recorded."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from service.core.errors import ModelUnavailable
from service.core.ids import VersionNumber
from service.core.index_health import IndexHealth
from service.core.periodic import Clock
from service.core.recall import Band, CalibrationCurve, EfSetting, RecallMinute, RecallSeries
from service.core.versions import AuditEntry, Judgments, SpaceStatus, VersionState
from service.recall import ef_policy
from service.recall.calibration_curve import CurveMeasurer
from service.recall.controller import RecallController
from service.runtime.db_gauges import DatabaseGauges, KnownCollections
from service.spaces.resolver import Space
from tests.fakes import FakeBackfills, FakeIndexes
from tests.unit.recall.test_ef_policy import curve, stats
from tests.world import NOW, World, build, doc

LOWS = {60: 0.88, 75: 0.91, 116: 0.94, 146: 0.955, 182: 0.965, 1_000: 0.985}
ROWS = 50_000


class FakeCurves(CurveMeasurer):
    """Measures what a test says. `lows`: the lower bound of each `ef_search`. `times`: how often it measured."""

    def __init__(self) -> None:
        self.lows: Mapping[int, float] = LOWS
        self.broken, self.times = False, 0

    async def measure(
        self, space: Space, health: IndexHealth, judgments: Judgments | None, live: Sequence[str], now: Clock
    ) -> CalibrationCurve | None:
        if self.broken:
            raise ModelUnavailable
        self.times += 1
        assert health.index is not None
        return dataclasses.replace(
            curve(self.lows),
            rows=space.status.rows,
            measured_at=now(),
            target=space.collection.settings.recall_target,
            build=health.index.build,
            written=health.written,
            dead=health.dead_share,
        )


class Scene:
    """One collection with an index, and who controls it. Time goes on with each turn."""

    def __init__(self, world: World) -> None:
        assert world.fake is not None
        self.world = world
        self.versions = world.fake.versions
        self.indexes = FakeIndexes(self.versions)
        self.curves = FakeCurves()
        self.now = NOW
        self.recall_controller = RecallController(
            collections=world.collections,
            versions=world.versions,
            queue=world.queue,
            recalls=world.recalls,
            indexes=self.indexes,
            audit=world.audit,
            test_sets=world.test_sets,
            curve_measurer=self.curves,
            live_texts=lambda _: (),
            exact_below=7_500,
        )
        self.gauges = DatabaseGauges(
            known=KnownCollections(world.collections),
            versions=world.versions,
            queue=world.queue,
            backfills=FakeBackfills(world.fake),
            recalls=world.recalls,
            indexes=self.indexes,
        )
        self.set_index(ROWS)

    def set_index(self, rows: int, written: int = ROWS, dead: int = 0, indexed: bool = True, number: int = 1) -> None:
        key = (self.world.collection.id, VersionNumber(number))
        self.versions.statuses[key] = SpaceStatus(rows=rows, indexed=indexed, chunks_per_document=1.0)
        self.indexes.healths[key] = IndexHealth(
            rows=rows,
            dead_rows=dead,
            unindexed_rows=0,
            written=written,
            index=None,
            indexable=True,
            table_bytes=1,
            cache_bytes=2**30,
        )

    async def adjust(self, minutes: float = 1) -> None:
        self.now += timedelta(minutes=minutes)
        await self.recall_controller.adjust_all(lambda: self.now)

    async def adjusted(self, minutes: float = 1) -> int:
        """The `ef_search` of unfiltered searches afterwards."""
        await self.adjust(minutes)
        return await self.ef_search()

    async def set_target(self, target: float) -> None:
        collection = await self.world.collections.get(self.world.collection.id)
        await self.world.collections.update(collection, dataclasses.replace(collection.settings, recall_target=target))

    async def add_probes(self, ef_search: int, recall: float, queries: int = 1_000, band: Band = "all") -> None:
        """Right now, by live searches."""
        series = RecallSeries(version=VersionNumber(1), leg="dense", plan="hnsw", band=band, ef_search=ef_search)
        found = RecallMinute(series=series, at=self.now, stats=stats(recall, queries))
        await self.world.recalls.add(self.world.collection.id, [found])

    async def ef_settings(self) -> dict[str, EfSetting]:
        return {one.band: one for one in await self.world.recalls.ef_settings(self.world.collection.id)}

    async def ef_search(self, band: str = "all") -> int:
        return (await self.ef_settings())[band].ef_search

    async def audit_trail(self) -> list[AuditEntry]:
        """The newest first."""
        entries = await self.world.audit.page(self.world.collection.id, None, 100)
        return [entry for entry in entries if entry.action == "effort"]

    async def metric(self, name: str) -> float | None:
        collection = await self.world.collections.get(self.world.collection.id)
        await self.gauges.refresh(lambda: self.now)
        version = {} if name == "recall_target" else {"version": "1"}
        return REGISTRY.get_sample_value(f"azimuth_{name}", {"collection": collection.name, **version})


@pytest.fixture
async def scene() -> Scene:
    return Scene(await build(None))


@pytest.fixture
async def calibrated(scene: Scene) -> Scene:
    """A minute after its calibration."""
    await scene.adjust()
    await scene.adjust()
    return scene


async def test_an_index_is_calibrated_when_it_is_there_and_once(scene: Scene) -> None:
    scene.set_index(5_000, indexed=False)
    await scene.adjust()
    assert (scene.curves.times, await scene.ef_settings()) == (0, {})
    scene.set_index(ROWS)
    assert await scene.adjusted() == 146
    assert (await scene.world.versions.status(scene.world.version)).ef_settings == {"all": 146}
    (entry,) = await scene.audit_trail()
    assert (entry.actor, entry.version) == ("azimuth", 1)
    assert entry.details == {"band": "all", "ef_search": 146, "before": None, "target": 0.95, "missed": False}
    assert "ef_search 146 finds 0.9650 [0.9550, 1.0000]" in entry.note
    for _ in range(3):
        await scene.adjust()
    assert (scene.curves.times, len(await scene.audit_trail())) == (1, 1)


@pytest.mark.parametrize(
    "index",
    [
        {"rows": round(1.3 * ROWS)},
        {"rows": round(0.7 * ROWS)},
        {"rows": ROWS, "written": round(1.3 * ROWS)},
        {"rows": ROWS, "written": round(0.3 * ROWS)},
        {"rows": ROWS, "dead": ROWS // 5},
    ],
)
async def test_it_is_calibrated_again_when_a_quarter_changed_or_died(scene: Scene, index: dict[str, Any]) -> None:
    await scene.adjust()
    scene.set_index(round(1.1 * ROWS), written=round(1.1 * ROWS), dead=ROWS // 20)
    await scene.adjust()
    assert scene.curves.times == 1
    scene.set_index(**index)
    scene.curves.lows = {182: 0.94, 227: 0.955, 1_000: 0.98}
    await scene.adjust()
    assert (scene.curves.times, await scene.ef_search()) == (2, 227)
    assert [entry.details["before"] for entry in await scene.audit_trail()] == [146, None]


async def test_another_build_is_calibrated_and_an_equal_result_is_no_change(scene: Scene) -> None:
    await scene.adjust()
    await scene.indexes.rebuild(scene.world.version)
    await scene.adjust()
    assert (scene.curves.times, len(await scene.audit_trail())) == (2, 1)


async def test_not_in_the_middle_of_a_bulk_load(scene: Scene) -> None:
    scene.set_index(50)
    await scene.world.put(*(doc(f"d{number}") for number in range(6)))
    await scene.adjust()
    assert scene.curves.times == 0
    await scene.world.drain()
    await scene.adjust()
    assert scene.curves.times == 1


async def test_one_process_at_a_time(scene: Scene) -> None:
    async with scene.indexes.ef_search_lock(scene.world.version):
        await scene.adjust()
    assert await scene.ef_settings() == {}
    await scene.adjust()
    async with scene.indexes.ef_search_lock(scene.world.version):
        await scene.add_probes(146, 0.9)
        assert await scene.adjusted() == 146


async def test_a_version_is_calibrated_before_it_is_judged(scene: Scene) -> None:
    second = await scene.world.add_version(2, VersionState.VERIFYING)
    for written in (ROWS, ROWS, 10 * ROWS):  # who promotes is not kept waiting because much was written since
        scene.set_index(ROWS, written=written, number=2)
        await scene.recall_controller.prepare(scene.world.collection, second, lambda: NOW)
        settings = (await scene.world.versions.status(second)).ef_settings
        assert (scene.curves.times, settings) == (1, {"all": 146})


async def test_without_a_model_it_stays_as_it_is_and_comes_later(scene: Scene) -> None:
    scene.curves.broken = True
    await scene.adjust()
    assert await scene.ef_settings() == {}
    scene.curves.broken = False
    assert await scene.adjusted() == 146


async def test_another_target_is_acted_on_at_once_and_measured_after(scene: Scene) -> None:
    await scene.adjust()
    scene.curves.broken = True
    await scene.set_target(0.90)
    assert await scene.adjusted() == 75
    scene.curves.broken = False
    scene.curves.lows = {60: 0.905, 75: 0.92, 1_000: 0.99}
    assert await scene.adjusted() == 60
    assert [entry.details["target"] for entry in await scene.audit_trail()] == [0.90, 0.90, 0.95]


async def test_probes_move_it_a_step_and_each_move_is_recorded_with_its_reason(calibrated: Scene) -> None:
    await calibrated.add_probes(146, 0.92)
    assert await calibrated.adjusted() == 182
    newest = (await calibrated.audit_trail())[0]
    assert re.match(r"ef_search 146 found 0\.9200 .*: misses the target 0\.95$", newest.note)
    assert newest.details["before"] == 146
    await calibrated.adjust()
    await calibrated.add_probes(182, 0.97)
    await calibrated.add_probes(146, 0.97)
    assert await calibrated.adjusted() == 182  # 146 missed a moment ago


async def test_a_step_less_is_taken_where_it_holds(calibrated: Scene) -> None:
    await calibrated.add_probes(116, 0.97)
    assert await calibrated.adjusted() == 116


async def test_sums_that_grow_later_are_seen(calibrated: Scene) -> None:
    await calibrated.add_probes(146, 0.92, queries=50)
    assert await calibrated.adjusted(0.1) == 146
    calibrated.now -= timedelta(minutes=0.1)
    await calibrated.add_probes(146, 0.92)
    assert await calibrated.adjusted(0.2) == 182


async def test_a_band_gets_an_ef_search_of_its_own_where_it_misses_and_keeps_its_distance(calibrated: Scene) -> None:
    await calibrated.add_probes(450, 0.90, band="wide")
    await calibrated.adjust()
    assert (await calibrated.ef_search(), await calibrated.ef_search("wide")) == (146, 182)
    assert (await calibrated.world.versions.status(calibrated.world.version)).ef_settings == {"all": 146, "wide": 182}
    calibrated.curves.lows = {227: 0.96, 1_000: 0.99}
    await calibrated.indexes.rebuild(calibrated.world.version)
    await calibrated.adjust()
    assert (await calibrated.ef_search(), await calibrated.ef_search("wide")) == (227, ef_policy.next_step(227))


async def test_a_missed_target_is_reported(scene: Scene) -> None:
    scene.curves.lows = {60: 0.5, 1_000: 0.9}
    await scene.adjust()
    (entry,) = await scene.audit_trail()
    assert entry.details["missed"] is True
    metrics = [await scene.metric(name) for name in ("recall_target_missed", "ef_search", "recall_target")]
    assert metrics == [1, 1_000, 0.95]
    _, advice = await scene.recall_controller.health(scene.world.collection, scene.world.version)
    assert advice[0].verdict == "broken"
    await scene.adjust()
    await scene.add_probes(1_000, 0.97)
    await scene.adjust()
    assert (await scene.ef_settings())["all"].missed is False
    assert await scene.metric("recall_target_missed") == 0


async def test_the_state_of_the_index_is_exported(scene: Scene) -> None:
    scene.set_index(ROWS, dead=123)
    await scene.adjust()
    metrics = [await scene.metric(name) for name in ("dead_rows", "index_bytes", "ef_search")]
    assert metrics == [123, 8_192, 146]
