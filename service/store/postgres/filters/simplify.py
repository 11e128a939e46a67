"""An equivalent filter that costs less for each document: one set of values in place of many conditions.

Negations move inwards, an `$and` in an `$and` and an `$or` in an `$or` are dissolved, and the equalities of one field
are merged: `$eq` and `$in` under `$or`, `$ne` and `$nin` under `$and`. The other two pairs stay as they are, because of
an array each condition may hold for another element.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from service.core.filters import And, Condition, Filter, Not, Operator, Or

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
    """With one list of values for each field that is compared with several. To Python 1, 1.0 and True are the same."""
    single = "$eq" if operator == "$in" else "$ne"
    found: dict[tuple[str, ...] | int, Filter] = {}
    fields: defaultdict[tuple[str, ...], list[Condition]] = defaultdict(list)
    for part in parts:
        if isinstance(part, Condition) and part.operator in (single, operator):
            found.setdefault(part.path, part)
            fields[part.path].append(part)
        else:
            found[len(found)] = part
    for path, conditions in fields.items():
        if len(conditions) > 1:
            values = {(type(value), value): value for condition in conditions for value in condition.operands}
            found[path] = replace(conditions[0], operator=operator, operand=tuple(values.values()))
    return tuple(found.values())
