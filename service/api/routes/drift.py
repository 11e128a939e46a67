"""Whether a collection is still asked what it holds, and what it was asked before."""

from fastapi import APIRouter
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import JsonRoute
from service.api.dependencies import Here
from service.api.problems import documented
from service.api.schemas import answers, requests
from service.core.collections import Collection
from service.core.ids import CollectionName
from service.core.verdict import Verdict
from service.drift.assess import Against, DriftMeasure, Name
from service.drift.monitor import DriftMinute as Minute
from service.drift.monitor import DriftReport

router = APIRouter(prefix="/v1/collections/{collection}", tags=["truth"], route_class=JsonRoute)


class DriftMeasureAnswer(TypedDict):
    name: Name
    against: Against
    """What the latest queries are compared with."""
    value: float | None
    """Null where it cannot be told; `says` has the reason."""
    low: float | None
    """Of the 95 % interval."""
    high: float | None
    p: float | None
    """How probable so large a difference from earlier queries is by chance."""
    verdict: Verdict | None
    """Null also where there is no limit to judge by."""
    says: str
    do: str


class DriftMinuteAnswer(TypedDict):
    """The measures as they stood in that minute; null where one could not be told."""

    minute: str
    queries: int
    out_of_domain: float | None
    unknown_words: float | None
    corpus_distance: float | None
    centroid_shift: float | None
    mmd: float | None
    top_score: float | None
    best_cosine: float | None
    """The median over the latest queries."""


class DriftAnswer(TypedDict):
    collection: str
    version: int
    queries: int
    """The latest that are compared."""
    reference_queries: int
    """Earlier ones that they are compared with."""
    seen_queries: int
    """All that this process answered since it runs, and that count."""
    measured_at: str | None
    verdict: Verdict | None
    """The worst of all measures."""
    measures: list[DriftMeasureAnswer]
    """Empty before 50 queries were answered."""
    history: list[DriftMinuteAnswer]
    """Minutes in which something was asked, oldest first."""


@router.get(
    "/drift",
    summary="What live queries have become",
    response_model=DriftAnswer,
    responses=documented(401, 404, 422, 503),
)
async def drift(service: Here, collection: requests.Name) -> Response:
    """As of the last look, at most half a minute ago where something is asked. Of this process, and since it runs."""
    found = await service.collections.by_name(CollectionName(collection))
    return answers.Json(_shown(found, service.drift_monitor.report(found)))


def _shown(collection: Collection, report: DriftReport) -> DriftAnswer:
    reading = report.reading
    return {
        "collection": collection.name,
        "version": collection.active_version,
        "queries": report.queries,
        "reference_queries": report.earlier,
        "seen_queries": report.seen,
        "measured_at": None if report.measured_at is None else report.measured_at.isoformat(),
        "verdict": None if reading is None else reading.verdict,
        "measures": [] if reading is None else [_measure(one) for one in reading.measures],
        "history": [_minute(one) for one in report.history],
    }


def _measure(measure: DriftMeasure) -> DriftMeasureAnswer:
    gap = measure.gap
    return {
        "name": measure.name,
        "against": measure.against,
        "value": None if gap is None else round(gap.value, 4),
        "low": None if gap is None else round(gap.low, 4),
        "high": None if gap is None else round(gap.high, 4),
        "p": None if gap is None or gap.p is None else round(gap.p, 6),
        "verdict": measure.verdict,
        "says": measure.says,
        "do": measure.do,
    }


def _minute(minute: Minute) -> DriftMinuteAnswer:
    def value(name: Name) -> float | None:
        return _rounded(minute.values[name])

    return {
        "minute": minute.at.isoformat(),
        "queries": minute.queries,
        "out_of_domain": value("out_of_domain"),
        "unknown_words": value("unknown_words"),
        "corpus_distance": value("corpus_distance"),
        "centroid_shift": value("centroid_shift"),
        "mmd": value("mmd"),
        "top_score": value("top_score"),
        "best_cosine": _rounded(minute.best_cosine),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
