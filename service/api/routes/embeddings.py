"""The models that encode, as a service of their own: OpenAI's embeddings, TEI's tokenize.

What goes beyond those shapes is what another Azimuth needs to encode here as if the model were its own
(`embedder/models/remote_encoder.py`): the prompts of the collection, and texts cut as an encoder cuts them. Every
answer names the fingerprint of the model.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import numpy.typing as npt
from fastapi import APIRouter
from pydantic import BeforeValidator, Field, model_validator
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import large_answer
from service.api.dependencies import Service, ServiceDep
from service.api.problems import error_responses
from service.api.routing import QueryRoute
from service.api.schemas.base import MAX_DIMENSIONS, RequestBody
from service.api.schemas.collections import ModelBody
from service.core.collections import EXTERNAL, EmbedderSpec
from service.core.errors import FieldError, Invalid, ModelUnavailable
from service.core.ids import Role
from service.core.portions import portions
from service.core.ports.embedder import Encoder
from service.core.vector_math import finite

MAX_TEXTS = 1_000
MAX_LENGTH = 100_000
MAX_UNCUT_LENGTH = 2_000_000
"""Of a text that may be cut or is only tokenized: a whole document with its title."""
MAX_SHOWN_LENGTH = 100_000
"""Of all texts whose tokens are shown: each takes a hundred bytes and more of the answer."""
TOKENIZED_AT_ONCE = 100_000
"""Characters."""

FINGERPRINT_HEADER = "X-Azimuth-Fingerprint"

router = APIRouter(tags=["models"], route_class=QueryRoute, responses=error_responses(429, 503))

_Texts = Annotated[list[Annotated[str, Field(max_length=MAX_UNCUT_LENGTH)]], Field(min_length=1, max_length=MAX_TEXTS)]


def _text_list(value: Any) -> Any:
    ids = value[0] if isinstance(value, list) and value and isinstance(value[0], list) else value
    if isinstance(ids, list) and ids and all(type(one) is int for one in ids):
        raise ValueError(
            "token ids cannot be read, for nothing says which tokenizer made them: send the texts "
            "(for OpenAIEmbeddings of LangChain set check_embedding_ctx_length=False)"
        )
    if not isinstance(value, str | list):
        raise ValueError("expected a string or a list of strings")
    return [value] if isinstance(value, str) else value


TextsField = Annotated[
    _Texts,
    BeforeValidator(_text_list, json_schema_input_type=Annotated[str, Field(max_length=MAX_UNCUT_LENGTH)] | _Texts),
]
"""One text, or several."""


def _role(value: Any) -> Any:
    """As Cohere (`search_query`) and Jina (`retrieval.query`, `text-matching`) name it, too."""
    name = value.rpartition(".")[2].removeprefix("search_") if isinstance(value, str) else value
    return "document" if name in ("passage", "classification", "clustering", "separation", "text-matching") else name


RoleField = Annotated[Role, BeforeValidator(_role, str)]


TruncateField = Annotated[
    bool, BeforeValidator(lambda value: {"NONE": False, "START": False, "END": True}.get(str(value), value), bool | str)
]
"""Also in Cohere's words. Texts are cut at their end alone, so that `START` leaves them whole."""


class OtherApisBody(RequestBody):
    """What clients of OpenAI, Cohere, Jina and TEI send and what changes nothing here: vectors have length 1."""

    user: Annotated[str | None, Field(max_length=512)] = None
    priority: int | None = None
    embedding_types: Annotated[list[Literal["float"]], Field(max_length=10)] | None = None
    late_chunking: bool | None = None
    normalize: bool | None = None
    normalized: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None


class EncoderBody(ModelBody):
    """The model of a request, and what a collection defines beside it."""

    async def encoder(self, service: Service) -> tuple[EmbedderSpec, Encoder]:
        """The encoder, loaded where need be. Invalid, with the fields as this request names them."""
        if self.model == EXTERNAL:
            raise Invalid.at("model", f"{EXTERNAL} vectors come from the client: there is no model to encode with")
        try:
            spec = service.embedders.resolve(self.spec())
            return spec, await service.embedders.get(spec)
        except Invalid as error:
            errors = [replace(one, field=one.field.removeprefix("embedder.")) for one in error.errors]
            raise Invalid(error.detail.removeprefix("embedder."), errors) from error


class EmbeddingsBody(EncoderBody, OtherApisBody):
    """OpenAI's request. `input_type` says which of the model's prompts goes before the texts."""

    input: TextsField
    encoding_format: Literal["float", "base64"] = "float"
    embedding_type: Literal["float", "base64"] | None = None
    input_type: RoleField = "document"
    task: RoleField | None = None
    prompt_name: RoleField | None = None
    truncate_dim: Annotated[int | None, Field(ge=1, le=MAX_DIMENSIONS)] = None
    truncate: Annotated[
        TruncateField, Field(description="Cut a text at its end that is longer than the model takes; else refuse it.")
    ] = False
    unusable: Annotated[
        Literal["refuse", "return"],
        Field(
            description="How to treat a text without a usable vector (NaN, infinite or zero). `return`: its row comes "
            "as it is, in base64; such texts may be empty."
        ),
    ] = "refuse"

    @property
    def role(self) -> Role:
        return self.task or self.prompt_name or self.input_type

    @property
    def packed(self) -> bool:
        return "base64" in (self.encoding_format, self.embedding_type)

    @property
    def cuts(self) -> bool:
        return self.truncate and self.truncation_direction not in ("left", "Left")

    def spec(self) -> EmbedderSpec:
        return replace(super().spec(), dimensions=self.dimensions or self.truncate_dim)

    @model_validator(mode="after")
    def _base64_for_unusable(self) -> Self:
        if self.unusable == "return" and not self.packed:
            raise ValueError("unusable rows cannot be written as JSON numbers: request base64")
        return self

    def check_texts(self) -> None:
        """Invalid where a text cannot be encoded whole."""
        reasons: dict[int, str] = {}
        for at, text in enumerate(self.input):
            if self.unusable == "refuse" and not text:
                reasons[at] = "must not be empty"
            elif self.unusable == "refuse" and "\0" in text:
                reasons[at] = "contains a NUL character"
            elif not self.cuts and len(text) > MAX_LENGTH:
                reasons[at] = f"should have at most {MAX_LENGTH} characters"
        _refuse(reasons)


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


@router.post("/v1/embeddings", summary="Encode texts", response_model=EmbeddingsAnswer)
async def embeddings(service: ServiceDep, body: EmbeddingsBody) -> Response:
    """Vectors of length 1, in the order of the texts. A text longer than the model takes is refused, unless `truncate`.

    `base64` is little-endian float32. The header `X-Azimuth-Fingerprint` names the model.
    """
    body.check_texts()
    spec, encoder = await body.encoder(service)
    inputs = await service.embedders.read(encoder, body.input, body.role)
    if not body.cuts:
        too_long = f"has more tokens than the {encoder.identity.max_tokens} that this model takes"
        _refuse({at: too_long for at, one in enumerate(inputs) if one.cut})
    vectors = await service.embedders.forward(encoder, inputs, body.role)
    if await service.embedders.get(spec) is not encoder:
        raise ModelUnavailable("the model was replaced while it encoded; try again", retry_after=1.0)
    if body.unusable == "refuse":
        unusable = [at for at, usable in enumerate(finite(vectors)) if not usable]
        _refuse(dict.fromkeys(unusable, "the model gives no usable vector for this text"))
    data = [
        EmbeddingAnswer(object="embedding", index=at, embedding=_base64(row, "<f4") if body.packed else row.tolist())
        for at, row in enumerate(vectors)
    ]
    tokens = sum(map(len, inputs))
    usage = UsageAnswer(prompt_tokens=tokens, total_tokens=tokens)
    return await signed_response(EmbeddingsAnswer(object="list", data=data, model=spec.model, usage=usage), encoder)


def _refuse(reasons: Mapping[int, str]) -> None:
    """Invalid with the reasons, by the place of the text, where there are any."""
    if reasons:
        errors = [FieldError(f"input.{at}", reason) for at, reason in reasons.items()]
        raise Invalid(f"{len(errors)} of the texts cannot be encoded", errors)


def _base64(numbers: npt.NDArray[Any], dtype: str) -> str:
    return base64.b64encode(numbers.astype(dtype).tobytes()).decode()


async def signed_response(answer: Any, encoder: Encoder) -> Response:
    """An answer with the fingerprint of the model that it comes from."""
    return await large_answer(answer, headers={FINGERPRINT_HEADER: encoder.identity.fingerprint})


class TokenizeBody(EncoderBody):
    """The request of text-embeddings-inference, for the tokens of the texts themselves."""

    inputs: TextsField
    add_special_tokens: Annotated[
        Literal[False], Field(description="Special tokens and prompts are counted by `lengths`, and not shown.")
    ] = False
    input_type: Annotated[Role, Field(description="Whose prompt `lengths` counts.")] = "document"
    result: Annotated[
        Literal["tokens", "offsets", "lengths"],
        Field(
            alias="return",
            description="`tokens`; or `offsets`: for each text base64 of little-endian int32 pairs (start, stop); or "
            "`lengths`: tokens as the model would see them uncut, special ones and prompt included.",
        ),
    ] = "tokens"


class TokenAnswer(TypedDict):
    text: str
    special: bool
    start: int
    """In code points of the text."""
    stop: int


@router.post("/tokenize", summary="Tokenize texts", response_model=list[list[TokenAnswer]] | list[str] | list[int])
async def tokenize(service: ServiceDep, body: TokenizeBody) -> Response:
    """Where the tokens of each text begin and end; all of them, however long the text is."""
    if body.result == "tokens" and sum(map(len, body.inputs)) > MAX_SHOWN_LENGTH:
        at_most = f"the tokens of at most {MAX_SHOWN_LENGTH} characters are shown; ask for offsets or lengths"
        raise Invalid.at("inputs", at_most)
    _, encoder = await body.encoder(service)

    def result(texts: Sequence[str]) -> Sequence[list[TokenAnswer] | str | int]:
        if body.result == "lengths":
            return encoder.lengths(texts, body.input_type)
        offsets = encoder.offsets(texts)
        if body.result == "offsets":
            return [_base64(pairs, "<i4") for pairs in offsets]
        return [_tokens(text, pairs) for text, pairs in zip(texts, offsets, strict=True)]

    answer: list[list[TokenAnswer] | str | int] = []
    for texts in portions(body.inputs, len, TOKENIZED_AT_ONCE):  # a tokenizer takes a multiple of them as memory
        answer += await asyncio.to_thread(result, texts)
    return await signed_response(answer, encoder)


def _tokens(text: str, offsets: npt.NDArray[Any]) -> list[TokenAnswer]:
    return [
        TokenAnswer(text=text[start:stop], special=False, start=start, stop=stop) for start, stop in offsets.tolist()
    ]
