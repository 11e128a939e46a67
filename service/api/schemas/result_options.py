"""What the answer to a search shall be: its thresholds, its order, and the text around its hits."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WrapValidator, model_validator
from typing_extensions import TypedDict

from service.api.schemas.base import FilterField, QueryParameters, QueryText, RequestBody, Text, select_fields, text_as
from service.api.schemas.documents import FilterInUrl
from service.core.errors import Invalid
from service.core.facets import Facet, FacetNumbers, FacetRequest, FacetValue
from service.core.metadata import MAX_FIELD_LENGTH, name_error, nfc
from service.core.result_options import MinScore, Neighbours, SortKey, TextAround
from service.core.search import Suggestion

MAX_OFFSET = 10_000
MAX_RANKED = 1_000
"""Hits down to which a search by relevance can be paged: what a leg is asked for at most."""
MAX_SORT_KEYS = 4
MAX_NEIGHBOURS = 20
MAX_FIELDS = 100
MAX_FACETS = 20
FACET_VALUES, MAX_FACET_VALUES = 10, 1_000

SuggestionsField = Annotated[int, Field(ge=1, le=50, description="Most suggestions.")]
TypedField = Annotated[QueryText, Field(max_length=500, description="What was typed so far.", examples=["cancel a ta"])]
FieldName = Annotated[Text, Field(min_length=1, max_length=MAX_FIELD_LENGTH)]


class SuggestQuery(QueryParameters):
    q: TypedField
    k: SuggestionsField = 8
    filter: FilterInUrl | None = None


class SuggestBody(RequestBody):
    query: TypedField
    k: SuggestionsField = 8
    filter: FilterField | None = None


class SuggestAnswer(TypedDict):
    suggestions: tuple[Suggestion, ...]


class MinScoreBody(RequestBody):
    """The least that each hit must have of the scores that are named. A hit without one of them is none."""

    score: Annotated[float | None, Field(description="The final score, which is relative to the best hit.")] = None
    cosine: Annotated[float | None, Field(ge=-1, le=1)] = None
    bm25: Annotated[float | None, Field(ge=0)] = None
    relevance: Annotated[float | None, Field(ge=0, le=1, description="Needs `rerank`, which reads all of `depth`.")] = (
        None
    )

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("give at least one of score, cosine, bm25, relevance")
        return self

    def min_score(self) -> MinScore:
        return MinScore(**self.model_dump())


def _of_score(value: Any) -> Any:
    """A number is about the score itself."""
    return {"score": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


MinScoreField = Annotated[MinScoreBody, BeforeValidator(_of_score, json_schema_input_type=float | MinScoreBody)]


class SortKeyBody(RequestBody):
    """A declared field. Documents without a value come last, whatever the order is."""

    field: FieldName
    order: Literal["asc", "desc"] = "asc"

    def sort_key(self, at: int) -> SortKey:
        return SortKey(field=field_name(self.field, f"sort.{at}"), descending=self.order == "desc")


def _sort_key(value: Any) -> Any:
    """`"-year"` is `{"field": "year", "order": "desc"}`."""
    if isinstance(value, str):
        return {"field": value[1:], "order": "desc"} if value.startswith("-") else {"field": value}
    if not isinstance(value, dict):
        raise ValueError('expected a field, such as "year" or "-year", or an object')
    return value


SortKeyField = Annotated[SortKeyBody, BeforeValidator(_sort_key, json_schema_input_type=str | SortKeyBody)]


def one_or_several(value: Any) -> Any:
    """One value stands for a list of it."""
    return value if isinstance(value, list | None) else [value]


class FacetBody(RequestBody):
    """The most frequent values of a field, and how many documents have them."""

    field: FieldName
    limit: Annotated[int, Field(ge=1, le=MAX_FACET_VALUES)] = FACET_VALUES

    def facet(self, at: int) -> FacetRequest:
        return FacetRequest(field=field_name(self.field, f"facets.{at}"), limit=self.limit)


FacetsField = Annotated[
    list[Annotated[FacetBody, text_as("field", FieldName | FacetBody)]],
    Field(
        max_length=MAX_FACETS,
        description="Fields whose values are counted in all documents that pass the filter.",
        examples=[["kind", {"field": "year", "limit": 20}]],
    ),
]


def facets(bodies: Sequence[FacetBody]) -> tuple[FacetRequest, ...]:
    """Invalid where a name is none, or comes twice."""
    found = {one.facet(at).field: one.facet(at) for at, one in enumerate(bodies)}
    if len(found) < len(bodies):
        raise Invalid.at("facets", "a field is named twice")
    return tuple(found.values())


class FacetsBody(RequestBody):
    facets: Annotated[FacetsField, Field(min_length=1)]
    filter: FilterField | None = None


class FacetAnswer(TypedDict):
    values: tuple[FacetValue, ...]
    """The most frequent first, ties by value. A document counts once, however often it has the value."""
    distinct: int
    """Of all values."""
    documents: int
    """That have at least one value."""
    missing: int
    """That have none."""
    numbers: FacetNumbers | None
    """Over the values that are numbers; null where there are none."""


class FacetsAnswer(TypedDict):
    facets: dict[str, FacetAnswer]


def facets_answer(found: Sequence[Facet]) -> dict[str, FacetAnswer]:
    return {one.field: select_fields(FacetAnswer, one) for one in found}


class NeighboursBody(RequestBody):
    """So many chunks before and after that of the hit, in the text that is shown around it."""

    before: Annotated[int, Field(ge=0, le=MAX_NEIGHBOURS)] = 0
    after: Annotated[int, Field(ge=0, le=MAX_NEIGHBOURS)] = 0


def _around(value: Any, read: Callable[[Any], Any]) -> Any:
    if value == "parent":
        return value
    if not isinstance(value, dict):
        raise ValueError('expected "parent", or an object with before and after')
    return read(value)


AroundField = Annotated[
    NeighboursBody, WrapValidator(_around, json_schema_input_type=Literal["parent"] | NeighboursBody)
]
"""The word itself, or an object."""


def text_around(body: NeighboursBody | None) -> TextAround | None:
    if not isinstance(body, NeighboursBody):
        return body
    return Neighbours(before=body.before, after=body.after)


def field_name(name: str, at: str) -> str:
    """As filters know it. Invalid where no field can have this name."""
    if error := name_error(name):
        raise Invalid.at(at, error)
    return str(nfc(name))
