"""OpenAI's embeddings, also as Jina and Voyage ask for them, and TEI's tokenize.

What goes beyond those shapes is what another Azimuth needs to encode here as if the model were its own
(`embedder/models/remote_encoder.py`): the prompts of the collection, and texts cut as an encoder cuts them. Every
answer names the fingerprint of the model.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, cast

import numpy.typing as npt
from fastapi import APIRouter
from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator, model_validator
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import large_answer
from service.api.compatible import openai_tokens
from service.api.compatible.encoding import (
    FINGERPRINT_HEADER,
    MAX_LENGTH,
    MAX_TEXTS,
    EncoderBody,
    RoleField,
    TextsBody,
    TextsField,
    encode_texts,
    packed_numbers,
)
from service.api.dependencies import ServiceDep
from service.api.problems import error_responses
from service.api.routing import OtherApiRoute
from service.core.errors import Invalid
from service.core.ids import Role
from service.core.portions import portions

MAX_SHOWN_LENGTH = 100_000
"""Of all texts whose tokens are shown: each takes a hundred bytes and more of the answer."""
TOKENIZED_AT_ONCE = 100_000
"""Characters."""

router = APIRouter(tags=["models"], route_class=OtherApiRoute, responses=error_responses(429, 503))


def _texts_or_tokens(value: Any, texts: ValidatorFunctionWrapHandler) -> Any:
    arrays = openai_tokens.token_arrays(value)
    return texts(value) if arrays is None else arrays


_Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=MAX_LENGTH)]
_TokenArrays = Annotated[list[_Tokens], Field(min_length=1, max_length=MAX_TEXTS)]


class EmbeddingsBody(TextsBody):
    """OpenAI's request. `input_type` says which of the model's prompts goes before the texts."""

    input: Annotated[
        TextsField,
        WrapValidator(_texts_or_tokens, json_schema_input_type=TextsField | _Tokens | _TokenArrays),
        Field(description="Texts, or token ids of OpenAI's encoding `cl100k_base`."),
    ]
    encoding_format: Literal["float", "base64"] = "float"
    embedding_type: Literal["float", "base64"] | None = None
    encoding_type: Literal["float"] | None = None
    input_type: RoleField = "document"
    task: RoleField | None = None
    prompt_name: RoleField | None = None
    embedding_types: Annotated[list[Literal["float"]], Field(max_length=10)] | None = None
    output_dtype: Literal["float"] | None = None
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

    @model_validator(mode="after")
    def _base64_for_unusable(self) -> Self:
        if self.unusable == "return" and not self.packed:
            raise ValueError("unusable rows cannot be written as JSON numbers: request base64")
        return self

    async def texts(self) -> list[str]:
        """What is to be encoded. Invalid where tokens do not stand for a text."""
        sent = cast(list[Any], self.input)
        return sent if isinstance(sent[0], str) else await openai_tokens.decode(sent)


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
    """Vectors of length 1, in the order of the texts. The header `X-Azimuth-Fingerprint` names the model.

    `base64` is little-endian float32. `X-Azimuth-Long-Texts` says what became of texts longer than the model takes.
    """
    texts = await body.texts()
    encoded = await encode_texts(service, body, texts, role=body.role, field="input", unusable=body.unusable)
    rows = await encoded.rows(body.packed)
    data = [EmbeddingAnswer(object="embedding", index=at, embedding=row) for at, row in enumerate(rows)]
    usage = UsageAnswer(prompt_tokens=encoded.tokens, total_tokens=encoded.tokens)
    answer = EmbeddingsAnswer(object="list", data=data, model=encoded.model, usage=usage)
    return await large_answer(answer, encoded.headers)


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
            return [packed_numbers(pairs, "<i4") for pairs in offsets]
        return [_tokens(text, pairs) for text, pairs in zip(texts, offsets, strict=True)]

    answer: list[list[TokenAnswer] | str | int] = []
    for texts in portions(body.inputs, len, TOKENIZED_AT_ONCE):  # a tokenizer takes a multiple of them as memory
        answer += await asyncio.to_thread(result, texts)
    return await large_answer(answer, {FINGERPRINT_HEADER: encoder.identity.fingerprint})


def _tokens(text: str, offsets: npt.NDArray[Any]) -> list[TokenAnswer]:
    return [
        TokenAnswer(text=text[start:stop], special=False, start=start, stop=stop) for start, stop in offsets.tolist()
    ]
