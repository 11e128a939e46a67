"""The answer to a search: its shape, and how it is made from the result of the pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, cast

from pydantic import Field
from typing_extensions import TypedDict

from service.api.schemas.base import select_fields
from service.api.schemas.result_options import FacetAnswer, facets_answer
from service.core.boosts import BoostExplanation
from service.core.explanation import (
    DiversityExplanation,
    Explanation,
    LegExplanation,
    QueryExplanation,
    RerankExplanation,
)
from service.core.images import image_path
from service.core.metadata import project
from service.core.result_options import SurroundingText
from service.core.search import Confidence, Degradation, Hit, Mode, RerankSummary, SearchRequest, SearchResult

STAGES = ("embed", "dense", "lexical", "fuse", "fetch", "rerank")
"""Always in `timings_ms`, whether they ran or not; others are there where they ran."""


class ExplanationFields(TypedDict):
    dense: LegExplanation | None
    """Of several queries, that of the one that counts most for this hit."""
    lexical: LegExplanation | None
    fusion: float
    certainty: float
    """Of the dense leg: 0 where its best find is no better than chance would give, 1 where it stands out."""
    lexical_certainty: float
    """0 where its best find has hardly any of the score that the words of the query could give, 1 from a quarter on."""
    floor: float
    """The cosine of what has nothing to do with the query, which counts 0."""
    rerank: RerankExplanation | None
    context: str
    """What the chunk carried besides title and text: the headings above it, and the header of the table it is in."""


class ExplanationAnswer(ExplanationFields, total=False):
    queries: tuple[QueryExplanation, ...]
    """Only where there are several queries: what each contributes to this hit, in their order."""
    diversity: DiversityExplanation
    boosts: tuple[BoostExplanation, ...]
    """Only where there are some, in their order: with `fusion` they add up to the score before the reranker."""
    synonyms: tuple[str, ...]
    """Only where there are some: words of passage and title that were found by the collection's synonyms alone."""


SCORE = (
    "Orders the hits of this answer alone, and is no probability: the fused score of both legs (hybrid), the cosine "
    "(dense) or BM25 (lexical) as a share of the best hit's, or the blend with the reranker (rerank)."
)
RELEVANCE = (
    "The probability, in [0, 1], that the hit answers the query; null where no calibrated reranker read it with all of "
    "the query."
)


class HitFields(TypedDict):
    id: str
    chunk: int
    score: Annotated[float, Field(description=SCORE)]
    relevance: Annotated[float | None, Field(description=RELEVANCE)]
    cosine: float | None
    """To the query (of several: to the nearest); null where the dense leg did not run or knows no vector of the hit."""
    bm25: float | None
    """Of the hit's document; null where the lexical leg did not run, or found none of the words in it."""
    title: str
    start: int
    """Where the chunk begins in the document's text, in code points."""
    end: int
    revision: int


class HitAnswer(HitFields, total=False):
    image: str
    """Where it is, below the collection; only for documents that have one."""
    text: str
    metadata: Mapping[str, Any]
    highlights: tuple[str, ...]
    """HTML-escaped, matches in <mark>."""
    highlight_offsets: tuple[tuple[int, int], ...]
    """Every match: [start, end) in code points of the document's text, as `start` and `end` of the hit."""
    title_highlight: str | None
    """As `highlights`, of the title; null where nothing matches."""
    vector: tuple[float, ...] | None
    """Null where the version has no vector of the content in this answer."""
    context: SurroundingText | None
    """`text[start:end]` of the document around the hit, where it was asked for; null where it was not read."""
    explain: ExplanationAnswer


class WishesAnswer(TypedDict):
    """Every hit contains all of `phrases` and `required`, and nothing of `excluded`."""

    phrases: list[str]
    required: tuple[str, ...]
    excluded: tuple[str, ...]
    unsaid: tuple[str, ...]
    """Phrases in quotation marks that no document contains: they were searched as words."""
    as_words: tuple[str, ...]
    """Parts of the query that look like operators and were read as words: options, names, what left no document."""


class PlanAnswer(TypedDict):
    mode: Mode | Literal["browse"]
    """`browse`: nothing was searched for, documents are listed by `sort`."""
    dense: str
    """`exact`, `none`, or the kind of the index, as `hnsw`; `hnsw_iterative` where a filter let it go on."""
    ef_search: int | None
    selectivity: float | None
    underfilled: bool
    reason: str | None
    """Why the dense leg ran like this: see the API reference."""
    reranked: bool
    rerank: RerankSummary | None
    wishes: WishesAnswer | None
    """How the query was parsed; null where it has no operators."""


class SearchFields(TypedDict):
    hits: list[HitAnswer]
    confidence: Confidence
    embedder_version: int
    plan: PlanAnswer
    degraded: Sequence[Degradation]
    """Stages that could not do their part, and why."""
    took_ms: float
    timings_ms: dict[str, float]


class SearchAnswer(SearchFields, total=False):
    facets: dict[str, FacetAnswer]
    """Only where they were asked for: by field, over all documents that pass the filter."""


class BatchAnswer(TypedDict):
    results: list[SearchAnswer]
    """In the order of the searches."""
    took_ms: float


def search_answer(result: SearchResult, request: SearchRequest) -> SearchAnswer:
    words = result.parsed_query
    dense, reread, in_domain = result.dense, result.rerank_summary, result.confidence.in_domain
    answer: SearchAnswer = {
        "hits": [_hit(hit, request) for hit in result.hits],
        "confidence": replace(result.confidence, in_domain=None if in_domain is None else round(in_domain, 4)),
        "embedder_version": result.embedder_version,
        "plan": {
            "mode": result.mode,
            "dense": dense.name,
            "ef_search": dense.ef_search,
            "selectivity": dense.selectivity,
            "underfilled": dense.underfilled,
            "reason": dense.reason,
            "reranked": reread is not None,
            "rerank": None if reread is None else replace(reread, weight=round(reread.weight, 4)),
            "wishes": _wishes(result) if words.has_constraints or words.as_words else None,
        },
        "degraded": result.degraded,
        "took_ms": round(result.timings.elapsed * 1000, 3),
        "timings_ms": dict.fromkeys(STAGES, 0.0) | result.timings.milliseconds(),
    }
    if request.facets:
        answer["facets"] = facets_answer(result.facets)
    return answer


def _hit(hit: Hit, request: SearchRequest) -> HitAnswer:
    answer = cast(HitAnswer, select_fields(HitFields, hit))
    if hit.image:
        answer["image"] = image_path(hit.id)
    if "text" in request.include:
        answer["text"] = hit.text
    if "metadata" in request.include:
        answer["metadata"] = hit.metadata if request.fields is None else project(hit.metadata, request.fields)
    if "highlights" in request.include:
        answer["highlights"] = hit.highlights
        answer["highlight_offsets"] = hit.highlight_offsets
        answer["title_highlight"] = hit.title_highlight
    if "vector" in request.include:
        answer["vector"] = hit.vector
    if request.around is not None:
        answer["context"] = hit.context
    if request.explain:
        answer["explain"] = _explanation(hit.explanation)
    return answer


def _wishes(result: SearchResult) -> WishesAnswer:
    words, unmatched = result.parsed_query, result.unmatched_terms
    return {
        "phrases": [phrase for phrase in words.quoted if phrase not in unmatched],
        "required": words.required,
        "excluded": words.excluded,
        "unsaid": unmatched,
        "as_words": words.as_words,
    }


def _explanation(explanation: Explanation) -> ExplanationAnswer:
    answer = cast(ExplanationAnswer, select_fields(ExplanationFields, explanation))
    if explanation.queries:
        answer["queries"] = explanation.queries
    if explanation.boosts:
        answer["boosts"] = explanation.boosts
    if explanation.synonyms:
        answer["synonyms"] = explanation.synonyms
    if explanation.diversity is not None:
        answer["diversity"] = explanation.diversity
    return answer
