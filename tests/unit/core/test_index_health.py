"""The advice about an index."""

from dataclasses import replace
from functools import partial

import pytest

from service.core.index_health import IndexHealth, IndexState
from service.recall.index_advice import advise

INDEX = IndexState(name="vectors_1_1_hnsw", valid=True, bytes=200 * 2**20, building=False, build=1)
HEALTHY = IndexHealth(
    rows=100_000,
    dead_rows=4_000,
    unindexed_rows=0,
    written=100_000,
    index=INDEX,
    indexable=True,
    table_bytes=100 * 2**20,
    cache_bytes=2**30,
)


advice_for = partial(advise, exact_below=7_500, target_missed=False)


def test_a_healthy_index_is_reported_too() -> None:
    (only,) = advice_for(HEALTHY)
    assert (only.verdict, only.action) == ("healthy", "")
    assert "4%" in only.finding


@pytest.mark.parametrize(
    ("health", "verdict", "finding", "action"),
    [
        (replace(HEALTHY, rows=5_000, index=None), "healthy", "scanned exactly: nothing is lost", ""),
        (replace(HEALTHY, index=None), "watch", "no index yet", "nothing"),
        (replace(HEALTHY, index=None, indexable=False), "watch", "of this length have no index", "fewer dimensions"),
        (replace(HEALTHY, index=replace(INDEX, building=True)), "watch", "being rebuilt; searches use", "nothing"),
        (replace(HEALTHY, index=replace(INDEX, building=True, valid=False)), "watch", "is being built", "nothing"),
        (replace(HEALTHY, index=replace(INDEX, valid=False)), "broken", "was interrupted", "by itself"),
        (replace(HEALTHY, dead_rows=20_000), "watch", "20000 dead rows (17%)", "VACUUM"),
        (replace(HEALTHY, dead_rows=20_000, kind="ivfflat"), "watch", "(17%) are read by every scan", "VACUUM"),
        (replace(HEALTHY, dead_rows=60_000), "broken", "about as much as one with 62% of its ef_search", "reindex"),
        (replace(HEALTHY, dead_rows=60_000, oldest_seconds=4_000), "broken", "dead rows", "open for 4000 s"),
        (replace(HEALTHY, unindexed_rows=3), "broken", "3 vectors are NULL or zero", "constraints"),
        (replace(HEALTHY, cache_bytes=100 * 2**20), "watch", "(200 MB) is larger than", "more memory"),
        (replace(HEALTHY, index=replace(INDEX, bytes=3 * 2**30)), "watch", "(3.0 GB)", "more memory"),
    ],
)
def test_each_finding_has_its_action(health: IndexHealth, verdict: str, finding: str, action: str) -> None:
    (only,) = advice_for(health)
    assert (only.verdict, finding in only.finding, action in only.action) == (verdict, True, True), only


def test_a_missed_target_is_broken_and_the_worst_comes_first() -> None:
    found = advice_for(replace(HEALTHY, dead_rows=20_000, cache_bytes=1), target_missed=True)
    assert [one.verdict for one in found] == ["broken", "watch", "watch"]
    assert "recall target" in found[0].finding
    assert "lower recall_target" in found[0].action


def test_the_share_of_dead_rows_is_of_all() -> None:
    assert replace(HEALTHY, rows=0, dead_rows=0).dead_share == 0.0
    assert replace(HEALTHY, rows=70, dead_rows=30).dead_share == pytest.approx(0.3)
