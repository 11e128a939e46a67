"""text-embeddings-inference. Its `/rerank` is in `routes/rerank.py`, its `/tokenize` in `routes/embeddings.py`."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from service import __version__
from service.api.bodies import large_answer
from service.api.compatible.encoding import MAX_TEXTS, RoleField, TextsBody, TextsField, encode_texts
from service.api.dependencies import ServiceDep
from service.api.routes.rerank import RerankBody, rerank
from service.api.routing import other_api_router, validated
from service.api.schemas.base import RequestBody

router = other_api_router()


class TeiOptionsBody(TextsBody):
    """How texts are encoded; `prompt_name`: which of the model's prompts goes before them."""

    prompt_name: RoleField = "document"
    encoding_format: Literal["float"] | None = None


class EmbedBody(TeiOptionsBody):
    inputs: TextsField


class SentencesBody(RequestBody):
    source_sentence: str
    sentences: Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS - 1)]


class SimilarityBody(TeiOptionsBody):
    inputs: SentencesBody
    parameters: TeiOptionsBody | None = None


class AnyBody(RequestBody):
    """That of `/embed`, `/similarity` or `/rerank`."""

    model_config = ConfigDict(extra="allow")


_EMBED, _SIMILARITY, _RERANK = TypeAdapter(EmbedBody), TypeAdapter(SimilarityBody), TypeAdapter(RerankBody)


@router.post("/embed", summary="Encode texts", response_model=list[list[float]])
async def tei_embed(service: ServiceDep, body: EmbedBody) -> Response:
    """Vectors of length 1, in the order of the texts."""
    encoded = await encode_texts(service, body, body.inputs, role=body.prompt_name, field="inputs")
    return await large_answer(await encoded.rows(), encoded.headers)


@router.post("/similarity", summary="Compare a sentence with others", response_model=list[float])
async def similarity(service: ServiceDep, body: SimilarityBody) -> Response:
    """The cosine of the sentence and each of the others, in their order."""
    options, texts = body.parameters or body, [body.inputs.source_sentence, *body.inputs.sentences]
    encoded = await encode_texts(service, options, texts, role=options.prompt_name, field="inputs")
    return await large_answer((encoded.vectors[1:] @ encoded.vectors[0]).tolist(), encoded.headers)


@router.post("/", summary="What the body is for: /embed, /similarity or /rerank", response_model=list[Any])
async def tei_root(service: ServiceDep, request: Request, body: AnyBody) -> Response:
    """`huggingface_hub` sends everything here."""
    sent = body.model_extra or {}
    if "query" in sent:
        return await rerank(service, request, validated(_RERANK, sent))
    if isinstance(sent.get("inputs"), dict):
        return await similarity(service, validated(_SIMILARITY, sent))
    return await tei_embed(service, validated(_EMBED, sent))


@router.get("/info", summary="The default model and the limits of requests")
async def tei_info(service: ServiceDep) -> dict[str, Any]:
    """The model is loaded where need be."""
    spec, encoder = await TextsBody().encoder(service)
    return {
        "model_id": spec.model,
        "model_sha": spec.revision,
        "model_dtype": "float32",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": service.limits.concurrent,
        "max_input_length": encoder.identity.max_tokens,
        "max_batch_tokens": encoder.batch_tokens,
        "max_client_batch_size": MAX_TEXTS,
        "auto_truncate": service.limits.long_texts == "truncate",
        "version": __version__,
    }


@router.get("/health", summary="The process answers")
async def tei_health() -> dict[str, str]:
    """As `/livez`."""
    return {"status": "alive"}
