"""Recall over HTTP: what was measured, by version and series, as far back as is asked for."""

import itertools
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from service.api.routes.recall import MAX_EF_SETTINGS, MAX_HISTORY_POINTS, MAX_HOURS
from service.core.ids import CollectionName, VersionNumber
from service.core.recall import CalibrationCurve, CurvePoint, RecallMinute, RecallSeries, RecallStats
from tests.edge import Edge, api_fixture, assert_problem

ONE = VersionNumber(1)
HNSW = RecallSeries(version=ONE, leg="dense", plan="hnsw", band="all", ef_search=120)
WORDS = RecallSeries(version=ONE, leg="lexical", plan="bm25", band="all", ef_search=0)
PATH = "/v1/collections/papers/recall"


def found(recall: float, queries: int = 1) -> RecallStats:
    return sum((RecallStats.of_one(recall, 1.0, 0.001) for _ in range(queries)), RecallStats())


api = api_fixture(settings={"recall_target": 0.9})


async def add(api: Edge, *minutes: RecallMinute) -> None:
    collection = await api.service.collections.by_name(CollectionName("papers"))
    await api.service.recalls.add(collection.id, minutes)


def ago(**time: float) -> datetime:
    return (datetime.now(UTC) - timedelta(**time)).replace(second=0, microsecond=0)


async def test_a_new_collection_has_no_recall(api: Edge) -> None:
    assert await api.get(PATH) == {
        "collection": "papers",
        "k": 10,
        "target": 0.9,
        "versions": [{"version": 1, "active": True, "series": [], "efforts": [], "curve": None, "history": []}],
    }


async def test_series_are_means_with_their_intervals_over_the_hours(api: Edge) -> None:
    minutes = [
        RecallMinute(series=HNSW, at=ago(minutes=5), stats=found(1.0, 60)),
        RecallMinute(series=HNSW, at=ago(minutes=6), stats=found(0.5, 20)),
        RecallMinute(series=WORDS, at=ago(minutes=6), stats=found(1.0)),
        RecallMinute(series=HNSW, at=ago(hours=3), stats=found(0.0, 100)),
    ]
    await add(api, *minutes)
    (version,) = (await api.get(PATH, hours=2))["versions"]
    dense, lexical = version["series"]
    low, high = (minutes[0].stats + minutes[1].stats).interval
    assert dense == {
        "leg": "dense",
        "plan": "hnsw",
        "band": "all",
        "ef_search": 120,
        "queries": 80,
        "recall": pytest.approx(0.875),
        "low": pytest.approx(low),
        "high": pytest.approx(high),
        "distance_recall": pytest.approx(1.0),
    }
    assert low < 0.875 < high
    assert (lexical["leg"], lexical["ef_search"], lexical["queries"]) == ("lexical", 0, 1)
    history = [(one["leg"], one["queries"], one["recall"]) for one in version["history"]]
    assert history == [("dense", 20, pytest.approx(0.5)), ("lexical", 1, 1.0), ("dense", 60, 1.0)]
    (version,) = (await api.get(PATH))["versions"]
    assert version["series"][0]["queries"] == 180


async def test_a_long_history_is_merged_without_loss(api: Edge) -> None:
    hours = 48
    await add(api, *(RecallMinute(series=HNSW, at=ago(minutes=at), stats=found(1.0)) for at in range(1, 60 * hours)))
    (version,) = (await api.get(PATH, hours=hours))["versions"]
    history = version["history"]
    assert len(history) <= MAX_HISTORY_POINTS + 1
    assert sum(one["queries"] for one in history) == 60 * hours - 1
    moments = [datetime.fromisoformat(one["minute"]) for one in history]
    assert moments == sorted(moments)
    step = timedelta(minutes=math.ceil(60 * hours / MAX_HISTORY_POINTS))
    assert {after - before for before, after in itertools.pairwise(moments)} == {step}


async def test_numerous_ef_settings_are_merged(api: Edge) -> None:
    filtered = [replace(HNSW, band="wide", ef_search=200 + number) for number in range(MAX_EF_SETTINGS + 1)]
    await add(api, *(RecallMinute(series=one, at=ago(minutes=5), stats=found(0.9)) for one in (HNSW, *filtered[1:])))
    (version,) = (await api.get(PATH))["versions"]
    assert len(version["series"]) == len(version["history"]) == 1 + MAX_EF_SETTINGS
    await add(api, RecallMinute(series=filtered[0], at=ago(minutes=5), stats=found(0.9)))
    (version,) = (await api.get(PATH))["versions"]
    told = [(one["band"], one["ef_search"], one["queries"]) for one in version["series"]]
    assert told == [("all", 120, 1), ("wide", 0, MAX_EF_SETTINGS + 1)]
    assert [(one["band"], one["queries"]) for one in version["history"]] == [("all", 1), ("wide", MAX_EF_SETTINGS + 1)]


async def test_the_curve_of_a_version_is_shown(api: Edge) -> None:
    collection = await api.service.collections.by_name(CollectionName("papers"))
    (version,) = await api.service.versions.of(collection.id)
    point = CurvePoint(ef_search=40, recall=0.9, low=0.88, high=0.92, milliseconds=1.25)
    curve = CalibrationCurve(
        points=(point,), queries=200, rows=1_000, measured_at=ago(hours=1), exact_milliseconds=30.0
    )
    await api.service.recalls.put_curve(version, curve)
    (told,) = (await api.get(PATH))["versions"]
    assert told["curve"] == {
        "points": [{"ef_search": 40, "recall": 0.9, "low": 0.88, "high": 0.92, "milliseconds": 1.25}],
        "queries": 200,
        "rows": 1_000,
        "measured_at": curve.measured_at.isoformat(),
        "exact_milliseconds": 30.0,
    }


async def test_versions_stand_newest_first(api: Edge) -> None:
    await api.ready(embedder={"model": "hashing:16"})
    versions = (await api.get(PATH))["versions"]
    assert [(one["version"], one["active"]) for one in versions] == [(2, False), (1, True)]


@pytest.mark.parametrize("hours", ["0", "-1", str(MAX_HOURS + 1), "many", "1.5", "", "9" * 40])
async def test_invalid_hours_are_refused(api: Edge, hours: str) -> None:
    assert_problem(await api.client.get(PATH, params={"hours": hours}), 422, "hours")
