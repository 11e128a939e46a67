"""What the models are: OpenAI's list of them, and the identity of one, which makes a remote model provable.

`embedder/remote.py` reads it: the parts and numbers here give the same fingerprint there.
"""

import asyncio
from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import JsonRoute
from service.api.dependencies import Here, Service
from service.api.problems import documented
from service.api.routes.embeddings import MAX_TEXTS, MAX_UNCUT_LENGTH, SpecBody, signed
from service.api.schemas import answers
from service.core.ports.embedder import Encoder

router = APIRouter(tags=["models"], route_class=JsonRoute)


class OverheadAnswer(TypedDict):
    query: int
    document: int


class LimitsAnswer(TypedDict):
    """Of one request."""

    texts: int
    length: int
    body_bytes: int


class IdentityAnswer(TypedDict):
    """What a model is. `parts`: what decides where it puts a text; with the numbers they make the fingerprint."""

    fingerprint: str
    parts: dict[str, str]
    dimensions: int
    max_tokens: int
    batch_tokens: int
    overhead: OverheadAnswer
    limits: LimitsAnswer


class ModelAnswer(TypedDict):
    """OpenAI's shape. `azimuth` is null where the model is not in memory."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    azimuth: IdentityAnswer | None


class ModelsAnswer(TypedDict):
    object: Literal["list"]
    data: list[ModelAnswer]


@router.get("/v1/models", summary="List models", response_model=ModelsAnswer, responses=documented(401))
async def models(service: Here) -> Response:
    """The models that collections and requests may name, the default one first. None is loaded for being listed."""
    data = [_model(service, name, encoder) for name, encoder in service.embedders.models().items()]
    return answers.Json(ModelsAnswer(object="list", data=data))


@router.post(
    "/v1/models/identify",
    summary="Say what a model is",
    response_model=ModelAnswer,
    responses=documented(400, 401, 413, 415, 422, 503),
)
async def identify(service: Here, body: SpecBody) -> Response:
    """What a model is now, with these prompts and dimensions. It is loaded where it is not yet, or was changed."""
    spec, encoder = await body.encoder(service)
    if not await asyncio.to_thread(encoder.unchanged):
        await service.embedders.forget(spec)
        encoder = await service.embedders.get(spec)
    return signed(_model(service, spec.model, encoder), encoder)


def _model(service: Service, name: str, encoder: Encoder | None) -> ModelAnswer:
    answer = ModelAnswer(id=name, object="model", created=0, owned_by="azimuth", azimuth=None)
    if encoder is not None:
        identity = encoder.identity
        answer["azimuth"] = IdentityAnswer(
            fingerprint=identity.fingerprint,
            parts=dict(identity.parts),
            dimensions=identity.dimensions,
            max_tokens=identity.max_tokens,
            batch_tokens=encoder.batch_tokens,
            overhead=OverheadAnswer(query=encoder.overhead("query"), document=encoder.overhead("document")),
            limits=LimitsAnswer(texts=MAX_TEXTS, length=MAX_UNCUT_LENGTH, body_bytes=service.limits.body_bytes),
        )
    return answer
