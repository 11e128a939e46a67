"""Settings, specs, identities and evidence in JSON columns.

They are written as the driver writes dataclasses (orjson: moments as ISO 8601) and read by pydantic. What a row does
not name takes its default, so that a new setting needs no migration. An unknown name is a TypeError: a row that a newer
program wrote must not be read in part.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

T = TypeVar("T")

_ROW = "row"


def read(kind: type[T], row: Any) -> T:
    """The object of this type that a JSON column holds."""
    try:
        return cast(T, _adapter(cast(Any, kind)).validate_python({_ROW: row})[_ROW])
    except ValidationError as error:
        raise TypeError(f"This program does not understand a stored {kind}: {error}") from error


def read_optional(kind: type[T], row: Any) -> T | None:
    return None if row is None else read(kind, row)


@cache
def _adapter(kind: Any) -> TypeAdapter[Mapping[str, Any]]:
    # In a mapping, because the configuration of an adapter does not apply to a dataclass at the top.
    return TypeAdapter(dict[str, kind], config=ConfigDict(extra="forbid"))
