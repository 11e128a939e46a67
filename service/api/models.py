"""The models of this process as a service of their own, in the shapes that clients of this field speak.

Embeddings: OpenAI's. Reranking: Cohere's and Jina's (`documents`), and text-embeddings-inference's (`texts`).
"""

import asyncio
import base64
from dataclasses import replace
from typing import Annotated, Any, Literal, NotRequired, Self

import numpy as np
from fastapi import APIRouter
from pydantic import ConfigDict, Field, model_validator
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api import answers, schemas
from service.api.bodies import JsonRoute
from service.api.dependencies import Here
from service.api.failures import documented
from service.domain import EmbedderSpec, Role, finite
from service.errors import FieldError, Invalid, ModelUnavailable

MAX_TEXTS = 1_000
MAX_LENGTH = 100_000
MAX_QUERY_LENGTH = 10_000

router = APIRouter(tags=["models"], route_class=JsonRoute)

Input = Annotated[schemas.Text, Field(min_length=1, max_length=MAX_LENGTH)]


# ---------------------------------------------------------------- embeddings


class EmbeddingsBody(schemas.Wire):
    """OpenAI's request. `input_type` says which of the model's prompts goes before the texts."""

    input: Input | Annotated[list[Input], Field(min_length=1, max_length=MAX_TEXTS)]
    model: Annotated[schemas.Text, Field(min_length=1, max_length=300)] = "default"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=schemas.MAX_DIMENSIONS)] | None = None
    input_type: Role = "document"
    user: Annotated[str, Field(max_length=512, description="Accepted for OpenAI's clients, and not used.")] | None = (
        None
    )

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class EmbeddingAnswer(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class UsageAnswer(TypedDict):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(TypedDict):
    object: Literal["list"]
    data: list[EmbeddingAnswer]
    model: str
    usage: UsageAnswer


@router.post(
    "/v1/embeddings",
    summary="Encode texts",
    response_model=EmbeddingsAnswer,
    responses=documented(400, 401, 413, 415, 422, 429, 503),
)
async def embeddings(service: Here, body: EmbeddingsBody) -> Response:
    """Vectors of length 1, in the order of the texts. A text longer than the model takes is refused, never cut.

    `base64` is little-endian float32.
    """
    try:
        spec = service.embedders.resolve(EmbedderSpec(model=body.model, dimensions=body.dimensions))
    except Invalid as error:
        raise _at_top(error) from error
    encoder = await service.embedders.get(spec)
    lengths = await asyncio.to_thread(encoder.lengths, body.texts, body.input_type)
    longest = encoder.identity.max_tokens
    _refuse(
        {at: f"{length} tokens; this model takes {longest}" for at, length in enumerate(lengths) if length > longest}
    )
    vectors = await service.embedders.embed(spec, body.texts, body.input_type)
    _refuse(
        {at: "the model gives no usable vector for this text" for at, good in enumerate(finite(vectors)) if not good}
    )
    data = [
        EmbeddingAnswer(
            object="embedding",
            index=at,
            embedding=base64.b64encode(row.astype("<f4").tobytes()).decode()
            if body.encoding_format == "base64"
            else [float(number) for number in np.asarray(row)],
        )
        for at, row in enumerate(vectors)
    ]
    usage = UsageAnswer(prompt_tokens=sum(lengths), total_tokens=sum(lengths))
    return answers.Json(EmbeddingsAnswer(object="list", data=data, model=spec.model, usage=usage))


def _at_top(error: Invalid) -> Invalid:
    """Fields of an embedder, named as this request has them: `embedder.model` is `model` here."""
    errors = [replace(one, field=one.field.removeprefix("embedder.")) for one in error.errors]
    return Invalid(error.detail.removeprefix("embedder."), errors)


def _refuse(reasons: dict[int, str]) -> None:
    if reasons:
        errors = [FieldError(f"input.{at}", reason) for at, reason in reasons.items()]
        raise Invalid(f"{len(errors)} of the texts cannot be encoded", errors)


# ---------------------------------------------------------------- reranking


class PassageBody(schemas.Wire):
    text: Input


class RerankBody(schemas.Wire):
    """Either `documents` (Cohere, Jina) or `texts` (text-embeddings-inference), and what goes with it."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["documents"]}, {"required": ["texts"]}]})

    query: Annotated[schemas.Text, Field(min_length=1, max_length=MAX_QUERY_LENGTH)]
    documents: Annotated[list[Input | PassageBody], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    texts: Annotated[list[Input], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    model: Annotated[schemas.Text, Field(min_length=1, max_length=300)] | None = None
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


async def rerank(service: Here, body: RerankBody) -> Response:
    """Best first, scores in [0, 1]. Asked with `texts` it answers as text-embeddings-inference does: a bare list."""
    reranker = service.reranker
    if reranker is None:
        raise ModelUnavailable("no reranker is configured: AZIMUTH_RERANKER")
    if body.model not in (None, "default", reranker.name):
        raise Invalid.at("model", f"this service reranks with {reranker.name}")
    passages = body.passages
    scores = await reranker.score(body.query, passages)
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
