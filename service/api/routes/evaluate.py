"""Quality of the answers: judged queries are run against the collection in its current state."""

from typing import Annotated, Self

from fastapi import Body
from pydantic import Field, model_validator
from typing_extensions import TypedDict

from service.api.dependencies import CollectionDep, ServiceDep
from service.api.routes.judgments import JudgedQueryBody, QrelsField, to_judgments
from service.api.routing import QueryRoute, collection_router
from service.api.schemas.base import RequestBody, in_groups
from service.core.collections import Collection
from service.core.concurrency import off_loop
from service.core.errors import Conflict, Invalid
from service.core.versions import Judgments
from service.evaluation.evaluator import MAX_QUERIES, MODE_REQUESTS, EvaluationMode, EvaluationResult, ModeEvaluation

MAX_SECONDS = 600
_DEFAULT_MODES: list[EvaluationMode] = ["dense", "lexical", "hybrid"]
"""Reranking must be named: it takes longer than all others together."""

router = collection_router("", "truth", 409, 429, route_class=QueryRoute)


class EvaluationBody(RequestBody):
    """Queries with their judgments, or neither: then those of the collection."""

    queries: (
        Annotated[list[JudgedQueryBody], Field(min_length=1, max_length=MAX_QUERIES), in_groups(MAX_QUERIES)] | None
    ) = None
    qrels: QrelsField | None = None
    modes: Annotated[list[EvaluationMode], Field(min_length=1, max_length=len(MODE_REQUESTS))] = _DEFAULT_MODES
    budget_seconds: Annotated[
        float, Field(ge=1, le=MAX_SECONDS, description="Afterwards, the queries that were run are the sample.")
    ] = 60.0

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.queries is None) != (self.qrels is None):
            raise ValueError("give both queries and qrels, or neither")
        return self


class IntervalAnswer(TypedDict):
    low: float
    high: float


class ModeMetricsAnswer(TypedDict):
    ndcg_at_10: float
    mrr_at_10: float
    recall_at_100: float
    ndcg_interval: IntervalAnswer
    """Of the mean over queries like these, 95 %."""
    p50_ms: float
    p95_ms: float
    degraded: dict[str, int]
    """Answers that lack a stage, by `stage: reason`."""


class EvaluationAnswer(TypedDict):
    collection: str
    version: int
    queries: int
    """Queries that were run: a random sample where they are fewer than `judged_queries`."""
    judged_queries: int
    unknown_documents: int
    """Judged relevant and not in the collection: they count as not found."""
    modes: dict[str, ModeMetricsAnswer]


@router.post("/evaluate", summary="Evaluate the collection in its current state")
async def evaluate(
    service: ServiceDep,
    collection: CollectionDep,
    body: Annotated[EvaluationBody, Body(default_factory=EvaluationBody)],
) -> EvaluationAnswer:
    """Run judged queries as clients do, beside the live ones and not in their metrics. The body may be left out.

    It ends when the client disconnects.
    """
    if "rerank" in body.modes and service.reranker is None:
        raise Invalid.at(f"modes.{body.modes.index('rerank')}", "no reranker is configured: AZIMUTH_RERANKER")
    judgments = await _sent_judgments(body) or await service.test_sets.get(collection.id)
    if judgments is None:
        raise Conflict(f"collection {collection.name} has no judgments: upload them, or send queries and qrels")
    modes = list(dict.fromkeys(body.modes))
    return _answer(collection, await service.evaluator.evaluate(collection, judgments, modes, body.budget_seconds))


async def _sent_judgments(body: EvaluationBody) -> Judgments | None:
    if body.queries is None or body.qrels is None:
        return None
    return await off_loop(len(body.qrels), to_judgments, body.queries, body.qrels)


def _answer(collection: Collection, result: EvaluationResult) -> EvaluationAnswer:
    return {
        "collection": collection.name,
        "version": result.version,
        "queries": result.queries,
        "judged_queries": result.judged,
        "unknown_documents": result.unknown_documents,
        "modes": {mode: _mode_answer(evaluation) for mode, evaluation in result.modes.items()},
    }


def _mode_answer(evaluation: ModeEvaluation) -> ModeMetricsAnswer:
    metrics, interval = evaluation.metrics, evaluation.ndcg_interval
    return {
        "ndcg_at_10": round(metrics.ndcg_at_10, 4),
        "mrr_at_10": round(metrics.mrr_at_10, 4),
        "recall_at_100": round(metrics.recall_at_100, 4),
        "ndcg_interval": {"low": round(interval.low, 4), "high": round(interval.high, 4)},
        "p50_ms": round(metrics.p50_ms, 2),
        "p95_ms": round(metrics.p95_ms, 2),
        "degraded": dict(metrics.degraded),
    }
