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

_BLOCK = re.compile(r"^-- name: *(?P<name>.*?) *$\n?(?P<lines>.*?)(?=^-- name:|\Z)", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"\s*--")
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
    blocks = list(_BLOCK.finditer(text))
    for number, line in enumerate(text[: blocks[0].start() if blocks else None].splitlines(), start=1):
        if line.strip() and not _COMMENT.match(line):
            raise ValueError(f"{file}.sql:{number}: this is before the first `-- name:`")
    queries: dict[str, LiteralString] = {}
    for block in blocks:
        name, lines = block["name"], block["lines"].splitlines()
        place = f"{file}.sql:{1 + text.count(chr(10), 0, block.start())}"
        if not _NAME.fullmatch(name):
            raise ValueError(f"{place}: {name!r} is not a name of lower-case letters, digits and underscores")
        if name in queries:
            raise ValueError(f"{place}: there are two queries named {name}")
        body = "\n".join(line for line in lines if not _COMMENT.match(line)).strip().removesuffix(";")
        if not body:
            raise ValueError(f"{place}: the query {name} is empty")
        if not _COMMENT.match(lines[0]):
            raise ValueError(f"{place}: the query {name} has no comment line that says what it does")
        # Literal in all but syntax: the text comes from this package's own files and never from a user.
        queries[name] = f"/* {file}.{name} */ {body}"
    return queries
