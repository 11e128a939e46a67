"""Recall of live searches, measured by running samples of them again exactly."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Annotated

from fastapi import Query
from pydantic import Field
from typing_extensions import TypedDict

from service.api.dependencies import CollectionDep, ServiceDep
from service.api.routing import collection_router
from service.api.schemas.base import QueryParameters, select_fields
from service.core.periodic import utc_now
from service.core.recall import Band, CurvePoint, K, RecallMinute, RecallSeries, RecallStats, SeriesLeg, merge_minutes
from service.recall.aggregate import RETENTION

MAX_HOURS = round(RETENTION / timedelta(hours=1))
MAX_HISTORY_POINTS = 288
"""Of one series in the history: minutes of longer times are merged."""
MAX_EF_SETTINGS = 24
"""Most `ef_search` of one plan and band that are shown apart: as many as there are steps to choose from."""

router = collection_router("/recall", "recall")


class RecallQuery(QueryParameters):
    hours: Annotated[int, Field(ge=1, le=MAX_HOURS, description="How far to look back.")] = 24


class SeriesFields(TypedDict):
    leg: SeriesLeg
    plan: str
    band: Band
    """How much the filter let pass: `all` (no filter), `wide` (a tenth and more), `medium`, `narrow` (below 1 %)."""
    ef_search: int
    """0: the plan has none, or there are too many to show them apart."""
    queries: int
    recall: float


class SeriesAnswer(SeriesFields):
    low: float
    """Of the 95 % interval."""
    high: float
    distance_recall: float
    """Hits that are as near as the true k-th one count as found, whichever they are."""


class EffortAnswer(TypedDict):
    band: Band
    ef_search: int
    missed: bool
    """Not even the largest `ef_search` reaches the target."""
    reason: str
    changed_at: datetime


class CurveAnswer(TypedDict):
    points: Sequence[CurvePoint]
    queries: int
    rows: int
    measured_at: datetime
    exact_milliseconds: float


class MomentAnswer(SeriesFields):
    minute: datetime
    """The first of those that are merged."""


class VersionRecallAnswer(TypedDict):
    version: int
    active: bool
    series: list[SeriesAnswer]
    efforts: list[EffortAnswer]
    curve: CurveAnswer | None
    history: list[MomentAnswer]


class RecallAnswer(TypedDict):
    collection: str
    k: int
    target: float
    versions: list[VersionRecallAnswer]


@router.get("", summary="Measured recall of live searches")
async def get(service: ServiceDep, collection: CollectionDep, query: Annotated[RecallQuery, Query()]) -> RecallAnswer:
    """Live searches are run again exactly; what ran exactly has recall 1. Newest version first."""
    since = utc_now() - timedelta(hours=query.hours)
    minutes = await service.recalls.since(collection.id, since, math.ceil(60 * query.hours / MAX_HISTORY_POINTS))
    settings = await service.recalls.ef_settings(collection.id)
    measured = {minute.series.version for minute in minutes}
    versions: list[VersionRecallAnswer] = []
    for version in reversed(await service.versions.of(collection.id)):
        if version.written or version.number in measured:
            own = _merge_numerous_settings([minute for minute in minutes if minute.series.version == version.number])
            curve = await service.recalls.curve(version)
            versions.append(
                {
                    "version": version.number,
                    "active": version.number == collection.active_version,
                    "series": _series_answers(own),
                    "efforts": [select_fields(EffortAnswer, one) for one in settings if one.version == version.number],
                    "curve": None if curve is None else select_fields(CurveAnswer, curve),
                    "history": [{"minute": minute.at, **_series_fields(minute.series, minute.stats)} for minute in own],
                }
            )
    return {"collection": collection.name, "k": K, "target": collection.settings.recall_target, "versions": versions}


def _merge_numerous_settings(minutes: Sequence[RecallMinute]) -> tuple[RecallMinute, ...]:
    """Merge series that differ in `ef_search` alone where they are many: each selectivity of a filter has its own."""
    settings: dict[RecallSeries, set[int]] = {}
    for minute in minutes:
        settings.setdefault(replace(minute.series, ef_search=0), set()).add(minute.series.ef_search)
    numerous = {series for series, known in settings.items() if len(known) > MAX_EF_SETTINGS}
    return merge_minutes(
        replace(minute, series=merged) if (merged := replace(minute.series, ef_search=0)) in numerous else minute
        for minute in minutes
    )


def _series_answers(minutes: Sequence[RecallMinute]) -> list[SeriesAnswer]:
    sums: dict[RecallSeries, RecallStats] = {}
    for minute in minutes:
        sums[minute.series] = sums.get(minute.series, RecallStats()) + minute.stats
    return [
        {
            **_series_fields(series, stats),
            "low": stats.interval[0],
            "high": stats.interval[1],
            "distance_recall": stats.distance_recall / stats.queries,
        }
        for series, stats in sorted(sums.items(), key=itemgetter(0))
    ]


def _series_fields(series: RecallSeries, stats: RecallStats) -> SeriesFields:
    return {
        "leg": series.leg,
        "plan": series.plan,
        "band": series.band,
        "ef_search": series.ef_search,
        "queries": stats.queries,
        "recall": stats.mean,
    }
