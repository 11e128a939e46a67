"""Boosts, as clients send them with a search."""

import re
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from service.api.schemas.base import FilterField, OneOfBody, parse_filter
from service.api.schemas.result_options import FieldName, field_name
from service.core.boosts import Boost, DecayBoost, DecayFunction, FilterBoost, Modifier, ValueBoost
from service.core.errors import Invalid
from service.core.metadata import instant

MAX_BOOSTS = 10
MAX_BOOST_WEIGHT = 100

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}


def _number_or_text(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str | None):
        raise ValueError("expected a number or a string")
    return value


NumberOrText = Annotated[float | str, BeforeValidator(_number_or_text, json_schema_input_type=float | str)]
"""About numbers, or about times."""


class BoostBody(OneOfBody):
    """What is added to the score: by the value of a `field`, by how near it is to an `origin`, or where a `filter`
    passes."""

    alternatives = ("field", "filter")
    model_config = ConfigDict(json_schema_extra={"examples": [{"field": "published", "scale": "30d", "weight": 0.2}]})

    field: FieldName | None = None
    filter: FilterField | None = None
    weight: Annotated[float, Field(ge=-MAX_BOOST_WEIGHT, le=MAX_BOOST_WEIGHT)] = 1.0
    function: Annotated[
        Literal["value", "log1p", "sqrt", "exp", "gauss", "linear"] | None,
        Field(description="Default: `gauss` with a `scale`, else `value`."),
    ] = None
    origin: Annotated[
        NumberOrText | None,
        Field(description="A number, a time, or `now`, which is the default where `scale` is a duration."),
    ] = None
    scale: Annotated[NumberOrText | None, Field(description="Where the value of the function is `decay`.")] = None
    offset: Annotated[NumberOrText | None, Field(description="The distance within which nothing decays.")] = None
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        decays = self.function in ("exp", "gauss", "linear") or (self.function is None and self.scale is not None)
        if decays and self.scale is None:
            raise ValueError(f"{self.function} needs a scale")
        if not decays and (self.origin, self.scale, self.offset) != (None, None, None):
            raise ValueError("origin, scale and offset belong to exp, gauss and linear")
        if self.filter is not None and (self.function is not None or decays):
            raise ValueError("a filter has no function")
        return self

    def boost(self, at: str) -> Boost:
        """Invalid where a filter, a time or a duration is none."""
        if self.field is None:
            where = parse_filter(self.filter, at=f"{at}.filter")
            if where is None:
                raise Invalid.at(f"{at}.filter", "an empty filter boosts every document by the same")
            return FilterBoost(where=where, weight=self.weight)
        field = field_name(self.field, f"{at}.field")
        if self.scale is None:
            return ValueBoost(field=field, modifier=cast(Modifier, self.function or "value"), weight=self.weight)
        times = isinstance(self.scale, str)
        scale = _length(self.scale, times, f"{at}.scale")
        if scale <= 0:
            raise Invalid.at(f"{at}.scale", "must be above 0")
        return DecayBoost(
            field=field,
            function=cast(DecayFunction, self.function or "gauss"),
            origin=_origin(self.origin, times, f"{at}.origin"),
            scale=scale,
            offset=0.0 if self.offset is None else _length(self.offset, times, f"{at}.offset"),
            decay=self.decay,
            times=times,
            weight=self.weight,
        )


BoostList = Annotated[list[BoostBody], Field(max_length=MAX_BOOSTS)]


def _length(value: float | str, times: bool, at: str) -> float:
    """In seconds where it is about times."""
    if isinstance(value, str) != times:
        raise Invalid.at(at, "scale and offset are both durations or both numbers")
    if not isinstance(value, str):
        if value < 0:
            raise Invalid.at(at, "must not be below 0")
        return value
    if (found := _DURATION.fullmatch(value)) is None:
        raise Invalid.at(at, 'expected a number, or a duration such as "30d", "12h", "90m", "10s", "2w"')
    return float(found[1]) * _SECONDS[found[2]]


def _origin(value: float | str | None, times: bool, at: str) -> float | None:
    """None: the moment of the search."""
    if times:
        if value in (None, "now"):
            return None
        moment = instant(value) if isinstance(value, str) else None
        if moment is None:
            raise Invalid.at(at, 'expected "now" or a time such as "2024-05-01", because scale is a duration')
        return float(moment)
    if isinstance(value, str) or value is None:
        raise Invalid.at(at, "expected a number, because scale is a number")
    return value
