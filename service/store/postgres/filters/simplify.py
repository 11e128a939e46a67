"""An equivalent filter that costs less for each document: one set of values in place of many conditions.

Negations move inwards, an `$and` in an `$and` and an `$or` in an `$or` are dissolved, and the equalities of one field
are merged: `$eq` and `$in` under `$or`, `$ne` and `$nin` under `$and`. The other two pairs stay as they are, because of
an array each condition may hold for another element.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from service.core.filters import And, Condition, Filter, Not, Operator, Or, Scalar

_NEGATIONS: dict[Operator, Operator] = {"$eq": "$ne", "$ne": "$eq", "$in": "$nin", "$nin": "$in"}


def simplified(where: Filter, *, negated: bool = False) -> Filter:
    """The filter, or its negation."""
    match where:
        case Not(part):
            return simplified(part, negated=not negated)
        case Condition(operator=operator):
            if not negated:
                return where
            return replace(where, operator=_NEGATIONS[operator]) if operator in _NEGATIONS else Not(where)
        case And(parts) | Or(parts):
            conjunction = isinstance(where, And) is not negated
            found: list[Filter] = []
            for part in (simplified(part, negated=negated) for part in parts):
                found += part.parts if isinstance(part, And if conjunction else Or) else [part]
            merged = _merged(found, "$nin" if conjunction else "$in")
            if len(merged) == 1:
                return merged[0]
            return And(merged) if conjunction else Or(merged)


def _merged(parts: Sequence[Filter], operator: Literal["$in", "$nin"]) -> tuple[Filter, ...]:
    """With one list of values for each field that is compared with several."""
    single = "$eq" if operator == "$in" else "$ne"
    first: dict[tuple[str, ...], int] = {}
    found: list[list[Filter]] = []
    for part in parts:
        if not isinstance(part, Condition) or part.operator not in (single, operator):
            found.append([part])
        elif part.path in first:
            found[first[part.path]].append(part)
        else:
            first[part.path] = len(found)
            found.append([part])
    return tuple(_union(group, operator) if len(group) > 1 else group[0] for group in found)


def _union(conditions: Iterable[Filter], operator: Literal["$in", "$nin"]) -> Condition:
    """To Python 1, 1.0 and True are the same value."""
    of = [one for one in conditions if isinstance(one, Condition)]
    values: dict[tuple[type, Scalar], Scalar] = {}
    for one in of:
        for value in one.operand if isinstance(one.operand, tuple) else (one.operand,):
            values[type(value), value] = value
    return replace(of[0], operator=operator, operand=tuple(values.values()))
