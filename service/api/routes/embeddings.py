"""The models that encode, as a service of their own: OpenAI's embeddings, TEI's tokenize.

What goes beyond those shapes is what another Azimuth needs to encode here as if the model were its own
(`embedder/remote.py`): the prompts of the collection, texts cut as an encoder cuts them. Every answer names
the fingerprint of what encoded it.
"""

import asyncio
import base64
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from fastapi import APIRouter
from pydantic import Field, model_validator
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import JsonRoute
from service.api.dependencies import Here, Service
from service.api.problems import documented
from service.api.schemas import answers, requests
from service.core.collections import EXTERNAL, EmbedderSpec
from service.core.errors import FieldError, Invalid, ModelUnavailable
from service.core.ids import Role
from service.core.ports.embedder import Encoder
from service.core.vector_math import finite

MAX_TEXTS = 1_000
MAX_LENGTH = 100_000
MAX_UNCUT_LENGTH = 2_000_000
"""Of a text that may be cut or is only tokenized: a whole document with its title."""

FINGERPRINT_HEADER = "X-Azimuth-Fingerprint"

router = APIRouter(tags=["models"], route_class=JsonRoute)

AnyText = Annotated[str, Field(max_length=MAX_UNCUT_LENGTH)]


class SpecBody(requests.Wire):
    """A model, and what a collection asks for on top of it. An empty prompt: the model's own, where it has one."""

    model: Annotated[requests.Text, Field(min_length=1, max_length=300)] = "default"
    revision: Annotated[requests.Text, Field(min_length=1, max_length=100)] | None = None
    dimensions: Annotated[int, Field(ge=1, le=requests.MAX_DIMENSIONS)] | None = None
    query_prompt: Annotated[requests.Text, Field(max_length=2_000)] = ""
    document_prompt: Annotated[requests.Text, Field(max_length=2_000)] = ""

    async def encoder(self, service: Service) -> tuple[EmbedderSpec, Encoder]:
        """Loaded where need be. Invalid, with fields as this request names them."""
        if self.model == EXTERNAL:
            raise Invalid.at("model", f"{EXTERNAL} vectors come from the client: there is no model to encode with")
        spec = EmbedderSpec(
            model=self.model,
            revision=self.revision,
            dimensions=self.dimensions,
            query_prompt=self.query_prompt,
            document_prompt=self.document_prompt,
        )
        try:
            spec = service.embedders.resolve(spec)
            return spec, await service.embedders.get(spec)
        except Invalid as error:
            errors = [replace(one, field=one.field.removeprefix("embedder.")) for one in error.errors]
            raise Invalid(error.detail.removeprefix("embedder."), errors) from error


# ---------------------------------------------------------------- embeddings


class EmbeddingsBody(SpecBody):
    """OpenAI's request. `input_type` says which of the model's prompts goes before the texts."""

    input: AnyText | Annotated[list[AnyText], Field(min_length=1, max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"
    input_type: Role = "document"
    truncate: Annotated[bool, Field(description="Cut a text that is longer than the model takes; else refuse it.")] = (
        False
    )
    unusable: Annotated[
        Literal["refuse", "return"],
        Field(description="What becomes of a text without a usable vector (NaN, infinite or zero). `return`: its row "
        "comes as it is, in base64; such texts may be empty."),
    ] = "refuse"  # fmt: skip
    user: Annotated[str, Field(max_length=512, description="Accepted for OpenAI's clients, and not used.")] | None = (
        None
    )

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input

    @model_validator(mode="after")
    def _base64(self) -> Self:
        if self.unusable == "return" and self.encoding_format != "base64":
            raise ValueError("unusable rows cannot be written as JSON numbers: ask for base64")
        return self

    def check(self) -> None:
        """Invalid where a text is none that could be encoded whole."""
        reasons: dict[int, str] = {}
        for at, text in enumerate(self.texts):
            if self.unusable == "refuse" and not text:
                reasons[at] = "must not be empty"
            elif self.unusable == "refuse" and "\0" in text:
                reasons[at] = "contains a NUL character"
            elif not self.truncate and len(text) > MAX_LENGTH:
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


@router.post(
    "/v1/embeddings",
    summary="Encode texts",
    response_model=EmbeddingsAnswer,
    responses=documented(400, 401, 413, 415, 422, 429, 503),
)
async def embeddings(service: Here, body: EmbeddingsBody) -> Response:
    """Vectors of length 1, in the order of the texts. A text longer than the model takes is refused, unless `truncate`.

    `base64` is little-endian float32. The header `X-Azimuth-Fingerprint` names what encoded them.
    """
    body.check()
    spec, encoder = await body.encoder(service)
    lengths = await asyncio.to_thread(encoder.lengths, body.texts, body.input_type)
    longest = encoder.identity.max_tokens
    if not body.truncate:
        too_long = {at: length for at, length in enumerate(lengths) if length > longest}
        _refuse({at: f"{length} tokens; this model takes {longest}" for at, length in too_long.items()})
    vectors = await service.embedders.embed(spec, body.texts, body.input_type)
    if await service.embedders.get(spec) is not encoder:
        raise ModelUnavailable("the model was replaced while it encoded: try again", retry_after=1.0)
    if body.unusable == "refuse":
        bad = [at for at, good in enumerate(finite(vectors)) if not good]
        _refuse(dict.fromkeys(bad, "the model gives no usable vector for this text"))
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
    tokens = sum(min(length, longest) for length in lengths)
    usage = UsageAnswer(prompt_tokens=tokens, total_tokens=tokens)
    return signed(EmbeddingsAnswer(object="list", data=data, model=spec.model, usage=usage), encoder)


def _refuse(reasons: dict[int, str]) -> None:
    if reasons:
        errors = [FieldError(f"input.{at}", reason) for at, reason in reasons.items()]
        raise Invalid(f"{len(errors)} of the texts cannot be encoded", errors)


def signed(answer: Any, encoder: Encoder) -> Response:
    """An answer that says which embedder it is of."""
    response = answers.Json(answer)
    response.headers[FINGERPRINT_HEADER] = encoder.identity.fingerprint
    return response


# ---------------------------------------------------------------- tokens


class TokenizeBody(SpecBody):
    """The request of text-embeddings-inference, for the tokens of the texts themselves."""

    inputs: AnyText | Annotated[list[AnyText], Field(min_length=1, max_length=MAX_TEXTS)]
    add_special_tokens: Annotated[
        Literal[False], Field(description="Special tokens and prompts are counted by `lengths`, and not shown.")
    ] = False
    input_type: Annotated[Role, Field(description="Whose prompt `lengths` counts.")] = "document"
    wanted: Annotated[
        Literal["tokens", "offsets", "lengths"],
        Field(
            alias="return",
            description="`tokens`; or `offsets`: for each text base64 of little-endian int32 pairs (start, stop); or "
            "`lengths`: tokens as the model would see them uncut, special ones and prompt included.",
        ),
    ] = "tokens"

    @property
    def texts(self) -> list[str]:
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs


class TokenAnswer(TypedDict):
    text: str
    special: bool
    start: int
    """In code points of the text."""
    stop: int


@router.post(
    "/tokenize",
    summary="Cut texts into tokens",
    response_model=list[list[TokenAnswer]] | list[str] | list[int],
    responses=documented(400, 401, 413, 415, 422, 503),
)
async def tokenize(service: Here, body: TokenizeBody) -> Response:
    """Where the tokens of each text begin and end, none left out however long the text is."""
    _, encoder = await body.encoder(service)
    texts = body.texts
    shown: Any
    if body.wanted == "lengths":
        shown = await asyncio.to_thread(encoder.lengths, texts, body.input_type)
    elif body.wanted == "offsets":
        shown = await asyncio.to_thread(_packed_offsets, encoder, texts)
    else:
        shown = await asyncio.to_thread(_tokens, encoder, texts)
    return signed(shown, encoder)


def _packed_offsets(encoder: Encoder, texts: list[str]) -> list[str]:
    return [base64.b64encode(offsets.astype("<i4").tobytes()).decode() for offsets in encoder.offsets(texts)]


def _tokens(encoder: Encoder, texts: list[str]) -> list[list[TokenAnswer]]:
    return [
        [TokenAnswer(text=text[start:stop], special=False, start=start, stop=stop) for start, stop in offsets.tolist()]
        for text, offsets in zip(texts, encoder.offsets(texts), strict=True)
    ]
