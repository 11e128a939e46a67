"""Boosts: what the metadata of a document adds to its score. Pure: metadata in, numbers out.

The decay functions are those of Elasticsearch's `function_score` ("Function score query", section "Decay functions"):
with d = max(0, |value - origin| - offset), each is 1 at d = 0 and `decay` at d = `scale`.

    exp      exp(ln(decay) / scale * d)
    gauss    exp(ln(decay) / scale^2 * d^2)
    linear   max(0, 1 - (1 - decay) * d / scale)
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, assert_never

from service.core.errors import Invalid
from service.core.filters import Filter, matches, typed
from service.core.ids import DocumentId
from service.core.metadata import FieldType, FieldTypes, elements, find, read, type_error

Modifier = Literal["value", "log1p", "sqrt"]
DecayFunction = Literal["exp", "gauss", "linear"]

MAX_VALUE = 1e9
"""Values are cut at this, so that no score is infinite."""

_MODIFIERS: Mapping[Modifier, Callable[[float], float]] = {
    "value": lambda value: value,
    "log1p": lambda value: math.log1p(max(0.0, value)),
    "sqrt": lambda value: math.sqrt(max(0.0, value)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueBoost:
    """`weight` times the value of a number field; of several the largest."""

    field: str
    modifier: Modifier
    weight: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DecayBoost:
    """`weight` times how near a value is to `origin`; of several values the nearest. `times`: values are instants, all
    lengths are seconds, and an `origin` of None is the moment of the search."""

    field: str
    function: DecayFunction
    origin: float | None
    scale: float
    offset: float
    decay: float
    times: bool
    weight: float

    def at(self, now: float, value: float) -> float:
        distance = max(0.0, abs(value - (now if self.origin is None else self.origin)) - self.offset) / self.scale
        match self.function:
            case "exp":
                return math.exp(max(-700.0, math.log(self.decay) * distance))
            case "gauss":
                return math.exp(max(-700.0, math.log(self.decay) * min(distance, 1e9) ** 2))
            case "linear":
                return max(0.0, 1.0 - (1.0 - self.decay) * distance)
            case _:
                assert_never(self.function)


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterBoost:
    """`weight` for the documents that pass."""

    where: Filter
    weight: float


Boost = ValueBoost | DecayBoost | FilterBoost


@dataclass(frozen=True, kw_only=True, slots=True)
class BoostExplanation:
    """What a boost adds to a score: `share` is its weight times `value`."""

    value: float
    share: float


def for_collection(boost: Boost, types: FieldTypes, at: str) -> Boost:
    """The boost with its filter read by the types of declared fields. Invalid where a type does not fit."""
    if isinstance(boost, FilterBoost):
        return replace(boost, where=typed(boost.where, types))
    if (declared := types.get(boost.field)) not in (None, _type(boost)):
        raise Invalid.at(f"{at}.field", f"{boost.field} is declared as {declared}, and this needs a {_type(boost)}")
    return boost


def _type(boost: ValueBoost | DecayBoost) -> FieldType:
    return "datetime" if isinstance(boost, DecayBoost) and boost.times else "number"


def values(
    boost: Boost, documents: Mapping[DocumentId, Mapping[str, Any]], now: float, at: str
) -> dict[DocumentId, float]:
    """What a boost finds in documents, by their metadata in NFC; those without a value of the type are left out.

    Invalid where no document has a value of the type, and one has another value.
    """
    if isinstance(boost, FilterBoost):
        return {id_: float(matches(boost.where, metadata, id_)) for id_, metadata in documents.items()}
    kind, path = _type(boost), tuple(boost.field.split("."))
    value_of = _MODIFIERS[boost.modifier] if isinstance(boost, ValueBoost) else partial(boost.at, now)
    known, wrong = {}, None
    for id_, metadata in documents.items():
        found = [one for one in elements(find(metadata, path)) if one is not None]
        numbers = [value_of(float(one)) for value in found if (one := read(value, kind)) is not None]
        if numbers:
            known[id_] = min(MAX_VALUE, max(-MAX_VALUE, *numbers))
        elif found:
            wrong = found[0]
    if wrong is not None and not known:
        raise Invalid.at(f"{at}.field", f"no value of {boost.field} fits: {type_error(wrong, kind)}")
    return known
