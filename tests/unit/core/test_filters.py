"""What a filter may look like, where an error points, and what each operator means."""

import math
from typing import Any

import pytest

from service.core import filters
from service.core.collections import DeclaredField
from service.core.errors import Invalid
from service.core.filters import (
    MAX_CHARACTERS,
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_READINGS,
    MAX_VALUES,
    MAX_VALUES_IN_ALL,
    And,
    Condition,
    Not,
    Or,
    matches,
    parse,
    several_values,
    typed,
)
from service.core.ids import DocumentId
from service.core.metadata import MAX_FIELD_LENGTH, Instant


def nested(depth: int, innermost: Any = None) -> dict[str, Any]:
    raw = innermost or {"a": 1}
    for _ in range(depth - 1):
        raw = {"$not": raw}
    return raw


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, And(())),
        ({"a": 1}, Condition(("a",), "$eq", 1)),
        ({"a.b": None}, Condition(("a", "b"), "$eq", None)),
        ({"a": {"$gte": 1, "$lt": 2}}, And((Condition(("a",), "$gte", 1), Condition(("a",), "$lt", 2)))),
        ({"a": 1, "b": "x"}, And((Condition(("a",), "$eq", 1), Condition(("b",), "$eq", "x")))),
        ({"a": {"$in": []}}, Condition(("a",), "$in", ())),
        ({"$or": [{"a": 1}, {}]}, Or((Condition(("a",), "$eq", 1), And(())))),
        ({"$and": []}, And(())),
        ({"$not": {"a": 1}}, Not(Condition(("a",), "$eq", 1))),
        ({"a": {"$not": {"$gt": 1}}}, Not(Condition(("a",), "$gt", 1))),
        ({"a": {"$exists": False}}, Condition(("a",), "$exists", False)),
        ({"a": -(2**63)}, Condition(("a",), "$eq", -(2**63))),
    ],
)
def test_what_is_read(raw: object, expected: object) -> None:
    assert parse(raw) == expected


def test_the_limits_themselves_are_allowed() -> None:
    parse(nested(MAX_DEPTH))
    parse({f"f{n}": n for n in range(MAX_CONDITIONS)})
    parse({"a": {"$in": list(range(MAX_VALUES))}})
    parse({"a" * MAX_FIELD_LENGTH: 1})
    parse({f"f{n}": {"$nin": [n] * MAX_VALUES} for n in range(MAX_VALUES_IN_ALL // MAX_VALUES)})
    parse({"a": "x" * (MAX_CHARACTERS - 1)})
    parse({f"a.b.c.d.e.f.g.h{n}": 1 for n in range(MAX_READINGS // 128)})


@pytest.mark.parametrize(
    ("raw", "field", "message"),
    [
        (None, "filter", "expected an object"),
        ([], "filter", "expected an object"),
        ("a", "filter", "expected an object"),
        ({"": 1}, "filter.", "an empty field name"),
        ({"a.a.a.a.a.a.a.a.a": 1}, "filter.a.a.a.a.a.a.a.a.a", "with 8 dots or more"),
        ({"a" * (MAX_FIELD_LENGTH + 1): 1}, "filter." + "a" * MAX_FIELD_LENGTH, "longer than"),
        ({"a\0b": 1}, "filter.a\N{REPLACEMENT CHARACTER}b", "NUL"),
        ({"a\ud800": 1}, "filter.a\N{REPLACEMENT CHARACTER}", "surrogate"),
        ({1: 1}, "filter", "must be strings"),
        ({"$where": "1"}, "filter.$where", "unknown operator"),
        ({"$id": {"$gt": True}}, "filter.$id.$gt", "expected a number or a string"),
        ({"$id": ["a"]}, "filter.$id", "$in"),
        ({"$and": [{"$id": "\0"}]}, "filter.$and.0.$id", "NUL"),
        ({"$id.x": "a"}, "filter.$id.x", "unknown operator"),
        ({"year": {"$gt": [1]}}, "filter.year.$gt", "expected a string, a number"),
        ({"year": {"$gte": None}}, "filter.year.$gte", "expected a number or a string"),
        ({"year": {"$lt": True}}, "filter.year.$lt", "expected a number or a string"),
        ({"year": {"$near": 1}}, "filter.year.$near", "unknown operator"),
        ({"year": {"$gt": 1, "x": 2}}, "filter.year", "expected operators"),
        ({"year": {"x": 2}}, "filter.year", "with dots"),
        ({"year": {}}, "filter.year", "expected an operator"),
        ({"year": [1]}, "filter.year", "a list needs an operator"),
        ({"year": {"$in": 1}}, "filter.year.$in", "expected a list"),
        ({"year": {"$in": "abc"}}, "filter.year.$in", "expected a list"),
        ({"year": {"$nin": [1, [2]]}}, "filter.year.$nin.1", "expected a string, a number"),
        ({"year": {"$in": [0] * (MAX_VALUES + 1)}}, "filter.year.$in", "more than 1000 values"),
        ({"year": {"$exists": 1}}, "filter.year.$exists", "true or false"),
        ({"year": {"$exists": None}}, "filter.year.$exists", "true or false"),
        ({"year": {"$eq": {"a": 1}}}, "filter.year.$eq", "expected a string, a number"),
        ({"year": {"$contains": ["a"]}}, "filter.year.$contains", "expected a string, a number"),
        ({"year": {"$not": 1}}, "filter.year.$not", "expected an object of operators"),
        ({"year": {"$not": {}}}, "filter.year.$not", "expected an operator"),
        ({"year": 2**63}, "filter.year", "64 bits"),
        ({"year": {"$in": [-(2**63) - 1]}}, "filter.year.$in.0", "64 bits"),
        ({"year": math.nan}, "filter.year", "NaN"),
        ({"year": {"$lt": math.inf}}, "filter.year.$lt", "infinity"),
        ({"a": "x\0"}, "filter.a", "NUL"),
        ({"a": {"$in": ["\udfff"]}}, "filter.a.$in.0", "surrogate"),
        ({"$and": {}}, "filter.$and", "expected a list of filters"),
        ({"$or": [{"a": 1}, 2]}, "filter.$or.1", "expected an object"),
        ({"$and": [{"a": {"$gt": None}}]}, "filter.$and.0.a.$gt", "expected a number"),
        ({"$not": []}, "filter.$not", "expected an object"),
        (nested(MAX_DEPTH + 1), "filter" + ".$not" * MAX_DEPTH, "nested more than 8 deep"),
        ({f"f{n}": n for n in range(MAX_CONDITIONS + 1)}, f"filter.f{MAX_CONDITIONS}", "more than 100 conditions"),
        ({"$or": [{}] * (MAX_CONDITIONS + 1)}, "filter.$or", "more than 100 conditions"),
        ({"$and": [{"a": {"$nin": [0] * MAX_VALUES}}] * 49}, "filter.$and.5.a.$nin", "more than 5000 values in all"),
        ({f"f{n}": {"$in": [0] * MAX_VALUES} for n in range(6)}, "filter.f5.$in", "more than 5000 values in all"),
        ({"a": {"$in": ["x" * 1_000] * 501}}, "filter.a.$in", "more than 500000 characters in all"),
        ({"a": {"$contains": "x" * MAX_CHARACTERS}}, "filter.a.$contains", "characters in all"),
        ({"x" * (MAX_CHARACTERS + 1): 1}, "filter." + "x" * 512, "characters in all"),
        ({f"a.b.c.d.e.f.g.h{n}": 1 for n in range(8)}, "filter.a.b.c.d.e.f.g.h7", "more than 1000 ways to read the"),
        ({"$or": [{"a.b.c.d.e.f": {"$exists": True}}] * 32}, "filter.$or.31.a.b.c.d.e.f.$exists", "ways to read the"),
    ],
)
def test_what_is_refused_and_where(raw: object, field: str, message: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse(raw)
    (error,) = raised.value.errors
    assert error.field == field
    assert message in error.message
    error.field.encode()  # an error must be fit to be sent


def test_negation_inside_a_field_counts_as_depth() -> None:
    with pytest.raises(Invalid, match="nested more than 8 deep"):
        parse({"a": nested(MAX_DEPTH + 1, {"$gt": 1})})


BOOK = {
    "year": 2019,
    "price": 1.0,
    "title": "Zürich \U0001f600",
    "draft": False,
    "note": None,
    "tags": ["x", 1, None, ["deep"]],
    "author": {"name": "Ann", "born": 1970},
    "editions": [{"year": 2001, "langs": ["en", "de"]}, {"year": 2010}, "lost", [{"year": 1900}]],
    "empty": [],
}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"year": 2019.0}, True),
        ({"year": "2019"}, False),
        ({"price": 1}, True),
        ({"price": True}, False),
        ({"draft": 0}, False),
        ({"draft": False}, True),
        ({"note": None}, True),
        ({"missing": None}, True),
        ({"draft": None}, False),
        ({"empty": None}, False),
        ({"tags": None}, True),
        ({"tags": "x"}, True),
        ({"tags": "deep"}, False),
        ({"tags": {"$ne": "x"}}, False),
        ({"tags": {"$ne": "y"}}, True),
        ({"missing": {"$ne": 1}}, True),
        ({"missing": {"$nin": [1, 2]}}, True),
        ({"missing": {"$nin": [1, None]}}, False),
        ({"year": {"$in": [1, 2019]}}, True),
        ({"year": {"$in": []}}, False),
        ({"year": {"$nin": []}}, True),
        ({"missing": {"$in": [None]}}, True),
        ({"author.name": "Ann"}, True),
        ({"author": "Ann"}, False),
        ({"author.name.first": None}, True),
        ({"editions.year": 2010}, True),
        ({"editions.year": 1900}, False),
        ({"editions.langs": "de"}, True),
        ({"editions.year": {"$gt": 2005, "$lt": 2002}}, True),  # each condition finds its own element
        ({"editions.pages": {"$exists": False}}, True),
        ({"editions.langs": {"$exists": True}}, True),
        ({"note": {"$exists": True}}, True),
        ({"missing": {"$exists": True}}, False),
        ({"year": {"$gt": 2018, "$lte": 2019}}, True),
        ({"year": {"$gt": "2018"}}, False),
        ({"draft": {"$lt": 1}}, False),
        ({"note": {"$lt": 1}}, False),
        ({"title": {"$gte": "Z"}}, True),
        ({"title": {"$lt": "a"}}, True),
        ({"title": {"$contains": "\U0001f600"}}, True),
        ({"title": {"$contains": ""}}, True),
        ({"title": {"$contains": "zürich"}}, False),
        ({"tags": {"$contains": 1.0}}, True),
        ({"tags": {"$contains": None}}, True),
        ({"tags": {"$contains": "deep"}}, False),
        ({"year": {"$contains": 2019}}, False),
        ({"year": {"$not": {"$gt": 2019}}}, True),
        ({"missing": {"$not": {"$gt": 0}}}, True),
        ({"$or": [{"year": 1}, {"draft": False}]}, True),
        ({"$or": []}, False),
        ({"$and": []}, True),
        ({"$not": {}}, False),
        ({}, True),
        ({"$id": "book"}, True),
        ({"$id": {"$ne": "book"}}, False),
        ({"$id": {"$gt": "bool"}}, False),
        ({"$id": {"$in": ["a", None, "book"]}, "year": 2019}, True),
        ({"$not": {"$id": {"$contains": "oo"}}}, False),
        ({"$id": {"$not": {"$gte": 1}}}, True),
        ({"$id": None}, False),
        ({"$id": {"$exists": False}}, False),
    ],
)
def test_what_it_means(raw: object, expected: bool) -> None:
    assert matches(parse(raw), BOOK, DocumentId("book")) is expected


def test_numbers_are_the_decimals_that_were_written() -> None:
    assert not matches(parse({"n": 2**53 + 1}), {"n": float(2**53)}, DocumentId("a"))
    assert matches(parse({"n": {"$gt": float(2**53)}}), {"n": 2**53 + 1}, DocumentId("a"))
    assert matches(parse({"n": 10**16}), {"n": 1e16}, DocumentId("a"))
    assert matches(parse({"n": 0.1}), {"n": 0.1}, DocumentId("a"))


def test_strings_are_ordered_by_code_point() -> None:
    assert matches(parse({"s": {"$gt": "\uffff"}}), {"s": "\U00010000"}, DocumentId("a"))
    assert matches(parse({"s": {"$lt": "a"}}), {"s": "Z"}, DocumentId("a"))


@pytest.mark.parametrize(
    ("raw", "metadata", "expected"),
    [
        ({"source.url": "a"}, {"source.url": "a"}, True),
        ({"source.url": {"$ne": "a"}}, {"source.url": "a"}, False),
        ({"source.url": {"$ne": "a"}}, {"source": {"url": "a"}}, False),
        ({"source.url": {"$nin": ["a"]}}, {"source.url": "b", "source": {"url": "a"}}, False),
        ({"source.url": None}, {"source.url": "a"}, False),
        ({"source.url": None}, {"source": {"url": None}, "source.url": "a"}, True),
        ({"source.url": {"$exists": False}}, {"source.url": None}, False),
        ({"source.url": {"$not": {"$eq": "a"}}}, {"source.url": ["b", "a"]}, False),
        ({"a.b.c": 1}, {"a.b": {"c": 1}}, True),
        ({"a.b.c": 1}, {"a": {"b.c": 1}}, True),
        ({"a.b.c": 1}, {"a": [{"b": 2}, {"b.c": [1]}]}, True),
        ({"a.b.c": 1}, {"a.b.c.d": 1, "b.c": 1}, False),
        ({"Nr.": {"$gt": 1}}, {"Nr.": 2}, True),
        ({"a..b": 1}, {"a..b": 1}, True),
        ({"...": 1}, {"...": 1}, True),
        ({"a.$b": 1}, {"a": {"$b": 1}}, True),
        ({"url.path": {"$contains": "x"}}, {"url.path": "axb"}, True),
        ({"cafe\u0301": "e\u0301"}, {"café": "é"}, True),
        ({"café": {"$contains": "é"}}, {"cafe\u0301": ["e\u0301"]}, True),
        ({"n": {"$ne": "\uac00"}}, {"n": "\u1100\u1161"}, False),
        ({"n": "K"}, {"n": "\u212a"}, True),  # the Kelvin sign is a K in NFC
        ({"n": "ﬁ"}, {"n": "fi"}, False),  # a ligature is another text in NFC
    ],
)
def test_names_with_dots_and_unicode_forms(raw: Any, metadata: dict[str, Any], expected: bool) -> None:
    assert matches(parse(raw), metadata, DocumentId("a")) is expected


@pytest.mark.parametrize(
    ("raw", "value", "expected"),
    [
        ({"$gt": "2024-05-01T12:00:00Z"}, "2024-05-01T13:30:00+02:00", False),
        ({"$lt": "2024-05-01T12:00:00Z"}, "2024-05-01T13:30:00+02:00", True),
        ("2024-05-01T12:00:00Z", "2024-05-01 14:00:00.000+0200", True),
        ({"$in": [None, "2024-05-01"]}, "2024-05-01t00:00z", True),
        ({"$nin": ["2024-05-01"]}, ["2023-01-01", "2024-04-30T20:00:00-04"], False),
        ({"$gte": "2024-05-01", "$lt": "2024-05-02"}, "2024-05-01T23:59:59.999999Z", True),
        ({"$not": {"$gt": "2024-05-01"}}, "2024-05-01T00:00:01Z", False),
        ({"$ne": "2024-05-01"}, None, True),
        (None, None, True),
        ({"$exists": True}, "2024-05-01", True),
        ({"$gt": "2000-01-01"}, "yesterday", False),  # stored before the field had a type
    ],
)
def test_instants(raw: Any, value: Any, expected: bool) -> None:
    where = typed(parse({"at.utc": raw}), {"at.utc": "datetime"})
    assert matches(where, {"at": {"utc": value}}, DocumentId("a")) is expected
    assert typed(where, {"at.utc": "datetime"}) == where


@pytest.mark.parametrize(
    ("kind", "raw", "place"),
    [
        ("datetime", {"f": "yesterday"}, "filter.f"),
        ("datetime", {"f": {"$gte": 1_714_521_600}}, "filter.f.$gte"),
        ("datetime", {"$or": [{"f": {"$in": ["2024-05-01", "2024-13-01"]}}]}, "filter.$or.0.f.$in.1"),
        ("datetime", {"$not": {"f": {"$not": {"$lt": ""}}}}, "filter.$not.f.$not.$lt"),
        ("datetime", {"f": {"$contains": "2024"}}, "filter.f.$contains"),
        ("number", {"f": {"$lt": "5"}}, "filter.f.$lt"),
        ("number", {"f": True}, "filter.f"),
        ("string", {"f": {"$ne": 5}}, "filter.f.$ne"),
    ],
)
def test_operands_have_the_type_of_the_field(kind: Any, raw: Any, place: str) -> None:
    with pytest.raises(Invalid, match=f"declared as {kind}") as refused:
        typed(parse(raw), {"f": kind, "g": None})
    assert [error.field for error in refused.value.errors] == [place]


def test_a_type_leaves_other_fields_and_null_as_they_are() -> None:
    where = parse({"g": "5", "f": {"$in": [None]}, "h": {"$exists": True}})
    assert typed(where, {"f": "number", "g": None, "h": "datetime"}) == where
    assert typed(parse({"f": "1970-01-01T00:00:01Z"}), {"f": "datetime"}) == Condition(("f",), "$eq", Instant(1))


def test_declared_fields_come_in_order() -> None:
    assert filters.declared(["year", "author.name"], "indexed") == ("author.name", "year")
    at = DeclaredField(field="e\u0301", type="datetime")
    assert filters.declared([at, "z", "a"], "indexed") == ("a", "z", DeclaredField(field="é", type="datetime"))
    assert filters.declared([], "indexed") == ()


@pytest.mark.parametrize(
    ("names", "place"),
    [
        (["year", "$year"], "indexed.1"),
        ([""], "indexed.0"),
        (["a.b.c.d.e.f.g.h.i"], "indexed.0"),
        (["e\u0301", "é"], "indexed.1"),
        (["a", "b", "a"], "indexed.2"),
        (["a\0"], "indexed.0"),
        (["x" * 513], "indexed.0"),
        ([f"f{number}" for number in range(17)], "indexed"),
    ],
)
def test_fields_that_no_filter_could_ask_for_are_not_declared(names: list[str], place: str) -> None:
    with pytest.raises(Invalid) as refused:
        filters.declared(names, "indexed")
    assert [error.field for error in refused.value.errors] == [place]


@pytest.mark.parametrize(
    ("where", "metadata", "several"),
    [
        ({"a": 1}, {"a": 1}, False),
        ({"a": 1}, {"a": [1]}, False),
        ({"a": 1}, {"a": [1, 2]}, True),
        ({"a": 1}, {}, False),
        ({"a.b": 1}, {"a": {"b": 1}}, False),
        ({"a.b": 1}, {"a": {"b": 1}, "a.b": 2}, True),
        ({"a.b": 1}, {"a": [{"b": 1}, {"b": 2}]}, True),
        ({"$or": [{"x": 1}, {"$not": {"a": {"$in": [1, 2]}}}]}, {"a": [3, 4]}, True),
        ({"a": {"$contains": 1}}, {"a": [1, 2]}, False),
        ({"b": 1}, {"a": [1, 2], "b": 1}, False),
    ],
    ids=str,
)
def test_fields_with_several_values(where: Any, metadata: dict[str, Any], several: bool) -> None:
    assert several_values(parse(where), metadata) == several
