"""Reranking, in the shapes of Cohere, Jina and Voyage (`documents`) and of text-embeddings-inference (`texts`)."""

import json
import math
from typing import Annotated, Literal, NotRequired

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import JsonResponse
from service.api.compatible.encoding import MAX_LENGTH, OtherApisBody, TruncateField
from service.api.dependencies import ServiceDep
from service.api.problems import error_responses
from service.api.routing import OtherApiRoute
from service.api.schemas.base import OneOfBody, RequestBody, Text, text_as
from service.core.errors import Invalid, ModelUnavailable
from service.core.ports.reranker import RerankScores, query_cut_reason
from service.core.search import Degradation

MAX_PASSAGES = 1_000
MAX_QUERY_LENGTH = 10_000

router = APIRouter(tags=["models"], route_class=OtherApiRoute, responses=error_responses(429, 503))

PassageText = Annotated[Text, Field(min_length=1, max_length=MAX_LENGTH)]


class PassageBody(RequestBody):
    """A passage with fields of any names, of which the reranker reads `text`, or those in `rank_fields`."""

    model_config = ConfigDict(extra="allow")

    text: PassageText | None = None


PassageField = Annotated[PassageBody, text_as("text", PassageText | PassageBody)]


class RerankBody(OneOfBody, OtherApisBody):
    """Either `documents` (Cohere, Jina, Voyage) or `texts` (text-embeddings-inference), with the options of each."""

    alternatives = ("documents", "texts")

    query: Annotated[Text, Field(min_length=1, max_length=MAX_QUERY_LENGTH)]
    documents: Annotated[list[PassageField], Field(min_length=1, max_length=MAX_PASSAGES)] | None = None
    rank_fields: Annotated[list[Text], Field(min_length=1, max_length=100)] | None = None
    texts: Annotated[list[PassageText], Field(min_length=1, max_length=MAX_PASSAGES)] | None = None
    model: Annotated[Text, Field(min_length=1, max_length=300)] | None = None
    top_n: Annotated[int, Field(ge=1, le=MAX_PASSAGES)] | None = None
    top_k: Annotated[int, Field(ge=1, le=MAX_PASSAGES, description="`top_n`, as Voyage names it.")] | None = None
    return_documents: bool = False
    return_text: bool = False
    raw_scores: Annotated[bool, Field(description="Log-odds instead of probabilities.")] = False
    truncate: TruncateField | None = None
    max_tokens_per_doc: int | None = None
    max_chunks_per_doc: int | None = None

    def passages(self) -> list[str]:
        """Invalid where a document has nothing to read, or too much."""
        passages = list(self.texts or ())
        for at, document in enumerate(self.documents or ()):
            fields = document.model_dump(include=set(self.rank_fields or ["text"]), exclude_none=True)
            values = [fields[name] for name in self.rank_fields or ["text"] if name in fields]
            passage = "\n".join(one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in values)
            if not 0 < len(passage) <= MAX_LENGTH:
                place = "" if self.rank_fields else ".text"
                reason = f"should have at most {MAX_LENGTH} characters to read" if passage else "is required"
                raise Invalid.at(f"documents.{at}{place}", reason)
            passages.append(passage)
        return passages


class PassageAnswer(TypedDict):
    text: str


class RerankResultAnswer(TypedDict):
    index: int
    relevance_score: float
    document: NotRequired[PassageAnswer]


class RerankMeta(TypedDict):
    warnings: list[str]


class RerankAnswer(TypedDict):
    """Cohere's and Jina's clients read `results`, Voyage's `data`, which is the same on `/v1/rerank`."""

    model: str
    results: list[RerankResultAnswer]
    data: NotRequired[list[RerankResultAnswer]]
    usage: dict[Literal["total_tokens"], int]
    degraded: list[Degradation]
    """What the model did not read, as in the answer to a search."""
    meta: RerankMeta
    """The same in words, where Cohere's API has it."""


class ScoredText(TypedDict):
    index: int
    score: float
    text: NotRequired[str]


async def rerank(service: ServiceDep, request: Request, body: RerankBody) -> Response:
    """Best first, scores in [0, 1]. A request with `texts` gets the shape of text-embeddings-inference: a bare list.

    What had to be cut is in `degraded`, and its codes are in the header `X-Azimuth-Degraded`.
    """
    reranker = service.reranker
    if reranker is None:
        raise ModelUnavailable("no reranker is configured: AZIMUTH_RERANKER")
    if service.model_aliases.get(body.model or "default", body.model) not in (None, "default", reranker.name):
        raise Invalid.at("model", f"this service reranks with {reranker.name}; AZIMUTH_MODEL_ALIASES maps other names")
    passages = body.passages()
    reading = await reranker.read(body.query, passages)
    degraded = _degraded(reading)
    scores = [math.log(max(one, 1e-9) / max(1 - one, 1e-9)) if body.raw_scores else one for one in reading.scores]
    headers = {"X-Azimuth-Degraded": ", ".join(one.code for one in degraded)} if degraded else None
    order = sorted(range(len(passages)), key=lambda at: (-scores[at], at))[: body.top_n or body.top_k]
    if body.texts is not None:
        return JsonResponse(
            [
                ScoredText(index=at, score=scores[at]) | ({"text": passages[at]} if body.return_text else {})
                for at in order
            ],
            headers=headers,
        )
    results = [
        RerankResultAnswer(index=at, relevance_score=scores[at])
        | ({"document": PassageAnswer(text=passages[at])} if body.return_documents else {})
        for at in order
    ]
    answer = RerankAnswer(
        model=reranker.name,
        results=results,
        usage={"total_tokens": reading.tokens},
        degraded=degraded,
        meta=RerankMeta(warnings=[one.reason for one in degraded]),
    )
    if request.scope["route"].path == "/v1/rerank":
        answer["data"] = results
    return JsonResponse(answer, headers=headers)


def _degraded(reading: RerankScores) -> list[Degradation]:
    notes = {}
    if reading.query_share < 1:
        notes["query_truncated"] = query_cut_reason(reading.query_share)
    if reading.truncated:
        notes["passages_truncated"] = f"{reading.truncated} of {len(reading.scores)} texts were read without their end"
    return [Degradation(stage="rerank", code=code, reason=reason) for code, reason in notes.items()]


for _path in ("/rerank", "/v1/rerank", "/v2/rerank"):
    router.post(_path, summary="Order texts by relevance", response_model=RerankAnswer | list[ScoredText])(rerank)
