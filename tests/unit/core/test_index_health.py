"""What is said of an index, and what to do about it."""

from dataclasses import replace

import pytest

from service.core.index_health import IndexHealth, IndexState
from service.recall.index_advice import IndexAdvice, advise

INDEX = IndexState(name="vectors_1_1_hnsw", valid=True, bytes=200 * 2**20, building=False, build=1)
WELL = IndexHealth(
    rows=100_000,
    dead_rows=4_000,
    unindexed_rows=0,
    written=100_000,
    index=INDEX,
    indexable=True,
    table_bytes=100 * 2**20,
    cache_bytes=2**30,
)


def told(health: IndexHealth, *, missed: bool = False) -> tuple[IndexAdvice, ...]:
    return advise(health, exact_below=7_500, target_missed=missed)


def test_all_being_well_is_said_too() -> None:
    (only,) = told(WELL)
    assert (only.verdict, only.action) == ("healthy", "")
    assert "4%" in only.finding


@pytest.mark.parametrize(
    ("health", "verdict", "says", "do"),
    [
        (replace(WELL, rows=5_000, index=None), "healthy", "scanned exactly: nothing is lost", ""),
        (replace(WELL, index=None), "watch", "no index yet", "nothing"),
        (replace(WELL, index=None, indexable=False), "watch", "of this length have no index", "fewer dimensions"),
        (replace(WELL, index=replace(INDEX, building=True)), "watch", "being rebuilt; searches use", "nothing"),
        (replace(WELL, index=replace(INDEX, building=True, valid=False)), "watch", "is being built", "nothing"),
        (replace(WELL, index=replace(INDEX, valid=False)), "broken", "was interrupted", "by itself"),
        (replace(WELL, dead_rows=20_000), "watch", "20000 dead rows (17%)", "VACUUM"),
        (replace(WELL, dead_rows=60_000), "broken", "about as much as one with 62% of its ef_search", "reindex"),
        (replace(WELL, dead_rows=60_000, oldest_seconds=4_000), "broken", "dead rows", "open for 4000 s"),
        (replace(WELL, unindexed_rows=3), "broken", "3 vectors are NULL or zero", "constraints"),
        (replace(WELL, cache_bytes=100 * 2**20), "watch", "(200 MB) is larger than", "more memory"),
        (replace(WELL, index=replace(INDEX, bytes=3 * 2**30)), "watch", "(3.0 GB)", "more memory"),
    ],
)
def test_each_trouble_has_its_words(health: IndexHealth, verdict: str, says: str, do: str) -> None:
    (only,) = told(health)
    assert only.verdict == verdict
    assert says in only.finding
    assert do in only.action


def test_a_missed_target_is_broken_and_the_worst_comes_first() -> None:
    found = told(replace(WELL, dead_rows=20_000, cache_bytes=1), missed=True)
    assert [one.verdict for one in found] == ["broken", "watch", "watch"]
    assert "recall target" in found[0].finding
    assert "lower recall_target" in found[0].action


def test_the_share_of_dead_rows_is_of_all() -> None:
    assert replace(WELL, rows=0, dead_rows=0).dead_share == 0.0
    assert replace(WELL, rows=70, dead_rows=30).dead_share == pytest.approx(0.3)
