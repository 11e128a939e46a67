"""Rows of tables and of JSON as documents: one row, one document, its columns as metadata."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from service.ingest.files.found import Unreadable
from service.ingest.files.prose import decoded, encoding_of

IDS, TITLES = ("id", "_id"), ("title", "name", "headline", "subject")
TEXTS = ("text", "content", "body", "contents", "page_content")
"""Columns that become the parts of a document; without one of TEXTS, its text is all columns with their names."""
MAX_CELL = 2**24
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d+)?")


def rows_as_documents(name: str, rows: Iterable[object], metadata: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise Unreadable(f"row {number} is no object with fields")
        yield row_as_document(name, number, row, metadata)


def row_as_document(name: str, number: int, row: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """`name` and `number` give the id where the row has none. What is in `metadata` the row may not change."""
    empty = (None, "")
    own = {_named(key): value for key, value in row.items() if value not in empty and value == value}  # not NaN
    document: dict[str, Any] = {"id": str(next((own[key] for key in IDS if key in own), f"{name}#row={number}"))}
    taken = {key for key in IDS if key in own}
    for part, columns in (("title", TITLES), ("text", TEXTS)):
        column = next((one for one in columns if isinstance(own.get(one), str)), None)
        document[part] = own.get(column, "") if column else ""
        if column and (column == part or part == "text"):
            taken.add(column)
    if not document["text"]:
        document["text"] = "\n".join(f"{key}: {value}" for key, value in own.items() if key not in IDS)
    if isinstance(own.get("vector"), list):
        document["vector"] = own["vector"]
        taken.add("vector")
    nested = own.get("metadata")
    more = nested if isinstance(nested, dict) else {}
    taken |= {"metadata"} if more else set()
    document["metadata"] = {**metadata, **{key: value for key, value in own.items() if key not in taken}, **more}
    document["metadata"]["ingested"] = metadata.get("ingested", {})
    return document


def _named(key: object) -> str:
    """A name that filters can use."""
    return re.sub(r"[.$\s]+", "_", str(key).strip()).strip("_") or "column"


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    encoding = encoding_of(path)
    csv.field_size_limit(MAX_CELL)

    def rows() -> Iterator[dict[str, Any]]:
        with path.open(encoding=encoding, newline="") as file:
            start = file.read(8192)
            try:
                dialect: Any = csv.Sniffer().sniff(start, ",;\t|")
            except csv.Error:
                dialect = csv.excel_tab if path.suffix == ".tsv" else csv.excel
            file.seek(0)
            yield from csv.DictReader(file, dialect=dialect, restkey="more")

    # A column is a number only where all of its values are: filters compare values of one type.
    texts = {key for row in rows() for key, value in row.items() if value and not _NUMBER.fullmatch(str(value))}
    for row in rows():
        yield {key: value if key in texts or not value else json.loads(value) for key, value in row.items()}


def _json_rows(path: Path) -> Iterable[Any]:
    content = json.loads(decoded(path))
    if isinstance(content, dict) and isinstance(content.get("documents"), list):
        content = content["documents"]
    if isinstance(content, list) and all(isinstance(one, dict) for one in content):
        return content
    return [content if isinstance(content, dict) else {"text": json.dumps(content, ensure_ascii=False, indent=1)}]


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open(encoding=encoding_of(path)) as lines:
        for number, line in zip(count(1), lines, strict=False):
            try:
                if line.strip():
                    yield json.loads(line)
            except ValueError as error:
                raise Unreadable(f"line {number} is not JSON: {error}") from error


def _parquet_rows(path: Path) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as table:
        for batch in table.iter_batches(1_000):
            yield from batch.to_pylist()


ROWS: dict[str, Callable[[Path], Iterable[Any]]] = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".json": _json_rows,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet_rows,
}
