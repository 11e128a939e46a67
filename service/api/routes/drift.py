"""How the live queries of a collection compare with its documents and with earlier queries."""

from datetime import datetime
from typing import Any, cast

from typing_extensions import TypedDict

from service.api.dependencies import CollectionDep, ServiceDep
from service.api.routing import collection_router
from service.core.collections import Collection
from service.core.verdict import Verdict
from service.drift.assess import DriftMeasure, DriftMeasureName, DriftReference
from service.drift.monitor import DriftMinute, DriftReport

router = collection_router("", "truth")


class DriftMeasureAnswer(TypedDict):
    name: DriftMeasureName
    against: DriftReference
    """What the latest queries are compared with."""
    value: float | None
    """Null where it is not known; `says` has the reason."""
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
    """The measures at the end of that minute; null where one is not known."""

    minute: datetime
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
    """The latest ones, which are compared."""
    reference_queries: int
    """Earlier ones, which they are compared with."""
    seen_queries: int
    """All that this process has answered since its start, and that count."""
    measured_at: datetime | None
    verdict: Verdict | None
    """The worst of all measures."""
    measures: list[DriftMeasureAnswer]
    """Empty before 50 queries were answered."""
    history: list[DriftMinuteAnswer]
    """Minutes with queries, oldest first."""


@router.get("/drift", summary="Drift of the live queries")
async def drift(service: ServiceDep, collection: CollectionDep) -> DriftAnswer:
    """As measured last, at most half a minute ago where there are queries. Of this process, and since its start."""
    return _answer(collection, service.drift_monitor.report(collection))


def _answer(collection: Collection, report: DriftReport) -> DriftAnswer:
    assessment = report.assessment
    return {
        "collection": collection.name,
        "version": collection.active_version,
        "queries": report.queries,
        "reference_queries": report.earlier,
        "seen_queries": report.seen,
        "measured_at": report.measured_at,
        "verdict": None if assessment is None else assessment.verdict,
        "measures": [] if assessment is None else [_measure(one) for one in assessment.measures],
        "history": [_minute(one) for one in report.history],
    }


def _measure(measure: DriftMeasure) -> DriftMeasureAnswer:
    estimate = measure.estimate
    return {
        "name": measure.name,
        "against": measure.reference,
        "value": None if estimate is None else round(estimate.value, 4),
        "low": None if estimate is None else round(estimate.low, 4),
        "high": None if estimate is None else round(estimate.high, 4),
        "p": None if estimate is None or estimate.p_value is None else round(estimate.p_value, 6),
        "verdict": measure.verdict,
        "says": measure.message,
        "do": measure.advice,
    }


def _minute(minute: DriftMinute) -> DriftMinuteAnswer:
    values = [*minute.values.items(), ("best_cosine", minute.best_cosine)]
    answer: Any = {"minute": minute.at, "queries": minute.queries}
    answer |= {name: None if value is None else round(value, 4) for name, value in values}
    return cast(DriftMinuteAnswer, answer)
