"""Filters as SQL: fixed fragments over the metadata of `documents AS d`; every name and value is bound.

The meaning is that of `filters.matches`, and mostly that of SQL/JSON paths in lax mode: a member accessor reads the
objects of an array, a filter expression its elements. Numbers compare as decimals, strings by code point, and values
without an order do not match.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, assert_never

import orjson
from psycopg import sql
from psycopg.types.json import Jsonb

from service.core.filters import ID, And, Condition, Filter, Not, Or, Scalar
from service.core.metadata import DATETIME, Instant, readings
from service.store.postgres.filters.simplify import simplified
from service.store.postgres.rows import text_array

MAX_INDEXED_VALUES = 100
"""Values of `$in` that the index is asked for; a longer list is compared one document at a time."""
MIN_HASHED_VALUES = 9
"""From so many values on PostgreSQL looks each value of a document up in a hash table, whose time does not grow with
their number; a path compares with one after the other."""

_VALUES_PER_LOOKUP = 100
"""Binding so many values costs about as much as a look-up in some hundred documents."""

_AND = sql.SQL(" AND "), sql.SQL("true")
_OR = sql.SQL(" OR "), sql.SQL("false")
"""The operator, and what it gives for no parts."""
_EXISTS = sql.SQL("jsonb_path_exists(d.metadata, {path}::jsonpath)")
_COMPARES = sql.SQL("jsonb_path_exists(d.metadata, {path}::jsonpath, {operand}::jsonb)")
_FINDS = sql.SQL(
    "EXISTS (SELECT FROM unnest({paths}::jsonpath[]) AS p (path), jsonb_path_query(d.metadata, p.path) AS e (value)"
    " WHERE {test})"
)
"""One of the values `e.value` that the paths find passes a test."""
_IS_ANY_OF = sql.SQL("e.value = ANY ({values}::jsonb[])")
_HAS_ELEMENT = sql.SQL("jsonb_typeof(e.value) = 'array' AND e.value @> {element}::jsonb")
_HAS_ELEMENT_OR_PART = sql.SQL(
    "CASE jsonb_typeof(e.value) WHEN 'array' THEN e.value @> {element}::jsonb"
    " WHEN 'string' THEN strpos(e.value #>> '{{}}', {part}) > 0 END"
)

COMPARISONS = {"$eq": "=", "$in": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
INSTANT = sql.SQL(
    "CASE WHEN jsonb_typeof(e.value) = 'string' AND e.value #>> '{}' ~ %(datetime)s"
    " THEN extract(epoch FROM replace(e.value #>> '{}', ',', '.')::timestamptz) END"
)
"""The seconds since 1970 of the JSON value `e.value` (in UTC, as is the session); NULL where it names no instant."""
_COMPARES_INSTANT = sql.SQL("{instant} {operator} ANY ({operands}::numeric[])")
_COMPARES_ID = sql.SQL("d.document_id {operator} ANY ({operands}::text[])")
_CONTAINED_IN_ID = sql.SQL(
    "EXISTS (SELECT FROM unnest({operands}::text[]) AS o (part) WHERE strpos(d.document_id, o.part) > 0)"
)

# A filter expression unwraps an array, and its comparison would unwrap once more: the type test keeps it at one level.
_TESTS: Mapping[str, str] = {
    "$eq": '? (@.type() != "array" && @ == $v)',
    "$in": '? (@.type() != "array" && @ == $v[*])',
    "$gt": '? (@.type() != "array" && @ > $v)',
    "$gte": '? (@.type() != "array" && @ >= $v)',
    "$lt": '? (@.type() != "array" && @ < $v)',
    "$lte": '? (@.type() != "array" && @ <= $v)',
}


@dataclass(frozen=True, slots=True)
class Predicate:
    """A boolean expression over `documents AS d`, never NULL, and the values of its placeholders (`filter_N`).

    `lookups`: how often a document is searched for a path, and the hundreds of values: what the expression costs.
    """

    expression: sql.Composable
    values: Mapping[str, Any]
    lookups: int = 0


def predicate(where: Filter | None) -> Predicate:
    """The filter in SQL; None lets everything pass."""
    return Predicate(_AND[1], {}) if where is None else _predicate(_Same(where))


class _Same:
    """A filter as a key: the very same object. To Python 1, 1.0 and True are equal, and comparing takes time."""

    def __init__(self, where: Filter) -> None:
        self.where = where

    def __hash__(self) -> int:
        return id(self.where)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.where is other.where


@lru_cache(maxsize=32)
def _predicate(key: _Same) -> Predicate:
    """A search uses its filter in several statements: it is composed once."""
    simple, values = simplified(key.where), dict[str, Any]()
    return Predicate(_compose(simple, values), values, _lookups(simple))


def _lookups(where: Filter) -> int:
    match where:
        case And(parts) | Or(parts):
            return 1 + sum(map(_lookups, parts))
        case Not(part):
            return _lookups(part)
        case Condition(path):
            return len(list(readings(path))) + len(where.operands) // _VALUES_PER_LOOKUP


def indexed_predicate(where: Filter) -> Predicate:
    """The same, preceded by a condition for the index over metadata where the filter requires an equality."""
    condition = predicate(where)
    if (path := _necessary(simplified(where))) is None:
        return condition
    expression = sql.SQL("(d.metadata @? {path}::jsonpath AND {condition})")
    values = {**condition.values, "necessary": path}
    both = expression.format(path=sql.Placeholder("necessary"), condition=condition.expression)
    return replace(condition, expression=both, values=values)


def _necessary(where: Filter) -> str | None:
    """A path of equalities alone, which the index supports, that exists in every document that passes; None: none.

    Which of several is the most selective is unknown here: the first is taken.
    """
    match where:
        case And(parts):
            return next(filter(None, map(_necessary, parts)), None)
        case Condition(path, "$eq" | "$in") if path != ID:
            return _equality(accessors(path), where.operands)
        case _:
            return None


def _equality(paths: Sequence[str], values: Sequence[object]) -> str | None:
    """Values are literals of the path language, for the index reads no variables; JSON writes them in the same way."""
    if not 0 < len(paths) * len(values) <= MAX_INDEXED_VALUES or any(isinstance(one, Instant | None) for one in values):
        return None
    any_of = " || ".join(f"@ == {json.dumps(value, ensure_ascii=False)}" for value in values)
    return _any_path(paths, f" ? ({any_of})")


def _any_path(paths: Sequence[str], test: str = "") -> str:
    """A path that finds something where one of the paths does and it passes the test; one, to read metadata once."""
    if len(paths) == 1:
        return f"lax ${paths[0]}{test}"
    return "lax $ ? (" + " || ".join(f"exists(@{path}{test})" for path in paths) + ")"


def _compose(where: Filter, values: dict[str, Any]) -> sql.Composable:
    match where:
        case And(parts) | Or(parts):
            operator, of_none = _AND if isinstance(where, And) else _OR
            expressions = [_compose(part, values) for part in parts]
            return sql.SQL("({})").format(operator.join(expressions)) if parts else of_none
        case Not(part):
            return _not(_compose(part, values))
        case Condition():
            return _id_condition(where, values) if where.path == ID else _condition(where, values)
        case _:
            assert_never(where)


def _not(expression: sql.Composable) -> sql.Composable:
    return sql.SQL("NOT ({})").format(expression)


def _id_condition(condition: Condition, values: dict[str, Any]) -> sql.Composable:
    """The id is a string, and never missing. Its column is compared by code point, and has an index."""
    operator, texts = condition.operator, [one for one in condition.operands if isinstance(one, str)]
    if operator == "$exists":
        return _AND[1] if condition.operand else _OR[1]
    name = f"filter_{len(values)}"
    values[name] = texts
    compared = sql.SQL(COMPARISONS.get(operator, "="))
    test = _CONTAINED_IN_ID if operator == "$contains" else _COMPARES_ID
    expression = test.format(operator=compared, operands=sql.Placeholder(name))
    return _not(expression) if operator in ("$ne", "$nin") else expression


def _condition(condition: Condition, values: dict[str, Any]) -> sql.Composable:
    paths, operand, operands = accessors(condition.path), condition.operand, condition.operands

    def bind(value: object) -> sql.Placeholder:
        name = f"filter_{len(values)}"
        values[name] = value
        return sql.Placeholder(name)

    def exists() -> sql.Composable:
        return _EXISTS.format(path=bind(_any_path(paths)))

    def finds(test: sql.Composable, end: str = "") -> sql.Composable:
        return _FINDS.format(paths=bind([f"lax ${path}{end}" for path in paths]), test=test)

    def compares(operator: str, operand: Scalar | tuple[Scalar, ...]) -> sql.Composable:
        if isinstance(operand, tuple) and len(operand) >= MIN_HASHED_VALUES:
            array = bind(text_array([orjson.dumps(one).decode() for one in operand]))
            return finds(_IS_ANY_OF.format(values=array), "[*]")
        path = bind(_any_path(paths, f" {_TESTS[operator]}"))
        return _COMPARES.format(path=path, operand=bind(Jsonb({"v": operand})))

    def holds(operator: str) -> sql.Composable:
        if instants := [one for one in operands if isinstance(one, Instant)]:
            values["datetime"] = DATETIME
            symbol = sql.SQL(COMPARISONS[operator])
            test = _COMPARES_INSTANT.format(instant=INSTANT, operator=symbol, operands=bind(instants))
            return finds(test, "[*]")
        return compares(operator, operand)

    def equals(operator: str) -> sql.Composable:
        if None not in operands:
            return holds(operator)
        parts = [holds(operator), _not(exists())]
        if any(isinstance(one, Instant) for one in operands):
            parts.append(compares("$eq", None))
        return sql.SQL("({})").format(_OR[0].join(parts))

    match condition.operator:
        case "$exists":
            return exists() if operand else _not(exists())
        case "$eq" | "$in":
            return equals(condition.operator)
        case "$ne":
            return _not(equals("$eq"))
        case "$nin":
            return _not(equals("$in"))
        case "$gt" | "$gte" | "$lt" | "$lte":
            return holds(condition.operator)
        case "$contains":
            element = bind(Jsonb(operand))
            if not isinstance(operand, str):
                return finds(_HAS_ELEMENT.format(element=element))
            return finds(_HAS_ELEMENT_OR_PART.format(element=element, part=bind(operand)))
        case _:
            assert_never(condition.operator)


def accessors(path: Sequence[str]) -> list[str]:
    """Paths in the SQL/JSON language, one for each way to read a name; quoted keys are escaped like JSON strings."""
    return ["".join(f".{json.dumps(key, ensure_ascii=False)}" for key in keys) for keys in readings(tuple(path))]
