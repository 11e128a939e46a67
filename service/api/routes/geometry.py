"""The geometry of a version's space: measures with verdicts, what to do about them, and the data for plots."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query
from pydantic import Field
from typing_extensions import TypedDict

from service.api.dependencies import CollectionDep, ServiceDep
from service.api.routing import collection_router
from service.api.schemas.base import QueryParameters, VersionNumberField
from service.core.verdict import Verdict
from service.diagnostics import thresholds
from service.diagnostics.measure import COSINE_EDGES, GeometryPicture
from service.diagnostics.service import MAX_SAMPLE, MIN_SAMPLE, SAMPLE_SIZE, GeometryReport, Hub

router = collection_router("/geometry", "geometry", 409, 429)


class GeometryQuery(QueryParameters):
    version: Annotated[VersionNumberField | None, Field(description="Default: the active version.")] = None
    sample: Annotated[int, Field(ge=MIN_SAMPLE, le=MAX_SAMPLE, description="Chunks in the sample.")] = SAMPLE_SIZE


class GeometryMeasureAnswer(TypedDict):
    name: thresholds.GeometryMeasureName
    value: float | None
    """Null: it could not be measured; `says` has the reason."""
    error: float | None
    """Standard error of the value, because only a sample is measured."""
    verdict: Verdict | None
    watch: float | None
    """The limits for the verdicts `watch` and `broken`. Null where there is no such limit."""
    broken: float | None
    says: str
    do: str
    """What to do about it; empty where it is healthy."""


class HistogramAnswer(TypedDict):
    edges: list[float]
    counts: list[int]


class MapPointAnswer(TypedDict):
    id: str
    chunk: int
    x: float
    y: float


class MapAnswer(TypedDict):
    points: list[MapPointAnswer]
    shown: list[float]
    """Shares of the variance along x and along y; the rest is not shown."""
    center: list[float]
    directions: list[list[float]]
    """The dot products of (unit vector - `center`) with the two directions are its place on the map."""


class BeforeAnswer(TypedDict):
    version: int
    verdict: Verdict | None
    measures: list[GeometryMeasureAnswer]


class GeometryAnswer(TypedDict):
    collection: str
    version: int
    rows: int
    sample: int
    verdict: Verdict | None
    """The worst of all measures; null where there are too few vectors."""
    reason: str | None
    """Why there is no verdict."""
    measures: list[GeometryMeasureAnswer]
    cosines: HistogramAnswer | None
    """Of random pairs."""
    occurrences: HistogramAnswer | None
    """How many chunks are among the ten nearest of how many others."""
    hubs: Sequence[Hub]
    antihubs: float | None
    map: MapAnswer | None
    """Chunks on the two strongest principal directions."""
    before: BeforeAnswer | None
    """The previous version, where it still has vectors."""


@router.get("", summary="Geometry of a version's space, with verdicts")
async def get(
    service: ServiceDep, collection: CollectionDep, query: Annotated[GeometryQuery, Query()]
) -> GeometryAnswer:
    """Measured on a random sample, cached for ten minutes. 409 where the version failed or was retired."""
    report, before = await service.diagnostics.diagnose(collection, query.version, query.sample)
    answer: GeometryAnswer = {
        "collection": collection.name,
        "version": report.version,
        "rows": report.rows,
        "sample": len(report.chunks),
        "verdict": report.verdict,
        "reason": report.reason,
        "measures": [_measure_answer(one) for one in report.measures],
        "cosines": None,
        "occurrences": None,
        "hubs": report.hubs,
        "antihubs": None,
        "map": None,
        "before": None
        if before is None
        else {
            "version": before.version,
            "verdict": before.verdict,
            "measures": [_measure_answer(one) for one in before.measures],
        },
    }
    if (picture := report.picture) is not None:
        edges, counts = picture.occurrences
        answer["cosines"] = {"edges": list(COSINE_EDGES), "counts": picture.cosines.tolist()}
        answer["occurrences"] = {"edges": [float(one) for one in edges], "counts": list(counts)}
        answer["antihubs"] = picture.antihubs
        answer["map"] = _map_answer(report, picture)
    return answer


def _measure_answer(measure: thresholds.GeometryMeasure) -> GeometryMeasureAnswer:
    return {
        "name": measure.name,
        "value": _rounded(measure.value),
        "error": _rounded(measure.error),
        "verdict": measure.verdict,
        "watch": _rounded(measure.watch),
        "broken": _rounded(measure.broken),
        "says": measure.message,
        "do": measure.advice,
    }


def _rounded(value: float | None) -> float | None:
    """Four significant digits: more would be noise."""
    return None if value is None else float(f"{value:.4g}")


def _map_answer(report: GeometryReport, picture: GeometryPicture) -> MapAnswer:
    plane = picture.plane
    return {
        "points": [
            {"id": document_id, "chunk": chunk, "x": x, "y": y}
            for (document_id, chunk), (x, y) in zip(report.chunks, plane.coordinates.round(4).tolist(), strict=False)
        ],
        "shown": [round(share, 4) for share in plane.variance_shares],
        "center": plane.mean.round(6).tolist(),
        "directions": plane.directions.round(6).tolist(),
    }
