"""The statements of each kind of index, as its documentation has them."""

import dataclasses
from types import SimpleNamespace
from typing import cast

import pytest
from psycopg import sql

from service.core.collections import IndexKind, IndexSettings
from service.core.versions import EmbedderVersion
from service.store.postgres.vectors import index_kinds


def version(kind: IndexKind) -> EmbedderVersion:
    index = dataclasses.replace(IndexSettings(), kind=kind)
    return cast(EmbedderVersion, SimpleNamespace(index=index, dimensions=384))


@pytest.mark.parametrize(
    ("kind", "rows", "options", "setting"),
    [
        ("hnsw", 1_000_000, "m = 16, ef_construction = 64", "hnsw.ef_search"),
        ("ivfflat", 10_000, "lists = 100", "ivfflat.probes"),
        ("ivfflat", 1_000_000, "lists = 1000", "ivfflat.probes"),
        # https://docs.vectorchord.ai/vectorchord/usage/indexing.html
        ("vchordrq", 1_000_000, "[build.internal]\nlists = [2000]\nspherical_centroids = true$$", "vchordrq.probes"),
        ("vchordrq", 10_000_000, "lists = [12649]", "vchordrq.probes"),
        # https://github.com/timescale/pgvectorscale: the layout of default, whose size does not depend on the rows
        ("diskann", 1_000_000, "storage_layout = memory_optimized", "diskann.query_rescore"),
    ],
)
def test_options_follow_the_rows_and_the_scan_its_setting(
    kind: IndexKind, rows: int, options: str, setting: str
) -> None:
    made = index_kinds.options(version(kind), rows).as_string()
    assert options in made
    assert f"set_config('{setting}'" in sql.SQL(index_kinds.kind_of(version(kind)).set_scan).as_string()


def test_memory_for_clusters_holds_the_bounds_of_k_means() -> None:
    """Sampled rows times lists, in single precision, is the largest part of it, and must not be missing."""
    assert index_kinds.build_bytes(version("ivfflat"), 1_000_000, 16) > 50_000 * 1_000 * 4
    assert index_kinds.build_bytes(version("hnsw"), 1_000_000, 16) > 1_000_000 * 768
