"""What request bodies and answers share: strict reading, and the fields that several of them have.

Nothing is coerced: "3" is not a number, and an unknown field is an error. Limits that an operator can set are not here
but in `dependencies.RequestLimits`. Answers are typed dicts; a value of the domain whose fields are those of the wire,
in the same order, is a part of them as it is (see `bodies.JsonResponse`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar, cast

import regex
from fastapi import Path
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from service.api.problems import MORE_ERRORS
from service.core import filters
from service.core.concurrency import give_way, release
from service.core.errors import MAX_PLACES
from service.core.filters import Filter
from service.core.ids import CollectionName, DocumentId, VersionNumber
from service.core.metadata import FieldTypes
from service.ingest.validation import DocumentLimits

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_ID_LENGTH = DocumentLimits().id_length
MAX_PAGE = 1_000
MAX_DIMENSIONS = 4_000
"""What pgvector's halfvec can index."""

Settings = TypeVar("Settings", bound="DataclassInstance")
Shape = TypeVar("Shape")


class RequestBody(BaseModel):
    """A JSON object that a client sends. `null` in an optional field means its default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few_unknown(cls, value: Any) -> Any:
        """Pydantic would make an error of each of 200,000 unknown fields."""
        most = len(cls.model_fields) + MAX_PLACES
        if not isinstance(value, dict) or len(value) <= most or cls.model_config.get("extra") != "forbid":
            return value
        unknown = value.keys() - {one.alias or name for name, one in cls.model_fields.items()}
        first = [name for name in value if name in unknown][:MAX_PLACES]
        raise first_errors([_error("extra_forbidden", "", (name,), None) for name in first], len(unknown))

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, value: Any) -> Any:
        """Without the nulls whose fields have another default: where null is the default, it stands for itself."""
        if not isinstance(value, dict) or None not in value.values():
            return value
        fields = cls.model_fields.items()
        others = {one.alias or name for name, one in fields if not one.is_required() and one.default is not None}
        return {name: one for name, one in value.items() if one is not None or name not in others}

    def apply_to(self, settings: Settings) -> Settings:
        """`settings` with the fields changed that the client sent."""
        return replace(settings, **self.model_dump(exclude_unset=True))


def _error(kind: Any, message: Any, place: tuple[int | str, ...], value: Any, **context: Any) -> InitErrorDetails:
    return {"type": PydanticCustomError(kind, message, context), "loc": place, "input": value}


def first_errors(first: Sequence[InitErrorDetails], count: int) -> ValidationError:
    """The first errors of `count`, with one that stands for the others."""
    others = [_error(MORE_ERRORS, "more", (), None, count=count - len(first))] if count > len(first) else []
    return ValidationError.from_exception_data("body", [*first, *others])


def in_groups(max_length: int, size: int = 500) -> WrapValidator:
    """For a long list: validated `size` elements at a time, so that neither values nor errors are made of all at once.
    What was sent is freed in steps, too: a list of more than `size` elements is empty afterwards.

    Stands after the field's other constraints.
    """

    def validate(value: Any, validate_list: Callable[[Any], Any]) -> Any:
        if not isinstance(value, list) or len(value) <= size:
            return validate_list(value)
        try:
            return validated_groups(value, validate_list)
        finally:
            release(value)

    def validated_groups(value: list[Any], validate_list: Callable[[Any], Any]) -> list[Any]:
        if len(value) > max_length:
            raise ValueError(f"should have at most {max_length} items, not {len(value)}")
        found: list[Any] = []
        first: list[InitErrorDetails] = []
        count = 0
        for at in range(0, len(value), size):
            give_way()
            try:
                found += validate_list(value[at : at + size])
            except ValidationError as error:
                if len(first) < MAX_PLACES:
                    errors = error.errors(include_url=False)
                    count += sum(one["ctx"]["count"] - 1 for one in errors if one["type"] == MORE_ERRORS)
                    first += [
                        _error(one["type"], one["msg"], (at + int(one["loc"][0]), *one["loc"][1:]), one["input"])
                        for one in errors
                        if one["type"] != MORE_ERRORS
                    ][: MAX_PLACES - len(first)]
                count += error.error_count()
        if count:
            raise first_errors(first, count)
        return found

    return WrapValidator(validate)


class OneOfBody(RequestBody):
    """Exactly one of the fields in `alternatives` must be there."""

    alternatives: ClassVar[tuple[str, ...]]

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(getattr(self, name) is not None for name in self.alternatives) != 1:
            raise ValueError(f"give exactly one of {', '.join(self.alternatives)}")
        return self


def text_as(field: str, shape: Any) -> BeforeValidator:
    """A text stands for an object with this one field. `shape`: of what may be sent."""

    def read(value: Any) -> Any:
        if not isinstance(value, str | dict):
            raise ValueError("expected a string or an object")
        return {field: value} if isinstance(value, str) else value

    return BeforeValidator(read, json_schema_input_type=shape)


class QueryParameters(BaseModel):
    """Parameters of a query string. All of them are text, so values are converted; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ConfirmedQuery(QueryParameters):
    confirm: Annotated[str, Field(description="The last name or number in the path once more; 428 without it.")] = ""


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains a NUL character")
    return text


_INVISIBLE = regex.compile(r"[\u2800\p{Default_Ignorable_Code_Point}]+")
"""Characters without width, marks of direction and the like, and the blank of Braille."""


def _not_blank(text: str) -> str:
    if not _INVISIBLE.sub("", text).strip():
        raise ValueError("must not be empty")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
"""Text that PostgreSQL can store."""
QueryText = Annotated[
    Text, AfterValidator(_not_blank), Field(min_length=1, max_length=10_000, examples=["cancel a task"])
]
DocumentIdField = Annotated[
    DocumentId,
    AfterValidator(_without_nul),
    Field(min_length=1, max_length=MAX_ID_LENGTH, description="Any text but `.`, `..`; unique in its collection."),
]
CollectionNameField = Annotated[CollectionName, Field(pattern="^[a-z0-9][a-z0-9_-]{0,62}$", examples=["papers"])]
CollectionPath = Annotated[CollectionNameField, Path(description="Name of a collection, or an alias.")]
AliasPath = Annotated[CollectionNameField, Path()]
DocumentIdPath = Annotated[DocumentIdField, Path()]
VersionNumberField = Annotated[VersionNumber, Field(ge=1, le=2**31 - 1)]
VersionPath = Annotated[VersionNumberField, Path()]
ImageField = Annotated[
    str,
    Field(min_length=1, description="`data:image/png;base64,...`, or an address of a host that the operator allows."),
]
VectorField = Annotated[
    list[float],
    Field(
        min_length=1,
        max_length=MAX_DIMENSIONS,
        fail_fast=True,  # one reason is enough: thousands of wrong numbers must not become thousands of errors
        description="As many numbers as the version has dimensions; of any length but zero.",
    ),
]
FilterField = Annotated[
    dict[str, Any],
    Field(
        description="Fields of the metadata and what must hold of them: `$eq $ne $gt $gte $lt $lte $in $nin $exists "
        "$contains`, combined by `$and $or $not`; nested fields by dots.",
        examples=[{"year": {"$gte": 2019}}],
    ),
]


def parse_filter(raw: Any, types: FieldTypes | None = None, at: str = "filter") -> Filter | None:
    """The filter that a client sent; None where it is empty. Invalid names the exact place of an error in it.
    `types`: of declared fields; a search applies them later."""
    return filters.typed(filters.parse(raw, at), types or {}) if raw else None


class PageQuery(QueryParameters):
    cursor: (
        Annotated[str, Field(max_length=8 * MAX_ID_LENGTH, description="`next_cursor` of the page before.")] | None
    ) = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100


def select_fields(shape: type[Shape], value: object) -> Shape:
    """An answer whose fields are some of a domain value's, under the same names."""
    return cast(Shape, {name: getattr(value, name) for name in shape.__annotations__})
