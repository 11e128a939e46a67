"""The model of `azimuth plan` beside what was measured, and its laws."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from service.cli import capacity
from service.cli.app import app
from service.core.collections import INDEXED_STORAGES, IndexKind, Storage

MIB = 2**20
KINDS: tuple[IndexKind, ...] = ("hnsw", "ivfflat")
BASE = capacity.Load(chunks=1e5, qps=10, chunks_per_document=1, characters=700)


@pytest.mark.parametrize(
    ("predicted", "measured"),
    [
        # docs/performance/reindexing.md, storages: 20,000 chunks with 384 dimensions, in MiB and as ratios
        (capacity.table_bytes(replace(BASE, chunks=2e4)) / MIB, 17.4),
        (capacity.index_bytes(replace(BASE, chunks=2e4)) / MIB, 22.3),
        (capacity.table_bytes(replace(BASE, storage="vector")) / capacity.table_bytes(BASE), 2.25),
        (capacity.index_bytes(replace(BASE, storage="vector")) / capacity.index_bytes(BASE), 1.75),
        (capacity.index_bytes(replace(BASE, storage="binary")) / capacity.index_bytes(BASE), 0.30),
        (capacity.index_bytes(replace(BASE, storage="scalar")) / capacity.index_bytes(BASE), 0.39),
        # docs/scaling.md: the folder with 1,000,000 chunks
        (sum(capacity.disk_bytes(replace(BASE, chunks=1e6)).values()) / 1e9, 4.0),
        # docs/performance.md and docs/performance/search.md: p50 of hybrid searches
        (capacity.latency_ms(replace(BASE, chunks=2e4)), 16.3),
        (capacity.latency_ms(BASE), 17.1),
        # docs/performance/search.md, docs/performance/reindexing.md, docs/scaling.md: the index on two cores
        (capacity.build_seconds(replace(BASE, chunks=3e4)), 7),
        (capacity.build_seconds(BASE), 39),
        (capacity.build_seconds(replace(BASE, chunks=1e6)), 768),
    ],
)
def test_the_model_predicts_what_was_measured(predicted: float, measured: float) -> None:
    assert predicted == pytest.approx(measured, rel=0.2)


@given(
    st.floats(1, 1e10),
    st.floats(0, 1e5),
    st.integers(1, 4_000),
    st.sampled_from([(kind, storage) for kind in KINDS for storage in INDEXED_STORAGES[kind]]),
    st.integers(1, 128),
    st.floats(1, 2_000),
)
def test_more_is_never_less(
    chunks: float, qps: float, dimensions: int, index: tuple[IndexKind, Storage], cores: int, memory: float
) -> None:
    load = capacity.Load(chunks=chunks, qps=qps, dimensions=dimensions, kind=index[0], storage=index[1])
    machine = capacity.Machine(cores=cores, memory_gb=memory)
    found = capacity.plan(load, machine)
    parts = found["machines"]
    assert parts["all"] == sum(count for name, count in parts.items() if name != "all") >= 2
    more = capacity.plan(replace(load, chunks=2 * chunks, qps=2 * qps), machine)
    assert more["disk_bytes"]["vectors"] > found["disk_bytes"]["vectors"]
    assert all(more["machines"][part] >= parts[part] for part in ("databases", "apis", "workers"))
    assert (parts["databases"] > 1) == any("one database" in end for end in found["ends"])


def test_the_command_prints_a_table_and_json() -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["plan", "--chunks", "1e8", "--qps", "200"])
    assert shown.exit_code == 0, shown.output
    assert "machines: databases" in shown.output
    told = runner.invoke(app, ["plan", "--chunks", "1e6", "--qps", "20", "--json"])
    assert json.loads(told.stdout)["machines"]["databases"] == 1
    bits = ["--chunks", "1", "--kind", "ivfflat", "--storage", "binary"]
    unknown = ["--chunks", "1", "--storage", "x"]
    for wrong in (["--chunks", "nan"], ["--chunks", "0"], ["--chunks", "many"], unknown, bits):
        refused = runner.invoke(app, ["plan", *wrong])
        assert refused.exit_code == 2, wrong
