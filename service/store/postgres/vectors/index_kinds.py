"""The kinds of index: how each is built, and what an `ef_search` means to it.

hnsw      a graph; a scan keeps `ef_search` candidates (pgvector)
ivfflat   clusters of the vectors, lists; a scan looks into the nearest ones (pgvector)
vchordrq  lists of vectors in few bits, scored again by the index itself (VectorChord)
diskann   a graph over few bits, whose `ef_search` nearest are scored again (pgvectorscale)

The effort of a scan is one number for all, so that calibration and promise know nothing of kinds. Of lists a scan looks
into the share (ef_search / 1000) ^ 2: 1 % at 100, all at 1,000.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from service.core.collections import IndexKind
from service.core.errors import Invalid
from service.core.versions import EmbedderVersion
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Connection

SQL = sql_files.load("index_kinds")

_GRAPH_BYTES_PER_ROW, _GRAPH_BYTES_PER_LINK = 160, 40
"""What pgvector holds of a row beside its vector while it builds a graph: headers, neighbours and their distances."""
_SAMPLED = 50
"""Rows for each list that pgvector clusters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """`options`: of the index. `set_scan`: for the rest of the transaction, how wide it is scanned.

    `lists`: for so many rows. `extension`: it comes with this. `max_dimensions`: None for those of the storage.
    """

    options: LiteralString
    set_scan: LiteralString
    lists: Callable[[int], int] | None = None
    extension: LiteralString = "vector"
    max_dimensions: int | None = None


def _root_lists(rows: int) -> int:
    """As pgvector recommends beyond a million rows; below, more than it does, for a finer choice of the share."""
    return max(1, min(32_768, round(math.sqrt(rows))))


def _chord_lists(rows: int) -> int:
    """https://docs.vectorchord.ai/vectorchord/usage/indexing.html"""
    return max(1, round(rows / 500 if rows < 2_000_000 else 4 * math.sqrt(rows)))


_KINDS: Mapping[IndexKind, Kind] = {
    "hnsw": Kind(options="m = {m}, ef_construction = {ef_construction}", set_scan=SQL.scan_hnsw),
    "ivfflat": Kind(options="lists = {lists}", set_scan=SQL.scan_ivfflat, lists=_root_lists),
    "vchordrq": Kind(
        options="options = $$residual_quantization = false\n"
        "[build.internal]\nlists = [{lists}]\nspherical_centroids = true$$",
        set_scan=SQL.scan_vchordrq,
        lists=_chord_lists,
        extension="vchord",
        max_dimensions=16_000,
    ),
    "diskann": Kind(
        options="storage_layout = memory_optimized",
        set_scan=SQL.scan_diskann,
        extension="vectorscale",
        max_dimensions=16_000,
    ),
}


def kind_of(version: EmbedderVersion) -> Kind:
    return _KINDS[version.index.kind]


def options(version: EmbedderVersion, rows: int) -> sql.Composed:
    """What an index for so many rows is built with."""
    kind = kind_of(version)
    return sql.SQL(kind.options).format(
        m=sql.Literal(int(version.index.m)),
        ef_construction=sql.Literal(int(version.index.ef_construction)),
        lists=sql.Literal(1 if kind.lists is None else kind.lists(rows)),
    )


def build_bytes(version: EmbedderVersion, rows: int, bits: int) -> int:
    """Memory for building it, `bits` for each dimension."""
    vector = version.dimensions * bits / 8
    if version.index.kind == "ivfflat":  # k-means keeps a bound for each sampled row and list (ivfkmeans.c)
        lists = _root_lists(rows)
        sampled = max(10_000, _SAMPLED * lists)
        return int(
            1.1 * (sampled * (vector + 16 + 4 * lists) + lists * (2 * vector + 4 * version.dimensions + 4 * lists))
        )
    return int(1.1 * rows * (vector + _GRAPH_BYTES_PER_ROW + _GRAPH_BYTES_PER_LINK * version.index.m))


async def require(connection: Connection, kind: IndexKind) -> None:
    """Invalid where the server cannot build this kind; the message names those that it can."""
    present = [name for (name,) in await connection.fetch_all(SQL.present, {"kinds": list(_KINDS)})]
    if kind not in present:
        extension = _KINDS[kind].extension
        known = ", ".join(present)
        ((available,),) = await connection.fetch_all(SQL.available, {"extension": extension})
        remedy = f"run CREATE EXTENSION {extension} CASCADE" if available else f"install {extension} on the server"
        raise Invalid.at("index.kind", f"{kind} is not in this database, which has {known}: {remedy}")
