"""What the values of declared fields answer of a filter: ranges of `indexed_values AS v`, in the order of its key.

A condition is answered where its operand has an order there: numbers, booleans, and texts shorter than what is kept
of a text (`indexed.PREFIX`). Of such operands a prefix compares as the whole text would: where it is shorter than the
limit it is the whole text, and where it is not, it differs from the operand before its end or goes on beyond it.

Conditions on one field narrow the same range. That is their meaning only for documents with one value there: of an
array each condition may hold for another element. So documents with several values are asked one by one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg import sql

from service.core.filters import And, Condition, Filter, Scalar
from service.store.postgres.filters.indexed_fields import PREFIX

_COMPARED = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_BOOLEAN, _NUMBER, _TEXT = 0, 1, 2
_KINDS = {
    _BOOLEAN: (sql.SQL("v.kind = 0"), sql.SQL("v.number"), sql.SQL("numeric")),
    _NUMBER: (sql.SQL("v.kind = 1"), sql.SQL("v.number"), sql.SQL("numeric")),
    _TEXT: (sql.SQL("v.kind = 2 AND v.number = 0"), sql.SQL("v.text"), sql.SQL("text")),
}


@dataclass(frozen=True, slots=True)
class FieldRange:
    """One range of one field, which every document that passes has a value in, unless it has several values there.

    `expression` over `indexed_values AS v`, with its placeholders in `values`. `narrowed`: by several conditions, so
    that it says nothing of documents with several values.
    """

    expression: sql.Composable
    values: Mapping[str, Any]
    narrowed: bool


@dataclass(frozen=True, slots=True)
class RangedFilter:
    """`whole`: the one key says the same as the filter."""

    keys: tuple[FieldRange, ...]
    whole: bool


def answered(where: Filter, fields: Mapping[str, int]) -> RangedFilter:
    """What fields that are ready (their numbers by name) answer of a filter."""
    ranges: dict[tuple[int, int], list[Condition]] = {}
    whole = True
    for part in _conjuncts(where):
        kind = _kind(part) if isinstance(part, Condition) else None
        number = fields.get(".".join(part.path)) if isinstance(part, Condition) else None
        if kind is None or number is None or not isinstance(part, Condition):
            whole = False
        else:
            ranges.setdefault((number, kind), []).append(part)
    keys = tuple(_key(number, kind, parts) for (number, kind), parts in ranges.items())
    return RangedFilter(keys, whole and len(keys) == 1)


def _conjuncts(where: Filter) -> Iterator[Filter]:
    if isinstance(where, And):
        for part in where.parts:
            yield from _conjuncts(part)
    else:
        yield where


def _kind(condition: Condition) -> int | None:
    """Of the values that can satisfy it; None where the values do not tell."""
    if condition.operator == "$in" and isinstance(condition.operand, tuple):
        kinds = {_kind_of(one) for one in condition.operand}
        return kinds.pop() if len(kinds) == 1 else None
    if condition.operator in _COMPARED and not isinstance(condition.operand, tuple):
        return _kind_of(condition.operand)
    return None


def _kind_of(operand: Scalar) -> int | None:
    match operand:
        case bool():
            return _BOOLEAN
        case int() | float():
            return _NUMBER
        case str() if len(operand) < PREFIX:
            return _TEXT
        case _:
            return None


def _key(number: int, kind: int, conditions: Sequence[Condition]) -> FieldRange:
    among, column, type_ = _KINDS[kind]
    values: dict[str, Any] = {"field": number}
    tests = [sql.SQL("v.field = {} AND {}").format(sql.Placeholder("field"), among)]
    for condition in conditions:
        name = f"key_{len(values)}"
        if isinstance(condition.operand, tuple):
            values[name] = [_bound(one) for one in condition.operand]
            tests.append(sql.SQL("{} = ANY ({}::{}[])").format(column, sql.Placeholder(name), type_))
        else:
            values[name] = _bound(condition.operand)
            compared = sql.SQL(_COMPARED[condition.operator])
            tests.append(sql.SQL("{} {} {}::{}").format(column, compared, sql.Placeholder(name), type_))
    return FieldRange(sql.SQL(" AND ").join(tests), values, narrowed=len(conditions) > 1)


def _bound(operand: Scalar) -> Decimal | str:
    """A number as the decimal that JSON writes."""
    if isinstance(operand, bool):
        return Decimal(operand)
    return Decimal(repr(operand)) if isinstance(operand, int | float) else str(operand)
