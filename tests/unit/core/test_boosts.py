"""What boosts add, by formulas that the documentation of Elasticsearch gives."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.boosts import MAX_VALUE, DecayBoost, FilterBoost, ValueBoost, for_collection, values
from service.core.errors import Invalid
from service.core.filters import parse
from service.core.ids import DocumentId

NOW = 1_700_000_000.0


def value_of(boost: Any, metadata: dict[str, Any]) -> float:
    id_ = DocumentId("d")
    found = values(boost, {id_: metadata, DocumentId("other"): {"n": 1, "t": "2024-01-01"}}, NOW, "boost.0")
    return found.get(id_, 0.0)


def decay(function: Any, **changes: Any) -> DecayBoost:
    fields: dict[str, Any] = {
        "field": "n",
        "origin": 10.0,
        "scale": 4.0,
        "offset": 1.0,
        "decay": 0.3,
        "times": False,
        "weight": 2.0,
    }
    return DecayBoost(function=function, **(fields | changes))


@pytest.mark.parametrize("function", ["exp", "gauss", "linear"])
@given(distance=st.floats(0, 100), below=st.booleans())
def test_decay_is_that_of_function_score(function: str, distance: float, below: bool) -> None:
    beyond = max(0.0, abs((10 - distance if below else 10 + distance) - 10) - 1)
    sigma = -(4.0**2) / (2 * math.log(0.3))
    expected = {
        "exp": math.exp(math.log(0.3) / 4 * beyond),
        "gauss": math.exp(-(beyond**2) / (2 * sigma)),
        "linear": max(0.0, (4 / (1 - 0.3) - beyond) / (4 / (1 - 0.3))),
    }[function]
    found = value_of(decay(function), {"n": 10 - distance if below else 10 + distance})
    assert found == pytest.approx(expected, abs=1e-9)


def test_times_decay_from_now_or_from_an_origin() -> None:
    day = 86_400.0
    recent = decay("exp", field="t", origin=None, scale=day, offset=0.0, decay=0.5, times=True)
    assert value_of(recent, {"t": "2023-11-13T22:13:20Z"}) == pytest.approx(0.5)
    assert value_of(recent, {"t": ["1999-01-01", "2023-11-14T22:13:20Z"]}) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("modifier", "metadata", "expected"),
    [
        ("value", {"n": 2.5}, 2.5),
        ("value", {"n": [1, 7, -3]}, 7),
        ("value", {"n": None}, 0),
        ("value", {}, 0),
        ("value", {"n": 1e300}, MAX_VALUE),
        ("log1p", {"n": math.e - 1}, 1),
        ("log1p", {"n": -5}, 0),
        ("sqrt", {"n": 9}, 3),
        ("sqrt", {"n": "nine"}, 0),
    ],
)
def test_values(modifier: Any, metadata: dict[str, Any], expected: float) -> None:
    assert value_of(ValueBoost(field="n", modifier=modifier, weight=1.0), metadata) == pytest.approx(expected)


def test_a_filter_is_worth_its_weight() -> None:
    boost = FilterBoost(where=parse({"a": 1}), weight=-0.5)
    assert values(boost, {DocumentId("x"): {"a": 1}, DocumentId("y"): {}}, NOW, "boost.0") == {"x": 1.0, "y": 0.0}


def test_another_type_is_refused() -> None:
    boost = ValueBoost(field="n", modifier="value", weight=1.0)
    with pytest.raises(Invalid, match="declared as string"):
        for_collection(boost, {"n": "string"}, "boost.0")
    assert for_collection(boost, {"n": None, "m": "string"}, "boost.0") == boost
    with pytest.raises(Invalid, match="no value of n fits"):
        values(boost, {DocumentId("x"): {"n": "many"}, DocumentId("y"): {}}, NOW, "boost.0")
