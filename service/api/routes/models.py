"""The models: OpenAI's list of them, and the identity of one, which makes a remote model verifiable.

`embedder/models/remote_encoder.py` reads it: the parts and numbers here give the same fingerprint there.
"""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import JsonResponse
from service.api.compatible.encoding import FINGERPRINT_HEADER, MAX_TEXTS, MAX_UNCUT_LENGTH, EncoderBody
from service.api.dependencies import Service, ServiceDep
from service.api.problems import error_responses
from service.api.routing import JsonRoute
from service.core.collections import EmbedderSpec
from service.core.errors import Invalid, NotFound
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
    """Identity of a model. `parts`: what decides where it places a text; with the numbers they give the fingerprint."""

    fingerprint: str
    parts: Mapping[str, str]
    dimensions: int
    max_tokens: int
    batch_tokens: int
    overhead: OverheadAnswer
    limits: LimitsAnswer


class ModelAnswer(TypedDict):
    """OpenAI's shape. `azimuth` is null where the model is not loaded."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    azimuth: IdentityAnswer | None


class ModelsAnswer(TypedDict):
    object: Literal["list"]
    data: list[ModelAnswer]


@router.get("/v1/models", summary="List models")
async def list_models(service: ServiceDep) -> ModelsAnswer:
    """The models that collections and requests may name, the default one first. Listing loads none of them."""
    data = [_model_answer(service, name, encoder) for name, encoder in service.embedders.models().items()]
    return {"object": "list", "data": data}


@router.get("/v1/models/{id:id}", summary="One model", responses=error_responses(404))
async def get_model(service: ServiceDep, id: Annotated[str, Path(max_length=300)]) -> ModelAnswer:
    """A model that collections and requests may name, also by another name of it. It is not loaded for this."""
    try:
        name = service.embedders.resolve(EmbedderSpec(model=id)).model
    except Invalid as error:
        raise NotFound(f"there is no model {id!r} here; GET /v1/models lists those that there are") from error
    return _model_answer(service, id, service.embedders.models().get(name))


@router.post(
    "/v1/models/identify", summary="Identity of a model", response_model=ModelAnswer, responses=error_responses(503)
)
async def identify(service: ServiceDep, body: EncoderBody) -> Response:
    """The present identity of a model, with these prompts and dimensions. It is loaded where needed, or was changed."""
    spec, encoder = await body.encoder(service)
    if not await asyncio.to_thread(encoder.unchanged):
        await service.embedders.forget(spec)
        encoder = await service.embedders.get(spec)
    answer = _model_answer(service, spec.model, encoder)
    return JsonResponse(answer, headers={FINGERPRINT_HEADER: encoder.identity.fingerprint})


def _model_answer(service: Service, name: str, encoder: Encoder | None) -> ModelAnswer:
    answer = ModelAnswer(id=name, object="model", created=0, owned_by="azimuth", azimuth=None)
    if encoder is not None:
        identity = encoder.identity
        answer["azimuth"] = IdentityAnswer(
            fingerprint=identity.fingerprint,
            parts=identity.parts,
            dimensions=identity.dimensions,
            max_tokens=identity.max_tokens,
            batch_tokens=encoder.batch_tokens,
            overhead=OverheadAnswer(query=encoder.overhead("query"), document=encoder.overhead("document")),
            limits=LimitsAnswer(texts=MAX_TEXTS, length=MAX_UNCUT_LENGTH, body_bytes=service.limits.body_bytes),
        )
    return answer
