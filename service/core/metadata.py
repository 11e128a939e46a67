"""Metadata of documents: how a name finds values in it, its Unicode form, and the types of declared fields.

- A name finds the values at all keys that, joined by dots, spell it: `a.b` finds the key "a.b" as well as the key "b"
  of an object at "a". Where it meets an array, each object in it is searched.
- Keys and strings are compared in the normal form NFC.
- A `datetime` is an instant: a text without an offset is in UTC, a date alone is its midnight.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final, Literal, cast
from unicodedata import normalize

FieldType = Literal["datetime", "number", "string"]
FieldTypes = Mapping[str, FieldType | None]
"""The types of declared fields by name; None: any."""

MAX_FIELD_LENGTH: Final = 512
MAX_PARTS: Final = 8
"""Parts of a name, between its dots: with n parts there are 2^(n-1) ways to read it."""

DATETIME: Final = (
    r"^(?:(?!0000)[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
    r"-02-29)(?:[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::(?:[0-5][0-9](?:[.,][0-9]+)?|60))?"
    r"(?: ?(?:[Zz]|[+-](?:0[0-9]|1[0-5])(?::?[0-5][0-9])?))?)?$"
)
"""The texts that name an instant, in the regular expressions of both Python and PostgreSQL."""
_PARTS = re.compile(r"(.{4})-(..)-(..)(?:.(..):(..)(?::(..)(?:[.,](\d+))?)?(?: ?(?:[Zz]|([+-])(..):?(\d\d)?))?)?")

EXPECTED: Final[Mapping[FieldType, str]] = {
    "datetime": 'a text such as "2024-05-01T12:30:00Z", "2024-05-01T14:30:00.25+02:00" or "2024-05-01"',
    "number": "a number",
    "string": "a string",
}


class Instant(Decimal):
    """A moment, in seconds since 1970 in UTC."""


def instant(text: str) -> Instant | None:
    """The moment that a text names, rounded to microseconds as in PostgreSQL; None where it names none."""
    if not re.fullmatch(DATETIME, text) or (parts := _PARTS.fullmatch(text)) is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = parts.groups(default="0")
    days = date(int(year), int(month), int(day)).toordinal() - date(1970, 1, 1).toordinal()
    offset = (-1 if sign == "-" else 1) * (60 * int(hours) + int(minutes))
    whole = 86_400 * days + 60 * (60 * int(hour) + int(minute) - offset) + int(second)
    return Instant(whole + Decimal(round(float(f".{fraction}") * 1_000_000)).scaleb(-6))


def name_error(name: str) -> str | None:
    """Why a filter cannot have a field of this name; None where it can."""
    if not name:
        return "an empty field name"
    if name.startswith("$"):
        return "a field name cannot begin with $"
    if len(name) > MAX_FIELD_LENGTH:
        return f"a field name longer than {MAX_FIELD_LENGTH} characters"
    return f"a field name with {MAX_PARTS} dots or more" if name.count(".") >= MAX_PARTS else None


def nfc(value: Any) -> Any:
    """A JSON value with its keys and strings in NFC."""
    match value:
        case str():
            return value if value.isascii() else normalize("NFC", value)
        case Mapping():
            return {nfc(key): nfc(inner) for key, inner in value.items()}
        case list() | tuple():
            return [nfc(inner) for inner in value]
        case _:
            return value


def merge_patch(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396): objects are merged, null removes a member, anything else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def find(metadata: Mapping[str, Any], path: tuple[str, ...]) -> list[Any]:
    """The values that a name finds, given its parts."""
    if len(path) == 1:
        return [metadata[path[0]]] if path[0] in metadata else []
    found: list[list[Any]] = [[metadata], *([] for _ in path)]
    for start in range(len(path)):
        objects = [one for one in elements(found[start]) if isinstance(one, Mapping)]
        for end in range(start + 1, len(path) + 1):
            key = ".".join(path[start:end])
            found[end] += [one[key] for one in objects if key in one]
    return found[-1]


def project(metadata: Mapping[str, Any], names: Iterable[str]) -> Mapping[str, Any]:
    """The parts of metadata that names find, where they stand; of an array of objects, these parts of each."""
    return cast(Mapping[str, Any], _project(metadata, [tuple(name.split(".")) for name in names]))


def _project(value: Any, paths: Sequence[tuple[str, ...]]) -> Any:
    if isinstance(value, list | tuple):
        return [found for one in value if (found := _project(one, paths))]
    if not isinstance(value, Mapping):
        return None
    parts: dict[str, Any] = {}
    for key, inner in value.items():
        length, name = key.count(".") + 1, nfc(key)
        rests = [path[length:] for path in paths if ".".join(path[:length]) == name]
        if () in rests:
            parts[key] = inner
        elif found := _project(inner, rests) if rests else None:
            parts[key] = found
    return parts


def readings(path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The keys, from the outermost object inwards, that a name can stand for; those without dots first."""
    if not path:
        yield ()
    for end in range(1, len(path) + 1):
        for rest in readings(path[end:]):
            yield (".".join(path[:end]), *rest)


def elements(values: list[Any]) -> Iterator[Any]:
    """The values, with each array replaced by its elements (one level)."""
    for value in values:
        yield from value if isinstance(value, list | tuple) else (value,)


def read(value: Any, kind: FieldType) -> Any:
    """The value as filters compare it; None where it is of another type."""
    if kind == "number":
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    return (value if kind == "string" else instant(value)) if isinstance(value, str) else None


def type_errors(metadata: Mapping[str, Any], types: FieldTypes) -> Iterator[tuple[str, str]]:
    """Fields with a value of another type than theirs, and what is wrong with it. Null is of every type."""
    metadata = nfc(metadata) if any(types.values()) else {}
    for name, kind in types.items():
        if kind is not None:
            values = elements(find(metadata, tuple(name.split("."))))
            yield from [(name, type_error(one, kind)) for one in values if one is not None and read(one, kind) is None][
                :1
            ]


def type_error(value: object, kind: FieldType) -> str:
    """What to tell whoever sent a value of another type."""
    given = json.dumps(value, ensure_ascii=False)[:80]
    return f"the field is declared as {kind}: expected {EXPECTED[kind]}, not {given}"
