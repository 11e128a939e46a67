"""Facets: how many documents have each value of a field."""

from dataclasses import dataclass

MAX_DISTINCT = 300_000
"""Different lists of values that a field may have in the documents that are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FacetRequest:
    """The `limit` most frequent values of a field, which is named as in a filter."""

    field: str
    limit: int = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class FacetValue:
    """A document counts once, however often it has the value."""

    value: str | int | float | bool
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FacetNumbers:
    """Over the values that are numbers; `count`: of the documents that have one."""

    min: int | float
    max: int | float
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Facet:
    """`values`: the most frequent first, ties by value. `distinct`: of all values. `documents` have at least one value,
    `missing` have none. `numbers`: None where no value is one."""

    field: str
    values: tuple[FacetValue, ...]
    distinct: int
    documents: int
    missing: int
    numbers: FacetNumbers | None = None
