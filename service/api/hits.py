"""The answer to a search: its shape, and how it is made from what the story found."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from service.query import Answer, Explanation, Hit, LegExplanation, Mode, Request

STAGES = ("embed", "dense", "lexical", "fuse", "fetch", "rerank")
"""Always in `timings_ms`, whether they ran or not; others are there where they ran."""


class LegAnswer(TypedDict):
    rank: int | None
    """From 1; null where this leg did not find the hit itself, and its score was looked up."""
    score: float
    """Cosine (dense) or BM25 (lexical)."""
    normalised: float


class RerankAnswer(TypedDict):
    rank: int
    score: float


class ExplanationAnswer(TypedDict):
    dense: LegAnswer | None
    lexical: LegAnswer | None
    fusion: float
    rerank: RerankAnswer | None


class HitAnswer(TypedDict):
    id: str
    chunk: int
    score: float
    title: str
    start: int
    """Where the chunk begins in the document's text, in code points."""
    end: int
    revision: int
    text: NotRequired[str]
    metadata: NotRequired[dict[str, Any]]
    highlights: NotRequired[list[str]]
    """HTML-escaped, matches in <mark>."""
    vector: NotRequired[list[float] | None]
    """Null where the version has none of the content that is answered."""
    explain: NotRequired[ExplanationAnswer]


class PlanAnswer(TypedDict):
    mode: Mode
    dense: Literal["exact", "hnsw", "hnsw_iterative", "none"]
    ef_search: int | None
    selectivity: float | None
    underfilled: bool
    reranked: bool


class DegradedAnswer(TypedDict):
    stage: str
    reason: str


class SearchAnswer(TypedDict):
    hits: list[HitAnswer]
    embedder_version: int
    plan: PlanAnswer
    degraded: list[DegradedAnswer]
    """Stages that could not do their part, and why."""
    took_ms: float
    timings_ms: dict[str, float]


class BatchAnswer(TypedDict):
    results: list[SearchAnswer]
    """In the order of the searches."""
    took_ms: float


def search(answer: Answer, request: Request, *, explain: bool) -> SearchAnswer:
    return {
        "hits": [_hit(hit, request, explain) for hit in answer.hits],
        "embedder_version": answer.embedder_version,
        "plan": {
            "mode": answer.mode,
            "dense": answer.dense.kind,
            "ef_search": answer.dense.ef_search,
            "selectivity": answer.dense.selectivity,
            "underfilled": answer.dense.underfilled,
            "reranked": answer.reranked,
        },
        "degraded": [{"stage": one.stage, "reason": one.reason} for one in answer.degraded],
        "took_ms": round(answer.timings.elapsed * 1000, 3),
        "timings_ms": dict.fromkeys(STAGES, 0.0) | answer.timings.milliseconds(),
    }


def _hit(hit: Hit, request: Request, explain: bool) -> HitAnswer:
    shown: HitAnswer = {
        "id": hit.id,
        "chunk": hit.chunk,
        "score": hit.score,
        "title": hit.title,
        "start": hit.start,
        "end": hit.end,
        "revision": hit.revision,
    }
    if "text" in request.include:
        shown["text"] = hit.text
    if "metadata" in request.include:
        shown["metadata"] = dict(hit.metadata)
    if "highlights" in request.include:
        shown["highlights"] = list(hit.highlights)
    if "vector" in request.include:
        shown["vector"] = None if hit.vector is None else list(hit.vector)
    if explain:
        shown["explain"] = _explanation(hit.explanation)
    return shown


def _explanation(how: Explanation) -> ExplanationAnswer:
    return {
        "dense": _leg(how.dense),
        "lexical": _leg(how.lexical),
        "fusion": how.fusion,
        "rerank": None if how.rerank is None else {"rank": how.rerank.rank, "score": how.rerank.score},
    }


def _leg(leg: LegExplanation | None) -> LegAnswer | None:
    return None if leg is None else {"rank": leg.rank, "score": leg.score, "normalised": leg.normalised}
