"""How good the answers are: judged queries, asked of the collection as it stands."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Body
from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import JsonRoute
from service.api.dependencies import Here, Service
from service.api.disconnect import awaited
from service.api.problems import documented
from service.api.routes import judgments
from service.api.schemas import answers, requests
from service.core.collections import Collection
from service.core.errors import Conflict, Invalid
from service.core.ids import CollectionName
from service.core.versions import Judgments
from service.evaluation.evaluator import QUERIES, WAYS, EvaluationResult, ModeMetrics, Way

MAX_SECONDS = 600
_UNLESS_NAMED: list[Way] = ["dense", "lexical", "hybrid"]
"""Reranking is asked for by name: it takes longer than all others together."""

router = APIRouter(prefix="/v1/collections/{collection}", tags=["truth"], route_class=JsonRoute)


class EvaluationBody(requests.Wire):
    """Queries with their judgments, or neither: then the collection's own."""

    queries: Annotated[list[judgments.JudgedQueryBody], Field(min_length=1, max_length=QUERIES)] | None = None
    qrels: Annotated[list[judgments.JudgmentBody], Field(min_length=1, max_length=judgments.MAX_JUDGMENTS)] | None = (
        None
    )
    modes: Annotated[list[Way], Field(min_length=1, max_length=len(WAYS))] = _UNLESS_NAMED
    budget_seconds: Annotated[
        float, Field(ge=1, le=MAX_SECONDS, description="When it is up, what was asked so far is the sample.")
    ] = 60.0

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.queries is None) != (self.qrels is None):
            raise ValueError("give both queries and qrels, or neither")
        return self

    def judged(self) -> Judgments | None:
        """None where they are left out. Invalid where the rows do not fit together."""
        if self.queries is None or self.qrels is None:
            return None
        both = judgments.JudgmentsBody(queries=self.queries, qrels=self.qrels)
        return both.judgments(datetime.now(UTC))


class IntervalAnswer(TypedDict):
    low: float
    high: float


class MarksAnswer(TypedDict):
    ndcg_at_10: float
    mrr_at_10: float
    recall_at_100: float
    ndcg_interval: IntervalAnswer
    """Of the mean over queries like these, 95 %."""
    p50_ms: float
    p95_ms: float
    degraded: dict[str, int]
    """Answers that had to do without a stage, by `stage: reason`."""


class EvaluationAnswer(TypedDict):
    collection: str
    version: int
    queries: int
    """That were asked; a random choice where they are fewer than `judged_queries`."""
    judged_queries: int
    unknown_documents: int
    """Judged relevant and not in the collection: they count as not found."""
    modes: dict[str, MarksAnswer]


@router.post(
    "/evaluate",
    summary="Judge the collection as it stands",
    response_model=EvaluationAnswer,
    responses=documented(400, 401, 404, 409, 413, 415, 422, 429, 503),
)
async def evaluate(
    service: Here,
    request: Request,
    collection: requests.Name,
    body: Annotated[EvaluationBody | None, Body()] = None,
) -> Response:
    """Judged queries are asked as clients ask, beside the live ones and not in their metrics. The body may be left out.

    It ends when the client leaves.
    """
    wanted = body or EvaluationBody()
    ways = _possible(service, wanted.modes)
    found = await service.collections.by_name(CollectionName(collection))
    judged = wanted.judged() or await _own(service, found)
    appraised = await awaited(request, service.evaluator.of(found, judged, ways, wanted.budget_seconds))
    return answers.Json(_shown(found, appraised))


def _possible(service: Service, ways: Sequence[Way]) -> Sequence[Way]:
    """Each once. Invalid where this service cannot ask in one of them."""
    if "rerank" in ways and service.reranker is None:
        raise Invalid.at(f"modes.{ways.index('rerank')}", "no reranker is configured: AZIMUTH_RERANKER")
    return list(dict.fromkeys(ways))


async def _own(service: Service, collection: Collection) -> Judgments:
    kept = await service.test_sets.get(collection.id)
    if kept is None:
        raise Conflict(f"collection {collection.name} has no judgments: upload them, or send queries and qrels")
    return kept


def _shown(collection: Collection, appraised: EvaluationResult) -> EvaluationAnswer:
    return {
        "collection": collection.name,
        "version": appraised.version,
        "queries": appraised.queries,
        "judged_queries": appraised.judged,
        "unknown_documents": appraised.unknown_documents,
        "modes": {way: _marks(marks) for way, marks in appraised.marks.items()},
    }


def _marks(marks: ModeMetrics) -> MarksAnswer:
    return {
        "ndcg_at_10": round(marks.quality.ndcg_at_10, 4),
        "mrr_at_10": round(marks.quality.mrr_at_10, 4),
        "recall_at_100": round(marks.quality.recall_at_100, 4),
        "ndcg_interval": {"low": round(marks.ndcg.low, 4), "high": round(marks.ndcg.high, 4)},
        "p50_ms": round(marks.p50_ms, 2),
        "p95_ms": round(marks.p95_ms, 2),
        "degraded": dict(marks.degraded),
    }
