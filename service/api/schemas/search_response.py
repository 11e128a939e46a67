"""The answer to a search: its shape, and how it is made from what the story found."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from service.core.search import (
    Explanation,
    Hit,
    LegExplanation,
    Mode,
    RerankExplanation,
    RerankSummary,
    SearchRequest,
    SearchResult,
)

STAGES = ("embed", "dense", "lexical", "fuse", "fetch", "rerank")
"""Always in `timings_ms`, whether they ran or not; others are there where they ran."""


class LegAnswer(TypedDict):
    rank: int | None
    """From 1; null where this leg did not find the hit itself, and its score was looked up."""
    score: float
    """Cosine (dense) or BM25 (lexical)."""
    normalised: float
    share: float
    """What of the fused score comes from this leg."""


class RerankAnswer(TypedDict):
    rank: int
    """Among the passages that were read."""
    score: float
    """The probability, as far as the cross-encoder knows, that the passage is relevant."""
    share: float
    """What of the hit's score comes from it."""


class QueryAnswer(TypedDict):
    dense: LegAnswer | None
    lexical: LegAnswer | None
    gain: float
    certainty: float
    """Its part of `fusion`."""


class DiversityAnswer(TypedDict):
    rank: int
    """By score alone."""
    similarity: float | None
    """The highest cosine to a hit above; null for the first hit, and where the vector is not known."""
    mmr: float


class ExplanationAnswer(TypedDict):
    dense: LegAnswer | None
    """Of several queries, as for the one that counts most for this hit."""
    lexical: LegAnswer | None
    fusion: float
    certainty: float
    """Of the dense leg: 0 where its best find is none better than chance would give, 1 where it stands out."""
    queries: NotRequired[list[QueryAnswer]]
    """Where there are several: what each says of this hit, in their order."""
    rerank: RerankAnswer | None
    diversity: NotRequired[DiversityAnswer]


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
    highlight_offsets: NotRequired[list[list[int]]]
    """Every match: [start, end) in code points of the document's text, as `start` and `end` of the hit."""
    vector: NotRequired[list[float] | None]
    """Null where the version has none of the content that is answered."""
    explain: NotRequired[ExplanationAnswer]


class RereadAnswer(TypedDict):
    read: int
    """Passages that the cross-encoder read."""
    skipped: int
    """Passages that it did not need to read: they could no longer change the answer."""
    truncated: int
    """Passages that it read without their end: they are longer than it takes with the query."""
    weight: float
    """What it counted: the weight asked for, or less where it hardly agrees with the first stage."""


class WishesAnswer(TypedDict):
    """Every hit says all of `phrases` and `required`, and nothing of `excluded`."""

    phrases: list[str]
    required: list[str]
    excluded: list[str]
    unsaid: list[str]
    """Phrases in quotation marks that no document says: taken as words."""


class PlanAnswer(TypedDict):
    mode: Mode
    dense: Literal["exact", "hnsw", "hnsw_iterative", "none"]
    ef_search: int | None
    selectivity: float | None
    underfilled: bool
    reason: str | None
    """Why the dense leg ran like this: see the API reference."""
    reranked: bool
    rerank: RereadAnswer | None
    wishes: WishesAnswer | None
    """How the query was read; null where it was only words."""


class DegradedAnswer(TypedDict):
    stage: str
    reason: str


class ConfidenceAnswer(TypedDict):
    in_domain: float | None
    """The probability that the question is one for the collection; null where it cannot be told."""
    withheld: bool
    """There are no hits because this is below `min_confidence`."""
    reason: str | None
    """Why it cannot be told, or why hits were withheld."""


class SearchAnswer(TypedDict):
    hits: list[HitAnswer]
    confidence: ConfidenceAnswer
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


def search(answer: SearchResult, request: SearchRequest, *, explain: bool) -> SearchAnswer:
    return {
        "hits": [_hit(hit, request, explain) for hit in answer.hits],
        "confidence": {
            "in_domain": None if answer.confidence.in_domain is None else round(answer.confidence.in_domain, 4),
            "withheld": answer.confidence.withheld,
            "reason": answer.confidence.reason,
        },
        "embedder_version": answer.embedder_version,
        "plan": {
            "mode": answer.mode,
            "dense": answer.dense.kind,
            "ef_search": answer.dense.ef_search,
            "selectivity": answer.dense.selectivity,
            "underfilled": answer.dense.underfilled,
            "reason": answer.dense.reason,
            "reranked": answer.reranked,
            "rerank": _reread(answer.rerank_summary),
            "wishes": _wishes(answer) if answer.parsed_query.has_constraints else None,
        },
        "degraded": [{"stage": one.stage, "reason": one.reason} for one in answer.degraded],
        "took_ms": round(answer.timings.elapsed * 1000, 3),
        "timings_ms": dict.fromkeys(STAGES, 0.0) | answer.timings.milliseconds(),
    }


def _hit(hit: Hit, request: SearchRequest, explain: bool) -> HitAnswer:
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
        shown["highlight_offsets"] = [list(span) for span in hit.highlight_offsets]
    if "vector" in request.include:
        shown["vector"] = None if hit.vector is None else list(hit.vector)
    if explain:
        shown["explain"] = _explanation(hit.explanation)
    return shown


def _wishes(answer: SearchResult) -> WishesAnswer:
    words, unsaid = answer.parsed_query, answer.unmatched_terms
    return {
        "phrases": [one for one in words.quoted if one not in unsaid],
        "required": list(words.required),
        "excluded": list(words.excluded),
        "unsaid": list(unsaid),
    }


def _explanation(how: Explanation) -> ExplanationAnswer:
    shown: ExplanationAnswer = {
        "dense": _leg(how.dense),
        "lexical": _leg(how.lexical),
        "fusion": how.fusion,
        "certainty": how.certainty,
        "rerank": _rerank(how.rerank),
    }
    if how.queries:
        shown["queries"] = [
            {"dense": _leg(one.dense), "lexical": _leg(one.lexical), "gain": one.gain, "certainty": one.certainty}
            for one in how.queries
        ]
    if how.diversity is not None:
        why = how.diversity
        shown["diversity"] = {"rank": why.rank, "similarity": why.similarity, "mmr": why.mmr}
    return shown


def _leg(leg: LegExplanation | None) -> LegAnswer | None:
    return (
        None
        if leg is None
        else {"rank": leg.rank, "score": leg.score, "normalised": leg.normalised, "share": leg.share}
    )


def _rerank(how: RerankExplanation | None) -> RerankAnswer | None:
    return None if how is None else {"rank": how.rank, "score": how.score, "share": how.share}


def _reread(how: RerankSummary | None) -> RereadAnswer | None:
    if how is None:
        return None
    return {"read": how.read, "skipped": how.skipped, "truncated": how.truncated, "weight": round(how.weight, 4)}
