"""The shape of a version's space: figures with verdicts, what to do about them, and what pictures of it need."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.dependencies import Here
from service.api.problems import documented
from service.api.schemas import answers, requests
from service.core.ids import CollectionName, VersionNumber
from service.core.verdict import Verdict
from service.diagnostics import thresholds
from service.diagnostics.measure import EDGES, GeometryPicture
from service.diagnostics.service import LEAST_SAMPLE, MOST_SAMPLE, SAMPLE, GeometryReport

router = APIRouter(prefix="/v1/collections/{collection}/geometry", tags=["geometry"])


class GeometryQuery(requests.QueryParameters):
    version: Annotated[requests.Number | None, Field(description="Of which version; the active one by default.")] = None
    sample: Annotated[int, Field(ge=LEAST_SAMPLE, le=MOST_SAMPLE, description="Chunks that are looked at.")] = SAMPLE


class GeometryMeasureAnswer(TypedDict):
    name: thresholds.Name
    value: float | None
    """Null: it could not be measured; `says` tells why."""
    error: float | None
    """Standard error of the value, as it comes of looking at a sample."""
    verdict: Verdict | None
    watch: float | None
    """From here on it is worth a look, and from `broken` on something is wrong. Null where there is no such limit."""
    broken: float | None
    says: str
    do: str
    """What to do about it; empty where it is healthy."""


class HistogramAnswer(TypedDict):
    edges: list[float]
    counts: list[int]


class HubAnswer(TypedDict):
    id: str
    chunk: int
    title: str
    occurrences: int
    """How many of the sample have it among their ten nearest."""


class MapPointAnswer(TypedDict):
    id: str
    chunk: int
    x: float
    y: float


class MapAnswer(TypedDict):
    points: list[MapPointAnswer]
    shown: list[float]
    """Of the variance, along x and along y: the rest is flattened away."""
    center: list[float]
    directions: list[list[float]]
    """A vector of length 1 less `center`, times each of the two directions, is its place on the map."""


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
    """The worst of all measures; null where there was too little to tell."""
    reason: str | None
    """Why there is no verdict."""
    measures: list[GeometryMeasureAnswer]
    cosines: HistogramAnswer | None
    """Of random pairs."""
    occurrences: HistogramAnswer | None
    """How many chunks are among the ten nearest of how many others."""
    hubs: list[HubAnswer]
    antihubs: float | None
    map: MapAnswer | None
    """Chunks on the two strongest principal directions."""
    before: BeforeAnswer | None
    """The version before this one, where it still has vectors."""


@router.get(
    "",
    summary="The shape of a version's space, and what is wrong with it",
    response_model=GeometryAnswer,
    responses=documented(401, 404, 409, 422, 429, 503),
)
async def get(service: Here, collection: requests.Name, query: Annotated[GeometryQuery, Query()]) -> Response:
    """Measured on a random sample, remembered for ten minutes. 409 where the version failed or was retired."""
    found = await service.collections.by_name(CollectionName(collection))
    number = None if query.version is None else VersionNumber(query.version)
    report, before = await service.diagnostics.of(found, number, query.sample)
    shown: GeometryAnswer = {
        "collection": found.name,
        "version": report.version,
        "rows": report.rows,
        "sample": len(report.chunks),
        "verdict": report.verdict,
        "reason": report.reason,
        "measures": [_measure(one) for one in report.measures],
        "cosines": None,
        "occurrences": None,
        "hubs": [
            {"id": one.document_id, "chunk": one.chunk, "title": one.title, "occurrences": one.occurrences}
            for one in report.hubs
        ],
        "antihubs": None,
        "map": None,
        "before": None
        if before is None
        else {
            "version": before.version,
            "verdict": before.verdict,
            "measures": [_measure(one) for one in before.measures],
        },
    }
    if (picture := report.picture) is not None:
        edges, counts = picture.occurrences
        shown["cosines"] = {"edges": list(EDGES), "counts": picture.cosines.tolist()}
        shown["occurrences"] = {"edges": [float(one) for one in edges], "counts": list(counts)}
        shown["antihubs"] = picture.antihubs
        shown["map"] = _map(report, picture)
    return answers.Json(shown)


def _measure(one: thresholds.GeometryMeasure) -> GeometryMeasureAnswer:
    return {
        "name": one.name,
        "value": _figure(one.value),
        "error": _figure(one.error),
        "verdict": one.verdict,
        "watch": _figure(one.watch),
        "broken": _figure(one.broken),
        "says": one.says,
        "do": one.do,
    }


def _figure(value: float | None) -> float | None:
    """Four significant digits: more would be noise."""
    return None if value is None else float(f"{value:.4g}")


def _map(report: GeometryReport, picture: GeometryPicture) -> MapAnswer:
    return {
        "points": [
            {"id": document_id, "chunk": chunk, "x": x, "y": y}
            for (document_id, chunk), (x, y) in zip(report.chunks, picture.places.round(4).tolist(), strict=False)
        ],
        "shown": [round(share, 4) for share in picture.shown],
        "center": picture.middle.round(6).tolist(),
        "directions": picture.directions.round(6).tolist(),
    }
