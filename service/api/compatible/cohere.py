"""Cohere's embeddings, v1 and v2. Its reranking is in `routes/rerank.py`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from service.api.bodies import large_answer
from service.api.compatible.encoding import RoleField, TextsBody, TextsField, encode_texts, text_list
from service.api.dependencies import ServiceDep
from service.api.routing import other_api_router

router = other_api_router()

_Types = Annotated[list[Literal["float", "base64"]], Field(min_length=1, max_length=10)]


class CohereEmbedBody(TextsBody):
    """`truncate` is `END`, unless the request or the operator says otherwise."""

    texts: TextsField
    input_type: RoleField = "document"
    embedding_types: Annotated[_Types, BeforeValidator(text_list, _Types | str)] | None = None


@router.post("/v1/embed", summary="Encode texts, in the shape of Cohere's v1", response_model=dict[str, Any])
@router.post("/v2/embed", summary="Encode texts, in the shape of Cohere's v2", response_model=dict[str, Any])
async def cohere_embed(service: ServiceDep, request: Request, body: CohereEmbedBody) -> Response:
    """Vectors of length 1 by their type; in v1, where the request names no types, a list of them alone."""
    encoded = await encode_texts(service, body, body.texts, "truncate", role=body.input_type, field="texts")
    version = request.scope["route"].path[2]
    bare = version == "1" and body.embedding_types is None
    by_type = {kind: await encoded.rows(kind == "base64") for kind in dict.fromkeys(body.embedding_types or ["float"])}
    answer = {
        "id": request.state.request_id,
        "response_type": "embeddings_floats" if bare else "embeddings_by_type",
        "embeddings": by_type["float"] if bare else by_type,
        "texts": body.texts,
        "meta": {"api_version": {"version": version}, "billed_units": {"input_tokens": encoded.tokens}},
    }
    return await large_answer(answer, encoded.headers)
