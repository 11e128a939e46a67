"""How much of what there is to be found searches find, as it was measured on live ones."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.dependencies import Here
from service.api.problems import documented
from service.api.schemas import answers, requests
from service.core.ids import CollectionName
from service.core.recall import (
    Band,
    CalibrationCurve,
    EfSetting,
    K,
    RecallMinute,
    RecallSeries,
    RecallStats,
    SeriesLeg,
    merge_minutes,
)
from service.recall.aggregate import RETENTION

MAX_HOURS = round(RETENTION / timedelta(hours=1))
MOST_MOMENTS = 288
"""Of one series in the history: minutes of longer times are taken together."""
MOST_EFFORTS = 24
"""Of one plan and band that are told one by one: as many as rungs of the ladder that they are chosen from."""

router = APIRouter(prefix="/v1/collections/{collection}/recall", tags=["recall"])


class RecallQuery(requests.QueryParameters):
    hours: Annotated[int, Field(ge=1, le=MAX_HOURS, description="How far to look back.")] = 24


class SeriesAnswer(TypedDict):
    leg: SeriesLeg
    plan: str
    band: Band
    """How much the filter let pass: `all` (no filter), `wide` (a tenth and more), `medium`, `narrow` (below 1 %)."""
    ef_search: int
    """0: the plan has none, or there are more than can be told apart."""
    queries: int
    recall: float
    low: float
    """Of the 95 % interval."""
    high: float
    distance_recall: float
    """Finds as near as the k-th true one count as good, whichever they are."""


class EffortAnswer(TypedDict):
    band: Band
    ef_search: int
    missed: bool
    """Not even the largest `ef_search` holds the target."""
    reason: str
    changed_at: str


class CurvePointAnswer(TypedDict):
    ef_search: int
    recall: float
    low: float
    high: float
    milliseconds: float


class CurveAnswer(TypedDict):
    points: list[CurvePointAnswer]
    queries: int
    rows: int
    measured_at: str
    exact_milliseconds: float


class MomentAnswer(TypedDict):
    minute: str
    """The first of those that are taken together."""
    leg: SeriesLeg
    plan: str
    band: Band
    ef_search: int
    queries: int
    recall: float


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


@router.get(
    "",
    summary="Recall of live searches, measured",
    response_model=RecallAnswer,
    responses=documented(401, 404, 422, 503),
)
async def get(service: Here, collection: requests.Name, query: Annotated[RecallQuery, Query()]) -> Response:
    """Live searches are run again exactly; what ran exactly has recall 1. Newest version first."""
    found = await service.collections.by_name(CollectionName(collection))
    since = datetime.now(UTC) - timedelta(hours=query.hours)
    minutes = await service.recalls.since(found.id, since, math.ceil(60 * query.hours / MOST_MOMENTS))
    efforts = await service.recalls.ef_settings(found.id)
    measured = {minute.series.version for minute in minutes}
    versions: list[VersionRecallAnswer] = []
    for one in reversed(await service.versions.of(found.id)):
        if one.written or one.number in measured:
            own = _few([minute for minute in minutes if minute.series.version == one.number])
            versions.append(
                {
                    "version": one.number,
                    "active": one.number == found.active_version,
                    "series": [_series(series, stats) for series, stats in _summed(own)],
                    "efforts": [_effort(effort) for effort in efforts if effort.version == one.number],
                    "curve": _curve(await service.recalls.curve(one)),
                    "history": [_moment(minute) for minute in own],
                }
            )
    return answers.Json(
        {"collection": found.name, "k": K, "target": found.settings.recall_target, "versions": versions}
    )


def _few(minutes: Sequence[RecallMinute]) -> tuple[RecallMinute, ...]:
    """Series of too many efforts to be told apart as one: each share that passes a filter has an effort of its own."""
    efforts: dict[RecallSeries, set[int]] = {}
    for minute in minutes:
        efforts.setdefault(_alike(minute.series), set()).add(minute.series.ef_search)
    many = {series for series, known in efforts.items() if len(known) > MOST_EFFORTS}
    return merge_minutes(
        dataclasses.replace(minute, series=alike) if (alike := _alike(minute.series)) in many else minute
        for minute in minutes
    )


def _alike(series: RecallSeries) -> RecallSeries:
    return dataclasses.replace(series, ef_search=0)


def _summed(minutes: Iterable[RecallMinute]) -> list[tuple[RecallSeries, RecallStats]]:
    sums: dict[RecallSeries, RecallStats] = {}
    for minute in minutes:
        sums[minute.series] = sums.get(minute.series, RecallStats()) + minute.stats
    return sorted(sums.items(), key=itemgetter(0))


def _series(of: RecallSeries, stats: RecallStats) -> SeriesAnswer:
    low, high = stats.interval
    return {
        "leg": of.leg,
        "plan": of.plan,
        "band": of.band,
        "ef_search": of.ef_search,
        "queries": stats.queries,
        "recall": stats.mean,
        "low": low,
        "high": high,
        "distance_recall": stats.distance_recall / stats.queries,
    }


def _effort(effort: EfSetting) -> EffortAnswer:
    return {
        "band": effort.band,
        "ef_search": effort.ef_search,
        "missed": effort.missed,
        "reason": effort.reason,
        "changed_at": effort.changed_at.isoformat(),
    }


def _curve(curve: CalibrationCurve | None) -> CurveAnswer | None:
    if curve is None:
        return None
    return {
        "points": [
            {
                "ef_search": point.ef_search,
                "recall": point.recall,
                "low": point.low,
                "high": point.high,
                "milliseconds": point.milliseconds,
            }
            for point in curve.points
        ],
        "queries": curve.queries,
        "rows": curve.rows,
        "measured_at": curve.measured_at.isoformat(),
        "exact_milliseconds": curve.exact_milliseconds,
    }


def _moment(minute: RecallMinute) -> MomentAnswer:
    of, stats = minute.series, minute.stats
    return {
        "minute": minute.at.isoformat(),
        "leg": of.leg,
        "plan": of.plan,
        "band": of.band,
        "ef_search": of.ef_search,
        "queries": stats.queries,
        "recall": stats.mean,
    }
