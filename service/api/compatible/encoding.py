"""Texts of a request become vectors: the one way for OpenAI's route and for those of other APIs."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from service.api.dependencies import LongTexts, Service
from service.api.schemas.base import MAX_DIMENSIONS, RequestBody
from service.api.schemas.collections import ModelBody
from service.core import metrics
from service.core.collections import EXTERNAL, EmbedderSpec
from service.core.concurrency import off_loop
from service.core.errors import FieldError, Invalid, ModelUnavailable, TooLarge
from service.core.ids import Role, Vectors
from service.core.ports.embedder import Encoder, ModelInput
from service.core.vector_math import finite, unit_rows

MAX_TEXTS = 2_048
"""As OpenAI has it; also of the parts of long texts."""
MAX_LENGTH = 100_000
MAX_UNCUT_LENGTH = 2_000_000
"""Of a text that may be cut or is only tokenized: a whole document with its title."""

FINGERPRINT_HEADER = "X-Azimuth-Fingerprint"

_Texts = Annotated[list[Annotated[str, Field(max_length=MAX_UNCUT_LENGTH)]], Field(min_length=1, max_length=MAX_TEXTS)]


def text_list(value: Any) -> Any:
    if not isinstance(value, str | list):
        raise ValueError("expected a string or a list of strings")
    return [value] if isinstance(value, str) else value


TextsField = Annotated[
    _Texts,
    BeforeValidator(text_list, json_schema_input_type=Annotated[str, Field(max_length=MAX_UNCUT_LENGTH)] | _Texts),
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
    """What clients of other APIs send and what changes nothing here: vectors have length 1."""

    user: Annotated[str | None, Field(max_length=512)] = None
    priority: int | None = None
    late_chunking: bool | None = None
    normalize: bool | None = None
    normalized: bool | None = None
    truncation: bool | None = None
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


class TextsBody(EncoderBody, OtherApisBody):
    """A request to encode texts, with the options that several APIs have, each under its own name."""

    truncate: Annotated[
        TruncateField | None,
        Field(description="Whether the end of a text may be left out that is longer than the model takes."),
    ] = None
    truncate_dim: Annotated[int | None, Field(ge=1, le=MAX_DIMENSIONS)] = None
    output_dimension: Annotated[int | None, Field(ge=1, le=MAX_DIMENSIONS)] = None

    def spec(self) -> EmbedderSpec:
        return replace(super().spec(), dimensions=self.dimensions or self.truncate_dim or self.output_dimension)

    def long_texts(self) -> LongTexts | None:
        """What is to become of long texts; None where the request does not say."""
        cut = self.truncation if self.truncate is None else self.truncate
        if cut is None:
            return None
        return "truncate" if cut and self.truncation_direction not in ("left", "Left") else "refuse"


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedTexts:
    """Vectors in the order of the texts. `tokens`: what the model read. `headers`: of the answer."""

    vectors: Vectors
    tokens: int
    model: str
    headers: Mapping[str, str]

    async def rows(self, packed: bool = False) -> list[Any]:
        """The vectors as lists of numbers, or `packed` as base64 of little-endian float32."""
        one = partial(packed_numbers, dtype="<f4") if packed else np.ndarray.tolist
        return await off_loop(self.vectors.nbytes, lambda: [one(row) for row in self.vectors])


async def encode_texts(
    service: Service,
    body: TextsBody,
    texts: Sequence[str],
    usual: LongTexts = "refuse",
    *,
    role: Role = "document",
    field: str,
    unusable: Literal["refuse", "return"] = "refuse",
) -> EncodedTexts:
    """The vectors of the texts. Invalid names those that cannot be encoded, as elements of `field`.

    `usual`: what becomes of long texts in this API, where neither the request nor the operator says it. `unusable`:
    whether a text without a usable vector (NaN, infinite or zero) is refused, or its row returned as it is.
    """
    handling = body.long_texts() or service.limits.long_texts or usual
    _check_texts(texts, field, handling, unusable == "refuse")
    spec, encoder = await body.encoder(service)
    inputs = await service.embedders.read(encoder, texts, role)
    headers: dict[str, str] = {FINGERPRINT_HEADER: encoder.identity.fingerprint}
    if long := [at for at, one in enumerate(inputs) if one.cut]:
        metrics.LONG_TEXTS.labels(handling).inc(len(long))
        headers["X-Azimuth-Long-Texts"] = f"{handling};texts={len(long)}"
        if handling == "refuse":
            too_long = f"has more tokens than the {encoder.identity.max_tokens} that this model takes"
            _refuse(field, dict.fromkeys(long, too_long))
    if long and handling == "chunk-mean":
        vectors, tokens = await _means_of_parts(service, encoder, texts, inputs, role)
    else:
        vectors, tokens = await service.embedders.forward(encoder, inputs, role), sum(map(len, inputs))
    if await service.embedders.get(spec) is not encoder:
        raise ModelUnavailable("the model was replaced while it encoded; try again", retry_after=1.0)
    if unusable == "refuse":
        none = [at for at, usable in enumerate(finite(vectors)) if not usable]
        _refuse(field, dict.fromkeys(none, "the model gives no usable vector for this text"))
    return EncodedTexts(vectors=vectors, tokens=tokens, model=spec.model, headers=headers)


async def _means_of_parts(
    service: Service, encoder: Encoder, texts: Sequence[str], inputs: Sequence[ModelInput], role: Role
) -> tuple[Vectors, int]:
    """The vectors of the texts, of which long ones are read in parts, and the tokens that were read.

    The vector of a long text is the mean of its parts', weighted by their tokens and brought to length 1.
    """
    room = encoder.identity.max_tokens - encoder.overhead(role)
    step = max(1, room - room // 8)  # the halves of a word that is cut may have more tokens than it had
    read, starts = list[ModelInput](), list[int]()
    for text, one in zip(texts, inputs, strict=True):
        starts.append(len(read))
        if not one.cut:
            read.append(one)
            continue
        [offsets] = await asyncio.to_thread(encoder.offsets, [text])
        parts = [text[start:end] for start, end in pairwise([0, *offsets[step::step, 0], len(text)])]
        if len(read) + len(parts) > MAX_TEXTS:
            raise TooLarge(f"the texts are read in parts, of which there are more than {MAX_TEXTS}")
        read += await service.embedders.read(encoder, parts, role)
    rows, lengths = await service.embedders.forward(encoder, read, role), np.array(list(map(len, read)))
    means = unit_rows(np.add.reduceat(rows * lengths[:, None], starts)).astype(np.float32)
    return means, int(lengths.sum())


def _check_texts(texts: Sequence[str], field: str, handling: LongTexts, usable: bool) -> None:
    """Invalid where a text cannot be encoded whole."""
    reasons: dict[int, str] = {}
    for at, text in enumerate(texts):
        if usable and not text:
            reasons[at] = "must not be empty"
        elif usable and "\0" in text:
            reasons[at] = "contains a NUL character"
        elif handling == "refuse" and len(text) > MAX_LENGTH:
            reasons[at] = f"should have at most {MAX_LENGTH} characters"
    _refuse(field, reasons)


def _refuse(field: str, reasons: Mapping[int, str]) -> None:
    """Invalid with the reasons, by the place of the text, where there are any."""
    if reasons:
        errors = [FieldError(f"{field}.{at}", reason) for at, reason in reasons.items()]
        raise Invalid(f"{len(errors)} of the texts cannot be encoded", errors)


def packed_numbers(numbers: npt.NDArray[Any], dtype: str) -> str:
    """Base64 of the numbers in this type."""
    return base64.b64encode(numbers.astype(dtype).tobytes()).decode()
