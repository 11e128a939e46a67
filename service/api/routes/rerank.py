"""The models of this process as a service of their own, in the shapes that clients of this field speak.

Encoding is in `encoding`, what the models are in `identities`. Reranking: Cohere's and Jina's (`documents`), and
text-embeddings-inference's (`texts`).
"""

from typing import Annotated, Any, NotRequired, Self

from fastapi import APIRouter
from pydantic import ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import JsonRoute
from service.api.dependencies import Here
from service.api.disconnect import awaited
from service.api.problems import documented
from service.api.routes import embeddings, models
from service.api.routes.embeddings import MAX_LENGTH, MAX_TEXTS
from service.api.schemas import answers, requests
from service.core.errors import Invalid, ModelUnavailable

MAX_QUERY_LENGTH = 10_000

router = APIRouter(tags=["models"], route_class=JsonRoute)
router.include_router(embeddings.router)
router.include_router(models.router)

Input = Annotated[requests.Text, Field(min_length=1, max_length=MAX_LENGTH)]


# ---------------------------------------------------------------- reranking


class PassageBody(requests.Wire):
    text: Input


class RerankBody(requests.Wire):
    """Either `documents` (Cohere, Jina) or `texts` (text-embeddings-inference), and what goes with it."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["documents"]}, {"required": ["texts"]}]})

    query: Annotated[requests.Text, Field(min_length=1, max_length=MAX_QUERY_LENGTH)]
    documents: Annotated[list[Input | PassageBody], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    texts: Annotated[list[Input], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    model: Annotated[requests.Text, Field(min_length=1, max_length=300)] | None = None
    top_n: Annotated[int, Field(ge=1, le=MAX_TEXTS)] | None = None
    return_documents: bool = False
    return_text: bool = False

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.documents is None) == (self.texts is None):
            raise ValueError("give either documents or texts")
        return self

    @property
    def passages(self) -> list[str]:
        return [one if isinstance(one, str) else one.text for one in self.documents or self.texts or ()]


class TextAnswer(TypedDict):
    text: str


class ResultAnswer(TypedDict):
    index: int
    relevance_score: float
    document: NotRequired[TextAnswer]


class RerankedAnswer(TypedDict):
    model: str
    results: list[ResultAnswer]


class ScoredText(TypedDict):
    index: int
    score: float
    text: NotRequired[str]


async def rerank(service: Here, request: Request, body: RerankBody) -> Response:
    """Best first, scores in [0, 1]. Asked with `texts` it answers as text-embeddings-inference does: a bare list."""
    reranker = service.reranker
    if reranker is None:
        raise ModelUnavailable("no reranker is configured: AZIMUTH_RERANKER")
    if body.model not in (None, "default", reranker.name):
        raise Invalid.at("model", f"this service reranks with {reranker.name}")
    passages = body.passages
    scores = (await awaited(request, reranker.read(body.query, passages))).scores
    order = sorted(range(len(passages)), key=lambda at: (-scores[at], at))[: body.top_n]
    shown: Any
    if body.texts is not None:
        shown = [
            ScoredText(index=at, score=scores[at]) | ({"text": passages[at]} if body.return_text else {})
            for at in order
        ]
    else:
        results = [
            ResultAnswer(index=at, relevance_score=scores[at])
            | ({"document": TextAnswer(text=passages[at])} if body.return_documents else {})
            for at in order
        ]
        shown = RerankedAnswer(model=reranker.name, results=results)
    return answers.Json(shown)


for _path in ("/rerank", "/v1/rerank", "/v2/rerank"):
    router.post(
        _path,
        summary="Order texts by relevance",
        response_model=RerankedAnswer | list[ScoredText],
        responses=documented(400, 401, 413, 415, 422, 503),
    )(rerank)
