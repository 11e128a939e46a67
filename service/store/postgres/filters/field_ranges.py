"""What the values of declared fields say about a filter: ranges of `indexed_values AS v`, in the order of its key.

A condition gives a range where its operand has an order there: numbers, booleans, instants, and texts shorter than the
stored prefix of a text (`indexed_fields.PREFIX`). A stored prefix compares with such an operand as the whole text
would: where it is shorter than the limit it is the whole text, and where it is not, it differs from the operand before
the operand's end or goes on beyond it.

Conditions on one field narrow the same range. That is their meaning only for documents with one value there: of an
array, each condition may hold for another element. So documents with several values are checked one by one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg import sql

from service.core.filters import And, Condition, Filter, Scalar
from service.core.metadata import Instant
from service.store.postgres.filters.filter_sql import COMPARISONS
from service.store.postgres.filters.indexed_fields import PREFIX

_BOOLEAN, _NUMBER, _TEXT, _INSTANT = 0, 1, 2, 3
_KINDS = {
    _BOOLEAN: (sql.SQL("v.kind = 0"), sql.SQL("v.number"), sql.SQL("numeric")),
    _NUMBER: (sql.SQL("v.kind = 1"), sql.SQL("v.number"), sql.SQL("numeric")),
    _TEXT: (sql.SQL("v.kind = 2 AND v.number = 0"), sql.SQL("v.text"), sql.SQL("text")),
    _INSTANT: (sql.SQL("v.kind = 3"), sql.SQL("v.number"), sql.SQL("numeric")),
}


FieldNumbers = Mapping[tuple[str, bool], int]
"""Fields that are ready, by name and by whether they hold instants: a filter may know of a type earlier or later."""


@dataclass(frozen=True, slots=True)
class FieldRange:
    """A range of one field. Every document that passes has a value in it, unless it has several values there.

    `expression` over `indexed_values AS v`, with its placeholders in `values`. `narrowed`: by several conditions, so
    that it says nothing about documents with several values.
    """

    expression: sql.Composable
    values: Mapping[str, Any]
    narrowed: bool


@dataclass(frozen=True, slots=True)
class RangedFilter:
    """`complete`: the single range is equivalent to the filter."""

    ranges: tuple[FieldRange, ...]
    complete: bool


def ranges_of(where: Filter, fields: FieldNumbers) -> RangedFilter:
    """The ranges that a filter implies in these fields."""
    found: dict[tuple[int, int], list[Condition]] = {}
    complete = True
    for part in _conjuncts(where):
        if (
            isinstance(part, Condition)
            and (kind := _condition_kind(part)) is not None
            and (number := fields.get((".".join(part.path), kind == _INSTANT))) is not None
        ):
            found.setdefault((number, kind), []).append(part)
        else:
            complete = False
    ranges = tuple(_range(number, kind, parts) for (number, kind), parts in found.items())
    return RangedFilter(ranges, complete and len(ranges) == 1)


def _conjuncts(where: Filter) -> Iterator[Filter]:
    if isinstance(where, And):
        for part in where.parts:
            yield from _conjuncts(part)
    else:
        yield where


def _condition_kind(condition: Condition) -> int | None:
    """The kind of the values that can satisfy it; None where the values do not decide."""
    if condition.operator == "$in" and isinstance(condition.operand, tuple):
        kinds = {_operand_kind(one) for one in condition.operand}
        return kinds.pop() if len(kinds) == 1 else None
    if condition.operator in COMPARISONS and not isinstance(condition.operand, tuple):
        return _operand_kind(condition.operand)
    return None


def _operand_kind(operand: Scalar) -> int | None:
    match operand:
        case bool():
            return _BOOLEAN
        case int() | float():
            return _NUMBER
        case str() if len(operand) < PREFIX:
            return _TEXT
        case Instant():
            return _INSTANT
        case _:
            return None


def _range(number: int, kind: int, conditions: Sequence[Condition]) -> FieldRange:
    of_kind, column, type_ = _KINDS[kind]
    values: dict[str, Any] = {"field": number}
    tests = [sql.SQL("v.field = {} AND {}").format(sql.Placeholder("field"), of_kind)]
    for condition in conditions:
        name = f"key_{len(values)}"
        if isinstance(condition.operand, tuple):
            values[name] = [_value(one) for one in condition.operand]
            tests.append(sql.SQL("{} = ANY ({}::{}[])").format(column, sql.Placeholder(name), type_))
        else:
            values[name] = _value(condition.operand)
            comparison = sql.SQL(COMPARISONS[condition.operator])
            tests.append(sql.SQL("{} {} {}::{}").format(column, comparison, sql.Placeholder(name), type_))
    return FieldRange(sql.SQL(" AND ").join(tests), values, narrowed=len(conditions) > 1)


def _value(operand: Scalar) -> Decimal | str:
    """A number as the decimal that JSON writes."""
    if isinstance(operand, bool | Decimal):
        return Decimal(operand)
    return Decimal(repr(operand)) if isinstance(operand, int | float) else str(operand)
