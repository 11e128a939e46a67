"""One meaning of a filter: what PostgreSQL answers is what `filters.matches` answers, for any metadata."""

from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

from service.core import filters
from service.core.errors import Invalid
from service.core.filters import Filter, typed
from service.core.ids import DocumentId
from service.core.metadata import DATETIME, instant, name_error, nfc
from service.store.postgres.connection.pool import Pool
from service.store.postgres.filters.filter_sql import INSTANT, indexed_predicate, predicate
from service.store.postgres.filters.simplify import simplified

# Few names and values, so that filters and metadata meet; among them what quoting, collation and arithmetic stumble on.
KEYS = st.sampled_from(
    ["a", "b", "a.b", "b.", ".", "", 'q"\\', "é", "e\u0301", "\U0001d49c", "x y", "$v", "A", "\n", "@", "null"]
)
IDS = [DocumentId(id_) for id_ in ("ab", "B", "b", "\U00010000", "\uffff", "e\u0301", "é", '"a\\')]
"""Of the rows, in their order."""
WORDS = ["d07", "d2", "a", "ab", "b", "B", "é", "e\u0301", "z", "%", "_", "\\", '"', "null", "1", "true", "2024-02-29"]
STRINGS = st.sampled_from(
    [*WORDS, "\uffff", "\U00010000", "\U0001f600", "2024-02-29T00:00:00Z", "a\tb", "\x7f", "\x01"]
)
INTEGERS = [0, 1, -1, 2, 2**53, 2**53 + 1, 2**60, -(2**63), 2**63 - 1]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.1, 0.30000000000000004, 1.5, float(2**53), float(2**60), 1e16, 1e300, 5e-324, 1e-7]
NUMBERS = st.sampled_from([*INTEGERS, *FLOATS])
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, STRINGS, st.integers(-(2**63), 2**63 - 1), st.floats(-1e9, 1e9))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
METADATA = st.dictionaries(KEYS, VALUES, max_size=4)

FIELDS = st.lists(KEYS, min_size=1, max_size=3).map(".".join).filter(lambda name: not name_error(name))
FIELDS = FIELDS | FIELDS | st.just("$id")
OPERATORS = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne", "$contains"]), SCALARS),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS | STRINGS),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, max_size=4) | st.lists(SCALARS, min_size=9)),
    st.tuples(st.just("$exists"), st.booleans()),
)
TESTS = st.lists(OPERATORS, min_size=1, max_size=2).map(dict) | SCALARS
TESTS = TESTS | st.lists(OPERATORS, min_size=1, max_size=2).map(lambda pairs: {"$not": dict(pairs)})
FILTERS = st.recursive(
    st.dictionaries(FIELDS, TESTS, max_size=2),
    lambda inner: (
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, max_size=2))
        | st.builds(lambda parts: {"$or": parts}, st.lists(inner, max_size=2))
        | st.builds(lambda part: {"$not": part}, inner)
    ),
    max_leaves=4,
)


async def passes(pool: Pool, where: Filter, rows: list[dict[str, Any]]) -> list[bool]:
    asked = predicate(where)
    query = sql.SQL(
        'SELECT {} FROM (SELECT metadata, id COLLATE "C" AS document_id, n'
        " FROM unnest(%(rows)s::jsonb[], %(ids)s::text[]) WITH ORDINALITY AS d (metadata, id, n)) AS d ORDER BY n"
    ).format(asked.expression)
    async with pool.connection() as connection:
        cursor = await connection.execute(
            query, {**asked.values, "rows": [Jsonb(nfc(row)) for row in rows], "ids": IDS[: len(rows)]}
        )
        return [row[0] for row in await cursor.fetchall()]


@given(raw=FILTERS, rows=st.lists(METADATA, min_size=1, max_size=8))
@example(raw={"a": 1}, rows=[{"a": [[1]]}, {"a": [1]}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": {"a": 1}}])
@example(raw={"a.b": 1}, rows=[{"a": [{"b": 2}, {"b": [1]}]}, {"a": [[{"b": 1}]]}, {"a": [1, {"c": 1}]}])
@example(raw={"a.b": None}, rows=[{}, {"a": None}, {"a": {"b": None}}, {"a": []}, {"a": [{"b": 1}, {}]}])
@example(raw={"a.b.b": {"$ne": 1}}, rows=[{"a.b.b": 1}, {"a.b": {"b": 1}}, {"a": {"b.b": 1}}, {"a": {"b": {"b": 1}}}])
@example(raw={"a.b": {"$contains": "b"}}, rows=[{"a.b": ["b"]}, {"a": [{"b": "abc"}]}, {"a": {"b": 1}, "a.b": "b"}])
@example(raw={"é": {"$in": ["e\u0301"]}}, rows=[{"e\u0301": "é"}, {"é": ["e\u0301"]}, {"e": "é"}])
@example(raw={"a": {"$gt": "\uffff"}}, rows=[{"a": "\U00010000"}, {"a": "\ufffe"}, {"a": 70000}])
@example(raw={"a": {"$gt": 0}}, rows=[{"a": True}, {"a": None}, {"a": "1"}, {"a": [None, True, 1]}, {"a": {}}])
@example(
    raw={"a": {"$contains": "b"}}, rows=[{"a": "abc"}, {"a": ["abc"]}, {"a": ["b"]}, {"a": [["b"]]}, {"a": {"b": 1}}]
)
@example(raw={"a": 2**53 + 1}, rows=[{"a": float(2**53)}, {"a": 2**53 + 1}])
@example(raw={"a": {"$nin": []}}, rows=[{}, {"a": 1}])
@example(raw={"$and": []}, rows=[{}])
@example(raw={"$or": []}, rows=[{}])
@example(raw={"$id": {"$in": ["b", None, 1], "$gte": "b"}}, rows=[{"a": 1}] * 8)
@example(raw={"$or": [{"$id": {"$contains": "\u0301"}}, {"$id": {"$lt": "b"}}]}, rows=[{}] * 8)
@example(raw={"$id": {"$nin": ["é", "b"], "$exists": True, "$ne": None}}, rows=[{}] * 8)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_postgres_and_the_reference_agree(pool: Pool, raw: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    where = filters.parse(raw)
    assert await passes(pool, where, rows) == [
        filters.matches(where, row, id_) for row, id_ in zip(rows, IDS, strict=False)
    ]


async def passes_by_index(pool: Pool, where: Filter, rows: list[dict[str, Any]]) -> list[bool]:
    """As `passes`, along the index over metadata wherever the filter can use it."""
    asked = indexed_predicate(where)
    async with pool.transaction() as connection:
        await connection.execute(
            'CREATE TEMPORARY TABLE rows (n integer, metadata jsonb, document_id text COLLATE "C") ON COMMIT DROP'
        )
        await connection.execute("CREATE INDEX ON rows USING gin (metadata jsonb_path_ops)")
        await connection.execute("SET LOCAL enable_seqscan = off")
        inserted = (
            "INSERT INTO rows SELECT n, value, id"
            " FROM unnest(%s::jsonb[], %s::text[]) WITH ORDINALITY AS given (value, id, n)"
        )
        await connection.execute(inserted, ([Jsonb(nfc(row)) for row in rows], IDS[: len(rows)]))
        query = sql.SQL("SELECT d.n FROM rows AS d WHERE {}").format(asked.expression)
        found = {row[0] for row in await (await connection.execute(query, asked.values, prepare=False)).fetchall()}
    return [n in found for n in range(1, len(rows) + 1)]


EQUALITIES = st.dictionaries(
    FIELDS, SCALARS | st.fixed_dictionaries({"$in": st.lists(SCALARS, max_size=4)}), max_size=2
)


@given(raw=EQUALITIES | FILTERS, rows=st.lists(METADATA, min_size=1, max_size=8))
@example(raw={"a": -1}, rows=[{"a": -1}, {"a": [-1.0]}, {"a": [[-1]]}, {"a": "-1"}, {"a": 1}])
@example(raw={"a.b": {"$in": [1, "é"]}}, rows=[{"a": {"b": "é"}}, {"a": [{"b": 1}]}, {"a": {"b": [2, 1.0]}}, {}])
@example(raw={"a": 1e16}, rows=[{"a": 1e16}, {"a": 10**16}, {"a": 10**16 + 1}])
@example(raw={"a": True}, rows=[{"a": True}, {"a": "true"}, {"a": 1}])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_index_over_metadata_loses_nothing(
    pool: Pool, raw: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    where = filters.parse(raw)
    assert await passes_by_index(pool, where, rows) == [
        filters.matches(where, row, id_) for row, id_ in zip(rows, IDS, strict=False)
    ]


@given(name=st.text(min_size=1, max_size=8), value=st.text(max_size=8))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_text_is_only_a_name_or_a_value(pool: Pool, name: str, value: str) -> None:
    """Whatever `parse` lets through reaches PostgreSQL as data: quotes, escapes, operators, placeholders."""
    try:
        where = filters.parse({name: value})
    except Invalid:
        return
    nested: Any = value
    for key in reversed(name.split(".")):
        nested = {key: nested}
    assert await passes(pool, where, [nested, {name: value}, {}]) == [True, True, False]


# Most of them name an instant; the others differ in a few characters from one that does.
TIMES = st.from_regex(DATETIME, fullmatch=True).map(lambda text: text.replace("\n", ""))
NEARLY = st.builds(
    lambda text, at, sign: text[:at] + sign + text[at + 1 :],
    TIMES,
    st.integers(0, 24),
    st.sampled_from("0159-:.TzZ+ ,"),
)
FEW = [
    "2024-02-29",
    "2024-02-29T00:00:00Z",
    "2024-02-29 01:00+01",
    "2024-02-28T23:59:60",
    "2024-03-01T05:29:59.5+05:30",
]
MOMENTS = st.sampled_from(FEW)
TIMED = st.one_of(
    MOMENTS,
    st.none(),
    st.fixed_dictionaries({"$not": st.fixed_dictionaries({"$gt": MOMENTS})}),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$eq", "$ne"]), MOMENTS).map(lambda pair: dict([pair])),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(MOMENTS | st.none(), max_size=3)).map(
        lambda pair: dict([pair])
    ),
)


@given(texts=st.lists(TIMES | NEARLY, min_size=20, max_size=20))
@example(texts=["0001-01-01T00:00:00+15:59", "9999-12-31T23:59:60-15:59", "2024-05-01T00:00:00.9999995"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_postgres_reads_the_same_instants(pool: Pool, texts: list[str]) -> None:
    query = sql.SQL("SELECT {} FROM unnest(%(texts)s::jsonb[]) WITH ORDINALITY AS e (value, n) ORDER BY n").format(
        INSTANT
    )
    async with pool.connection() as connection:
        values = {"texts": [Jsonb(text) for text in texts], "datetime": DATETIME}
        rows = await (await connection.execute(query, values)).fetchall()
    assert [row[0] for row in rows] == [instant(text) for text in texts]


@given(
    raw=st.dictionaries(st.sampled_from(["a", "a.b"]), TIMED, min_size=1),
    rows=st.lists(
        st.recursive(
            st.dictionaries(KEYS, MOMENTS | st.lists(MOMENTS | SCALARS, max_size=3) | SCALARS, max_size=3),
            lambda inner: st.dictionaries(KEYS, inner | st.lists(inner, max_size=2), max_size=2),
            max_leaves=3,
        ),
        min_size=1,
        max_size=8,
    ),
)
@example(raw={"a": {"$in": [None, "2024-02-29"]}}, rows=[{}, {"a": None}, {"a": []}, {"a": ["x", FEW[2]]}, {"a": "x"}])
@example(
    raw={"a.b": {"$gt": FEW[0]}}, rows=[{"a.b": FEW[4]}, {"a": [{"b": [[FEW[4]]]}]}, {"a": {"b": 5, "a.b": FEW[4]}}]
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_postgres_and_the_reference_agree_on_instants(
    pool: Pool, raw: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    where = typed(filters.parse(raw), {"a": "datetime", "a.b": "datetime"})
    assert await passes(pool, where, rows) == [
        filters.matches(where, row, id_) for row, id_ in zip(rows, IDS, strict=False)
    ]
    assert await passes_by_index(pool, where, rows) == [
        filters.matches(where, row, id_) for row, id_ in zip(rows, IDS, strict=False)
    ]


@given(raw=FILTERS)
def test_negation_and_its_reference(raw: dict[str, Any]) -> None:
    """$not turns every answer around, and nothing in between exists."""
    where, negated = filters.parse(raw), filters.parse({"$not": raw})
    for row in ({}, {"a": 1}, {"a": None}, {"a": [1, "a"]}, {"b": {"a": "ab"}}):
        assert filters.matches(where, row, IDS[0]) is not filters.matches(negated, row, IDS[0])


@given(raw=FILTERS, rows=st.lists(METADATA, min_size=1, max_size=8))
@example(raw={"$and": [{"a": {"$nin": [1]}}, {"a": {"$ne": True}}, {"a": {"$ne": None}}]}, rows=[{"a": True}, {}])
@example(raw={"$not": {"$and": [{"a": 1}, {"$not": {"a": {"$in": [1.0, "x"]}}}]}}, rows=[{"a": [1, 2]}, {"a": "x"}])
@example(raw={"$and": [{"a": {"$in": [1, 2]}}, {"a": {"$in": [3]}}]}, rows=[{"a": [2, 3]}, {"a": 2}])
@example(raw={"$or": [{"a": {"$ne": 1}}, {"a": {"$ne": 2}}]}, rows=[{"a": [1, 2]}, {"a": 1}])
def test_a_simplified_filter_means_the_same(raw: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    where = filters.parse(raw)
    simple = simplified(where)
    assert simplified(simple) == simple
    assert [filters.matches(simple, row, id_) for row, id_ in zip(rows, IDS, strict=False)] == [
        filters.matches(where, row, id_) for row, id_ in zip(rows, IDS, strict=False)
    ]
