"""Static SQL: `sql/<name>.sql` holds the queries of the module `<name>`, in blocks.

    -- name: by_name
    -- One collection, by the name that clients use.
    SELECT id, name FROM collections WHERE name = %(name)s

    SQL = sql_files.load("collections")
    await connection.execute(SQL.by_name, {"name": name})

Each block has one comment line that says what it does. A query reaches the server with its name in front
(`/* collections.by_name */`), so that pg_stat_activity and the server's log can be read against these files.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import LiteralString

_HEADER = re.compile(r"^-- name: *(?P<name>.*?) *$")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class SqlFile:
    """The queries of one file as attributes. A name that the file does not have is an AttributeError."""

    _file: str
    _queries: Mapping[str, LiteralString]

    def __getattr__(self, name: str) -> LiteralString:
        try:
            return self._queries[name]
        except KeyError:
            known = ", ".join(self._queries)
            raise AttributeError(f"{self._file}.sql has no query {name!r}; it has {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)


def load(name: str) -> SqlFile:
    """The queries of `sql/<name>.sql`. ValueError where the file is not made of well-formed blocks."""
    text = files("service.store.postgres").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    return SqlFile(name, parse(text, name))


def parse(text: str, file: str) -> dict[str, LiteralString]:
    """Query by name. Comment lines are left out: a `%` in one would be taken for a placeholder.

    ValueError names the line: text before the first block, a bad or repeated name, no comment line, an empty query.
    """
    blocks: dict[str, list[str]] = {}
    described: set[str] = set()
    current: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        place = f"{file}.sql:{number}"
        if header := _HEADER.match(line):
            current = header["name"]
            if not _NAME.fullmatch(current):
                raise ValueError(f"{place}: {current!r} is not a name of lower-case letters, digits and underscores")
            if current in blocks:
                raise ValueError(f"{place}: there are two queries named {current}")
            blocks[current] = []
        elif line.lstrip().startswith("--"):
            if current is not None and not blocks[current]:
                described.add(current)
        elif current is not None:
            blocks[current].append(line)
        elif line.strip():
            raise ValueError(f"{place}: this is before the first `-- name:`")

    queries: dict[str, LiteralString] = {}
    for block, lines in blocks.items():
        body = "\n".join(lines).strip().removesuffix(";")
        if not body:
            raise ValueError(f"{file}.sql: the query {block} is empty")
        if block not in described:
            raise ValueError(f"{file}.sql: the query {block} has no comment line that says what it does")
        # Literal in all but syntax: the text comes from this package's own files and never from a user.
        queries[block] = f"/* {file}.{block} */ {body}"
    return queries
