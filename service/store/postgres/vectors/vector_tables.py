"""The physical spaces: names and statements for the table and the index of one embedder version, in one place.

Statements are composed of integers that the database itself assigned; nothing here comes from a user.

Two vectors of the same length do not show to which spaces they belong, and a label beside one is easily rewritten. So
each row carries a seal: a digest of the vector, as it is stored, and of its version, made where the vector is written.
The table checks it, and so rejects a vector of another version whatever its label says.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, LiteralString

from pgvector import HalfVector
from pgvector import Vector as FullVector
from psycopg import sql
from psycopg.errors import UndefinedTable

from service.core.collections import Storage
from service.core.errors import VersionNotFound
from service.core.ids import CollectionId, Vector, VersionNumber
from service.core.versions import EmbedderVersion
from service.store.postgres.connection import sql_files
from service.store.postgres.vectors.index_kinds import options

SQL = sql_files.load("vector_tables")

SEAL_BYTES = 8
"""Bytes kept of a SHA-256: one foreign vector in 2^64 would pass by chance."""

_MAX_INLINE_BYTES = 6_000
"""Inline storage saves a detour for each distance, but a row with a long id must still fit an 8 kB page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageLayout:
    """A storage in PostgreSQL: the column's type, `value` (a vector as the column holds it, rounded to its precision)
    and the function for the length.

    `width`: bytes of a dimension in the table; `bits`: bits of a dimension in the index. `max_indexed`: the most
    dimensions that pgvector indexes. `operators`: of the index. `code`: the bits that are indexed in place of the
    vector, which is its part `value`; {t} is the third quartile of components.
    """

    type: LiteralString
    value: Callable[[Vector], Any]
    length: sql.SQL
    width: int
    bits: int
    max_indexed: int
    operators: LiteralString
    code: LiteralString | None = None


_HALFVEC = StorageLayout(
    type="halfvec",
    value=HalfVector,
    length=sql.SQL("l2_norm"),
    width=2,
    bits=16,
    max_indexed=4_000,
    operators="halfvec_cosine_ops",
)
_SIGN: LiteralString = "binary_quantize({value})"
# A halfvec holds 16,000 dimensions, and HNSW over bits takes 64,000 bits.
_BINARY = replace(_HALFVEC, bits=1, max_indexed=16_000, operators="bit_hamming_ops", code=_SIGN)
_LAYOUTS: Mapping[Storage, StorageLayout] = {
    "halfvec": _HALFVEC,
    "vector": StorageLayout(
        type="vector",
        value=FullVector,
        length=sql.SQL("vector_norm"),
        width=4,
        bits=32,
        max_indexed=2_000,
        operators="vector_cosine_ops",
    ),
    "binary": _BINARY,
    # Four levels in unary code: of two codes as many bits differ as there are levels between the components.
    "scalar": replace(
        _BINARY, bits=3, code=f"(binary_quantize({{value}} - {{t}}) || {_SIGN} || binary_quantize({{value}} + {{t}}))"
    ),
}
_THIRD_QUARTILE = 0.6745
"""Of the standard normal distribution. Components of a unit vector of d dimensions have a variance of about 1 / d, and
levels between their quartiles are equally frequent."""


@dataclass(frozen=True, slots=True)
class VectorTable:
    """The names that belong to one version. That of the index is the same for every kind."""

    table: str
    index: str

    @property
    def table_identifier(self) -> sql.Identifier:
        return sql.Identifier(self.table)


def vector_table(collection_id: CollectionId, number: VersionNumber) -> VectorTable:
    table = f"vectors_{collection_id:d}_{number:d}"
    return VectorTable(table=table, index=f"{table}_hnsw")


def vector_table_of(version: EmbedderVersion) -> VectorTable:
    return vector_table(version.collection_id, version.number)


def layout_of(version: EmbedderVersion) -> StorageLayout:
    return _LAYOUTS[version.index.storage]


def on_table(query: LiteralString, version: EmbedderVersion, **parts: sql.Composable) -> sql.Composed:
    """The statement for the table of this version, which is its part `vectors`."""
    return _on(vector_table_of(version), query, **parts)


def _on(names: VectorTable, query: LiteralString, **parts: sql.Composable) -> sql.Composed:
    return sql.SQL(query).format(vectors=names.table_identifier, index=sql.Identifier(names.index), **parts)


@contextmanager
def missing_table(number: VersionNumber) -> Iterator[None]:
    """VersionNotFound where the table of this version was dropped meanwhile."""
    try:
        yield
    except UndefinedTable as error:
        raise VersionNotFound(f"The embedder version {number} has no table.") from error


def indexed(version: EmbedderVersion, value: sql.Composable) -> sql.Composable:
    """What the index compares in place of a vector: its bits, or the vector itself."""
    layout, dimensions = layout_of(version), version.dimensions
    if layout.code is None:
        return value
    threshold = sql.SQL("array_fill({}::real, ARRAY[{}])::halfvec").format(
        sql.Literal(round(_THIRD_QUARTILE / math.sqrt(dimensions), 6)), sql.Literal(dimensions)
    )
    code = sql.SQL(layout.code).format(value=value, t=threshold)
    return sql.SQL("{}::bit({})").format(code, sql.Literal(layout.bits * dimensions))


def seal(collection_id: CollectionId, number: VersionNumber, value: Any) -> bytes:
    """A digest that binds a value of the column to the version that it is written for."""
    return hashlib.sha256(value.to_binary() + _label(collection_id, number).encode()).digest()[:SEAL_BYTES]


def _label(collection_id: CollectionId, number: VersionNumber) -> str:
    return f"{collection_id:d}/{number:d}"


def create_table(
    collection_id: CollectionId, number: VersionNumber, dimensions: int, storage: Storage = "halfvec"
) -> tuple[sql.Composed, ...]:
    """The statements that create a version's table. Its CHECKs make it impossible to mix spaces.

    They restrict the length to where pgvector's cosine, of single precision, is defined; its types reject NaN and
    infinity. Dead rows cost recall, so the table is vacuumed earlier than others.
    """
    layout, names = _LAYOUTS[storage], vector_table(collection_id, number)
    create = _on(
        names,
        SQL.create,
        type=sql.SQL(layout.type),
        dimensions=sql.Literal(int(dimensions)),
        length=layout.length,
        **_seal_parts(collection_id, number, layout),
    )
    inline = dimensions * layout.width <= _MAX_INLINE_BYTES
    return create, _on(names, SQL.set_storage, storage=sql.SQL("PLAIN" if inline else "EXTERNAL"))


def copy_rows(source: EmbedderVersion, target: EmbedderVersion) -> sql.Composed:
    """Copy vectors into a version of another collection. Both are of one space: of the same fingerprint."""
    assert source.fingerprint == target.fingerprint
    parts = _seal_parts(target.collection_id, target.number, layout_of(target))
    return on_table(SQL.copy_rows, target, source=vector_table_of(source).table_identifier, **parts)


def _seal_parts(collection_id: CollectionId, number: VersionNumber, layout: StorageLayout) -> dict[str, sql.Composable]:
    """What a row of the version has beside its vector, and how its seal is computed."""
    return {
        "collection_id": sql.Literal(int(collection_id)),
        "number": sql.Literal(int(number)),
        "send": sql.SQL(layout.type + "_send"),
        "label": sql.Literal(_label(collection_id, number)),
        "seal_bytes": sql.Literal(SEAL_BYTES),
    }


def drop_table(collection_id: CollectionId, number: VersionNumber) -> sql.Composed:
    return _on(vector_table(collection_id, number), SQL.drop)


def create_index(version: EmbedderVersion, rows: int = 0) -> sql.Composed:
    """Build the index beside running writes; `rows` decide the number of lists. Cannot run inside a transaction."""
    return on_table(
        SQL.create_index,
        version,
        kind=sql.SQL(version.index.kind),
        indexed=sql.SQL("({}) {}").format(
            indexed(version, sql.Identifier("embedding")), sql.SQL(layout_of(version).operators)
        ),
        options=options(version, rows),
    )


def set_index(version: EmbedderVersion, rows: int) -> sql.Composed:
    """Let the next build be for so many rows."""
    return on_table(SQL.set_index, version, options=options(version, rows))


def drop_index(version: EmbedderVersion) -> sql.Composed:
    return on_table(SQL.drop_index, version)


def rebuild_index(version: EmbedderVersion) -> sql.Composed:
    """Build it anew beside searches and writes, which use the old index meanwhile. Cannot run inside a transaction."""
    return on_table(SQL.rebuild_index, version)


def analyze(version: EmbedderVersion) -> sql.Composed:
    return on_table(SQL.analyze, version)
