"""Filters over metadata: parsing and meaning.

`matches` defines the meaning; `store/postgres/filters/filter_sql.py` expresses it in SQL, and a property test compares
the two.

- A name with dots finds many values or none: see `metadata.find`. Keys and strings are compared in NFC.
- A value that is an array stands for its elements (one level), so `{"tags": "x"}` matches where one tag is "x".
- Numbers are compared as the decimals that JSON writes (1 equals 1.0), strings by code point. A boolean is no number;
  `$gt $gte $lt $lte` never match across types.
- `$eq: null` matches null, and where the path finds nothing. `$ne` and `$nin` are the negations of `$eq` and `$in`.
- `$exists`: whether the path finds anything, null included.
- `$contains`: an array that has the element, or a string that has the substring.
- `$id` is the document's id, a string that is there in every document. It is compared as it is, not in NFC.
- Several fields, or several operators on one field, must all hold.
- Of a field that is declared with a type, operands have this type (`typed`). Instants are compared with the texts that
  name one; no other text equals an instant, or is before or after it.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import Any, Final, Literal, cast

from service.core.collections import DeclaredField
from service.core.errors import Invalid
from service.core.ids import DocumentId
from service.core.metadata import FieldTypes, Instant, elements, find, instant, name_error, nfc, read, type_error

Operator = Literal["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$contains"]

Scalar = str | int | float | bool | Instant | None


@dataclass(frozen=True, slots=True)
class Condition:
    """One field against one operand. `path` is the dotted field name, split; `at` its place in the client's filter."""

    path: tuple[str, ...]
    operator: Operator
    operand: Scalar | tuple[Scalar, ...]
    at: str = field(default="filter", compare=False, repr=False)

    @property
    def operands(self) -> tuple[Scalar, ...]:
        return self.operand if isinstance(self.operand, tuple) else (self.operand,)


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: "Filter"


Filter = Condition | And | Or | Not

ID: Final = ("$id",)
"""The path of the document's id. No field of the metadata can have this name."""

MAX_DEPTH: Final = 8
MAX_CONDITIONS: Final = 100
MAX_VALUES: Final = 1_000
"""In one list."""
MAX_VALUES_IN_ALL: Final = 5_000
MAX_CHARACTERS: Final = 500_000
"""Code points of all names and texts; metadata has 65,536 bytes at most."""
MAX_READINGS: Final = 1_000
"""Of all names: each can be read in 2^(n-1) ways, given n parts between dots, and each of them is looked for."""
MAX_DECLARED: Final = 16

_ORDERED: Mapping[str, Callable[[Any, Any], bool]] = {"$gt": gt, "$gte": ge, "$lt": lt, "$lte": le}
_SETS = {"$in", "$nin"}
_ONE_VALUE = {"$eq", "$ne", "$contains"}
_OPERATORS = _ORDERED.keys() | _SETS | _ONE_VALUE | {"$exists"}
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


def parse(raw: object, at: str = "filter") -> Filter:
    """The filter of a client. Invalid names the exact place, such as `filter.year.$gte`."""
    return _Parser().conjunction(raw, at, depth=1)


def declared(fields: Sequence[str | DeclaredField], at: str) -> tuple[str | DeclaredField, ...]:
    """The fields that a collection declares, sorted by name. Invalid names one that no filter could use."""
    found: dict[str, str | DeclaredField] = {}
    for number, one in enumerate(fields):
        place = f"{at}.{number}"
        name = nfc(one if isinstance(one, str) else one.field)
        _path(name, place)
        if name in found:
            raise Invalid.at(place, "named twice")
        found[name] = name if isinstance(one, str) else replace(one, field=name)
    if len(found) > MAX_DECLARED:
        raise Invalid.at(at, f"more than {MAX_DECLARED} fields")
    return tuple(found[name] for name in sorted(found))


def typed(where: Filter, types: FieldTypes) -> Filter:
    """The filter with operands of the declared types. Invalid names an operand that is of another type."""
    match where:
        case And(parts) | Or(parts):
            return replace(where, parts=tuple(typed(part, types) for part in parts))
        case Not(part):
            return Not(typed(part, types))
        case Condition(path, operator, operand, at):
            kind = types.get(".".join(path))
    if kind is None or operator == "$exists":
        return where
    if kind == "datetime" and operator == "$contains":
        raise Invalid.at(at, "the field is declared as datetime: $eq and $in find the elements of an array")

    def convert(value: Scalar, at: str) -> Scalar:
        if value is None or isinstance(value, Instant):
            return value
        if (operand := read(value, kind)) is None:
            raise Invalid.at(at, type_error(value, kind))
        return cast(Scalar, operand)

    if isinstance(operand, tuple):
        return replace(where, operand=tuple(convert(one, f"{at}.{number}") for number, one in enumerate(operand)))
    return replace(where, operand=convert(operand, at))


class _Parser:
    """Parses one filter, and counts what it is made of: that decides what it costs for each document."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def conjunction(self, raw: object, at: str, depth: int) -> Filter:
        """An object of fields and of `$and`, `$or`, `$not`: all of them must hold."""
        if depth > MAX_DEPTH:
            raise Invalid.at(at, f"nested more than {MAX_DEPTH} deep")
        if not isinstance(raw, Mapping):
            raise Invalid.at(at, "expected an object")
        return _and(part for key, value in raw.items() for part in self._entry(key, value, at, depth))

    def _entry(self, key: object, value: object, at: str, depth: int) -> Iterator[Filter]:
        if not isinstance(key, str):
            raise Invalid.at(at, "field names must be strings")
        place = f"{at}.{_shown(key)}"
        match key:
            case "$and" | "$or":
                parts = tuple(self._list(value, place, depth))
                yield And(parts) if key == "$and" else Or(parts)
            case "$not":
                self._count(place)
                yield Not(self.conjunction(value, place, depth + 1))
            case "$id":
                yield from self._field(ID, value, place, depth)
            case _ if key.startswith("$"):
                raise Invalid.at(place, "unknown operator; here $and, $or, $not and $id are known, or a field name")
            case _:
                self._count(place, "characters in all", MAX_CHARACTERS, len(key))  # before they are normalised
                yield from self._field(_path(key, place), value, place, depth)

    def _list(self, raw: object, at: str, depth: int) -> Iterator[Filter]:
        if not isinstance(raw, list | tuple):
            raise Invalid.at(at, "expected a list of filters")
        for number, part in enumerate(raw):
            self._count(at)
            yield self.conjunction(part, f"{at}.{number}", depth + 1)

    def _field(self, path: tuple[str, ...], raw: object, at: str, depth: int) -> Iterator[Filter]:
        if isinstance(raw, list | tuple):
            raise Invalid.at(at, "a list needs an operator: $in")
        if not isinstance(raw, Mapping):
            yield self._condition(path, "$eq", raw, at)
            return
        if not raw:
            raise Invalid.at(at, "expected an operator")
        for key, operand in raw.items():
            if not isinstance(key, str) or not key.startswith("$"):
                raise Invalid.at(at, "expected operators; nested fields are written with dots, such as author.name")
            place = f"{at}.{_shown(key)}"
            if key == "$not":
                yield self._negated(path, operand, place, depth)
            else:
                yield self._condition(path, key, operand, place)

    def _negated(self, path: tuple[str, ...], raw: object, at: str, depth: int) -> Filter:
        self._count(at)
        if depth >= MAX_DEPTH:
            raise Invalid.at(at, f"nested more than {MAX_DEPTH} deep")
        if not isinstance(raw, Mapping):
            raise Invalid.at(at, "expected an object of operators")
        return Not(_and(self._field(path, raw, at, depth + 1)))

    def _condition(self, path: tuple[str, ...], operator: str, operand: object, at: str) -> Condition:
        if operator not in _OPERATORS:
            raise Invalid.at(at, f"unknown operator; known are {', '.join(sorted(_OPERATORS))} and $not")
        self._count(at)
        self._count(at, "ways to read the dots of all field names", MAX_READINGS, 2 ** (len(path) - 1))
        values = operand if isinstance(operand, list | tuple) else (operand,)
        if len(values) <= MAX_VALUES:  # `_operand` refuses a longer list
            self._count(at, "values in all", MAX_VALUES_IN_ALL, len(values))
            characters = sum(len(one) for one in values if isinstance(one, str))
            self._count(at, "characters in all", MAX_CHARACTERS, characters)
        read = _operand(operator, operand, at)
        if path == ID:  # not in NFC
            read = tuple(values) if isinstance(read, tuple) else cast(Scalar, operand)
        return Condition(path, cast(Operator, operator), read, at)

    def _count(self, at: str, what: str = "conditions", most: int = MAX_CONDITIONS, more: int = 1) -> None:
        self._counts[what] += more
        if self._counts[what] > most:
            raise Invalid.at(at, f"more than {most} {what}")


def _and(parts: Iterator[Filter]) -> Filter:
    found = tuple(parts)
    return found[0] if len(found) == 1 else And(found)


def _path(name: str, at: str) -> tuple[str, ...]:
    name = _text(name, at)
    if error := name_error(name):
        raise Invalid.at(at, error)
    return tuple(name.split("."))


def _operand(operator: str, raw: object, at: str) -> Scalar | tuple[Scalar, ...]:
    if operator in _SETS:
        if not isinstance(raw, list | tuple):
            raise Invalid.at(at, "expected a list")
        if len(raw) > MAX_VALUES:
            raise Invalid.at(at, f"more than {MAX_VALUES} values")
        return tuple(_scalar(value, f"{at}.{number}") for number, value in enumerate(raw))
    if operator == "$exists":
        if not isinstance(raw, bool):
            raise Invalid.at(at, "expected true or false")
        return raw
    value = _scalar(raw, at)
    if operator in _ORDERED and (value is None or isinstance(value, bool)):
        raise Invalid.at(at, "expected a number or a string")
    return value


def _scalar(raw: object, at: str) -> Scalar:
    match raw:
        case None | bool():
            return raw
        case str():
            return _text(raw, at)
        case int():
            if not -(2**63) <= raw < 2**63:
                raise Invalid.at(at, "an integer must fit 64 bits")
            return raw
        case float():
            if not math.isfinite(raw):
                raise Invalid.at(at, "NaN and infinity are not JSON")
            return raw
        case _:
            raise Invalid.at(at, "expected a string, a number, true, false or null")


def _text(value: str, at: str) -> str:
    if _NOT_TEXT.search(value):
        raise Invalid.at(at, "contains a NUL character or half of a surrogate pair")
    return cast(str, nfc(value))


def _shown(key: str) -> str:
    """A key as it may stand in an error: short, and encodable in UTF-8."""
    return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", key[:512])


def operands(where: Filter | None) -> int:
    """The number of values that a filter compares with: its size."""
    match where:
        case None:
            return 0
        case Condition():
            return len(where.operands)
        case Not(part=part):
            return operands(part)
        case And(parts=parts) | Or(parts=parts):
            return sum(map(operands, parts))


def several_values(where: Filter, metadata: Mapping[str, Any]) -> bool:
    """Whether a field that is compared with a value has several: such a document passes where any of them does."""
    match where:
        case And(parts) | Or(parts):
            return any(several_values(part, metadata) for part in parts)
        case Not(part):
            return several_values(part, metadata)
        case Condition(path, operator):
            several = len(list(elements(find(nfc(metadata), path)))) > 1
            return several and operator not in {"$exists", "$contains"}


def matches(where: Filter, metadata: Mapping[str, Any], document_id: DocumentId) -> bool:
    """Whether a document with this id and metadata passes."""
    match where:
        case And(parts):
            return all(matches(part, metadata, document_id) for part in parts)
        case Or(parts):
            return any(matches(part, metadata, document_id) for part in parts)
        case Not(part):
            return not matches(part, metadata, document_id)
        case Condition(path, operator, operand):
            return _holds(operator, operand, [document_id] if path == ID else find(nfc(metadata), path))


def _holds(operator: Operator, operand: Scalar | tuple[Scalar, ...], found: list[Any]) -> bool:
    match operator:
        case "$exists":
            return bool(found) == operand
        case "$eq":
            return any(_equal(value, operand) for value in elements(found)) or (operand is None and not found)
        case "$in":
            return any(_holds("$eq", one, found) for one in cast(tuple[Scalar, ...], operand))
        case "$ne" | "$nin":
            return not _holds("$eq" if operator == "$ne" else "$in", operand, found)
        case "$contains":
            return any(_contains(value, operand) for value in found)
        case _:
            return any(_ordered(operator, value, operand) for value in elements(found))


def _equal(value: object, operand: object) -> bool:
    if isinstance(operand, Instant):
        return isinstance(value, str) and instant(value) == operand
    if isinstance(value, bool) or isinstance(operand, bool):
        return value is operand
    if isinstance(value, int | float) and isinstance(operand, int | float):
        return _decimal(value) == _decimal(operand)
    if isinstance(value, str) and isinstance(operand, str):
        return value == operand
    return value is None and operand is None


def _ordered(operator: Operator, value: object, operand: object) -> bool:
    compare = _ORDERED[operator]
    if isinstance(operand, Instant):
        return isinstance(value, str) and (moment := instant(value)) is not None and compare(moment, operand)
    if isinstance(value, int | float) and isinstance(operand, int | float):
        return not isinstance(value, bool) and compare(_decimal(value), _decimal(operand))
    return isinstance(value, str) and isinstance(operand, str) and compare(value, operand)


def _contains(value: object, operand: object) -> bool:
    if isinstance(value, list | tuple):
        return any(_equal(element, operand) for element in value)
    return isinstance(value, str) and isinstance(operand, str) and operand in value


def _decimal(value: int | float) -> Decimal:
    """The number as JSON writes it, which is what the database holds: 0.1 is one tenth, not the nearest binary."""
    return Decimal(repr(value))
