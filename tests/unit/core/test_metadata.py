"""What names an instant and when that is, and what is refused of a typed field."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from service.core.metadata import instant, name_error, nfc, readings, type_errors


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-01", datetime(2024, 5, 1, tzinfo=UTC)),
        ("2024-05-01T12:30", datetime(2024, 5, 1, 12, 30, tzinfo=UTC)),
        ("2024-05-01 12:30:15", datetime(2024, 5, 1, 12, 30, 15, tzinfo=UTC)),
        ("2024-05-01t12:30:15z", datetime(2024, 5, 1, 12, 30, 15, tzinfo=UTC)),
        ("2024-05-01T12:30:15,5Z", datetime(2024, 5, 1, 12, 30, 15, 500_000, tzinfo=UTC)),
        ("2024-05-01T12:30:15.123456789Z", datetime(2024, 5, 1, 12, 30, 15, 123_457, tzinfo=UTC)),
        ("2024-05-01T12:30:15+05:30", datetime(2024, 5, 1, 7, 0, 15, tzinfo=UTC)),
        ("2024-05-01 12:30:15 -0330", datetime(2024, 5, 1, 16, 0, 15, tzinfo=UTC)),
        ("2024-05-01T00:00:00+14", datetime(2024, 4, 30, 10, tzinfo=UTC)),
        ("2024-02-29T00:00-00:00", datetime(2024, 2, 29, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("1969-12-31T23:59:59.9999999Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("0001-01-01", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_instants(text: str, moment: datetime) -> None:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert instant(text) == since.days * 86_400 + since.seconds + Decimal(since.microseconds).scaleb(-6)


@pytest.mark.parametrize(
    "text",
    [
        *["", "yesterday", "2024", "2024-05", "2024-5-1", "20240501T123000Z", "2023-02-29", "1900-02-29", "2024-04-31"],
        *["2024-13-01", "0000-01-01", "2024-05-01T24:00Z", "2024-05-01T12:60Z", "2024-05-01T12:30:61Z", "1714521600"],
        *["2024-05-01T12", "2024-05-01T12:30:15.Z", "2024-05-01T12:30:60.5Z", "2024-05-01T12:30+16", "2024-05-01Z"],
        *["2024-05-01\n", " 2024-05-01", "+2024-05-01", "12024-05-01", "٢٠٢٤-٠٥-٠١", "2024-05-01T12:30:15 UTC"],
    ],
)
def test_texts_that_name_no_instant(text: str) -> None:
    assert instant(text) is None


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (
            "datetime",
            "soon",
            'such as "2024-05-01T12:30:00Z", "2024-05-01T14:30:00.25+02:00" or "2024-05-01", not "soon"',
        ),
        ("datetime", ["2024-05-01", 1714521600], "not 1714521600"),
        ("datetime", [["2024-05-01"]], 'not ["2024-05-01"]'),
        ("datetime", {"$date": "2024-05-01"}, "not {"),
        ("number", "5", 'expected a number, not "5"'),
        ("number", True, "expected a number, not true"),
        ("string", 5, "expected a string, not 5"),
        ("string", ["a", False], "not false"),
    ],
)
def test_values_of_another_type_are_named(kind: Any, value: Any, told: str) -> None:
    for metadata in ({"a": {"b": value}}, {"a.b": value}, {"a": [{"b": None}, {"b": value}]}):
        ((name, message),) = type_errors(metadata, {"a.b": kind, "c": None})
        assert name == "a.b"
        assert told in message


def test_one_error_a_field_and_names_in_any_unicode_form() -> None:
    errors = list(type_errors({"e\u0301": ["x"] * 1_000, "n": "5"}, {"é": "datetime", "n": "number"}))
    assert [name for name, _ in errors] == ["é", "n"]


@pytest.mark.parametrize("metadata", [{}, {"f": None}, {"f": []}, {"f": [None]}])
@pytest.mark.parametrize("kind", ["datetime", "number", "string"])
def test_nothing_is_of_every_type(kind: Any, metadata: dict[str, Any]) -> None:
    assert list(type_errors(metadata, {"f": kind})) == []


def test_the_ways_to_read_a_name() -> None:
    assert list(readings(("a", "b", "c"))) == [("a", "b", "c"), ("a", "b.c"), ("a.b", "c"), ("a.b.c",)]


@pytest.mark.parametrize("name", ["", "$a", "x" * 513, "a.b.c.d.e.f.g.h.i"])
def test_names_that_no_filter_can_have(name: str) -> None:
    assert name_error(name)


def test_nfc_reaches_keys_and_values_and_nothing_else() -> None:
    metadata = {"e\u0301": ["o\u0308", {"a\u030a": "n\u0303"}], "n": 1, "f": 1.0, "b": True, "x": None}
    once = nfc(metadata)
    assert once == {"é": ["ö", {"å": "ñ"}], "n": 1, "f": 1.0, "b": True, "x": None}
    assert nfc(once) == once
