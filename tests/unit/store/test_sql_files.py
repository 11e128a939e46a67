"""The loader of static SQL."""

from importlib.resources import files

import pytest

from service.store.postgres.connection import sql_files

TWO = """
-- Remarks at the top belong to no query.
-- name: first
-- The first one: 100 % sure.
SELECT 1;

-- name: second
-- The second one.
SELECT %(a)s
  -- 50 % of a remark
FROM t
"""


def test_blocks_become_queries_with_their_names_and_without_comments() -> None:
    queries = sql_files.parse(TWO, "sample")
    assert queries == {"first": "/* sample.first */ SELECT 1", "second": "/* sample.second */ SELECT %(a)s\nFROM t"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1", "sample.sql:1: this is before"),
        ("-- name: a\n-- x\nSELECT 1\n-- name: a\n-- x\nSELECT 2", "sample.sql:4: there are two queries named a"),
        ("-- name: A b\n-- x\nSELECT 1", "is not a name"),
        ("-- name: a\n-- x\n", "the query a is empty"),
        ("-- name: a\nSELECT 1", "no comment line"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sql_files.parse(text, "sample")


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    queries = sql_files.SqlFile("sample", sql_files.parse(TWO, "sample"))
    assert queries.first == "/* sample.first */ SELECT 1"
    assert list(queries) == ["first", "second"]
    with pytest.raises(AttributeError, match=r"sample.sql has no query 'third'; it has first, second"):
        _ = queries.third


def test_queries_cannot_be_replaced() -> None:
    queries = sql_files.SqlFile("sample", sql_files.parse(TWO, "sample"))
    with pytest.raises(AttributeError, match="cannot assign"):
        queries.first = "SELECT 2"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name", sorted(file.name.removesuffix(".sql") for file in files("service.store.postgres").joinpath("sql").iterdir())
)
def test_every_file_of_the_package_loads(name: str) -> None:
    assert list(sql_files.load(name))
