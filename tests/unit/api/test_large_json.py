"""Parsing in parts is parsing: what the parser refuses is refused, everything else gives the same value."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api import bodies, large_json
from service.api.large_json import MAX_ELEMENTS, MAX_PART, loads, loads_in_parts
from service.core.errors import TooLarge

TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from('"\\,[]{} '), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=6),
    max_leaves=30,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=6)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_json, "WHOLE_BYTES", 8)


def outcome(parse: Any, data: bytes) -> Any:
    try:
        return parse(data)
    except ValueError:
        return ValueError


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(OBJECTS, st.booleans(), st.sampled_from([None, 1]))
def test_an_object_is_parsed_in_parts_as_in_one_go(
    content: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    data = json.dumps(content, ensure_ascii=ascii_only, indent=indent).encode()
    assert loads_in_parts(data) == loads(data)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(OBJECTS, st.data())
def test_damaged_json_is_refused_in_parts_as_in_one_go(content: dict[str, Any], data: st.DataObject) -> None:
    text = bytearray(json.dumps(content).encode())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([b"", b",", b"]", b"}", b'"', b"[", b"1,"])
    )
    whole = outcome(loads, bytes(text))
    if isinstance(whole, dict) or whole is ValueError:
        assert outcome(loads_in_parts, bytes(text)) == whole


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": [1, 2, 3, 4, 5,, 6]}',
        b'{"a": [1, 2, 3, 4, 5, 6,]}',
        b'{"a": [1, 2, 3, 4, 5, 6}',
        b'{"a": [1, 2, 3, 4, 5, 6]',
        b'{"a": [1, 2, 3, 4, 5, 6] "b": 1}',
        b'{"a": [1, 2, 3, 4, 5, 6],}',
        b'{"a": [1, 2, 3, 4, 5, 6]]',
        b'{"a": 1, "bbbbbbb": 2, , "c": 3}',
        b'{"a": "long enough", "a": "long enough"}',
        b'{"a": [NaN, 1, 2, 3, 4, 5]}',
        b'{"a": "never ends',
        b'[{"a": "no object"}]',
        b'{"a": [1, 2, 3, 4, 5, 6]} 1',
        b'{"a":' + b"[" * 100_000,
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        loads_in_parts(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"metadata": {"a": [' + b"1," * MAX_PART + b"1]}}",
        b'{"metadata": {' + b",".join(b'"%d": 1' % at for at in range(MAX_PART // 8)) + b"}}",
        b'{"filter": {"a": [' + b"[]," * (MAX_PART // 8) + b"1]}}",
        b'{"documents": [' + b"1," * MAX_ELEMENTS + b"1,1]}",
        b'{"query": "' + b"x" * large_json.MAX_TEXT_BYTES + b'"}',
    ],
)
def test_a_part_that_would_take_long_is_refused(data: bytes) -> None:
    with pytest.raises(TooLarge, match="more than"):
        loads_in_parts(data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.recursive(
        st.none() | st.integers(-9, 9) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=5),
        max_leaves=60,
    )
)
def test_a_large_answer_is_written_as_any_other(content: Any) -> None:
    assert bytes(asyncio.run(bodies.large_answer(content)).body) == bytes(bodies.JsonResponse(content).body)
