"""The cheapest way at the recall target, from what is known before: how many pass, how many there are."""

import math
from typing import Literal

import pytest

from service.core import limits
from service.core.ids import DocumentId
from service.core.search import DensePlan, FilterMatch
from service.core.versions import SpaceStatus
from service.search import filter_planner

LARGE = SpaceStatus(rows=100_000, indexed=True, chunks_per_document=1.0)
LIMIT = 100


def wide(share: float, total: int = 100_000) -> FilterMatch:
    return FilterMatch(ids=None, count=round(share * total), total=total)


def named(count: int, total: int = 100_000) -> FilterMatch:
    return FilterMatch(ids=tuple(DocumentId(f"d{number}") for number in range(count)), count=count, total=total)


def test_without_a_filter_a_plain_look() -> None:
    plan = filter_planner.choose_plan(LARGE, None, LIMIT)
    assert plan == DensePlan(kind="hnsw", ef_search=filter_planner.DEFAULT_EF_SEARCH)


def test_a_plain_look_gives_as_many_rows_as_are_wanted() -> None:
    assert filter_planner.choose_plan(LARGE, None, 600).ef_search == 600


@pytest.mark.parametrize(
    ("status", "filter_match", "exact", "kind", "reason"),
    [
        (LARGE, None, True, "exact", "asked_for"),
        (SpaceStatus(rows=5_000, indexed=False, chunks_per_document=1.0), wide(0.5), False, "exact", "no_index"),
        (LARGE, named(1_000), False, "exact", "few_pass"),
        (LARGE, wide(0.97), False, "hnsw", "many_pass"),
        (LARGE, wide(0.5), False, "hnsw", "many_pass"),
        (LARGE, wide(0.05), False, "hnsw_iterative", "many_pass"),
    ],
)
def test_each_way_has_its_place(
    status: SpaceStatus, filter_match: FilterMatch | None, exact: bool, kind: str, reason: str
) -> None:
    plan = filter_planner.choose_plan(status, filter_match, LIMIT, exact=exact)
    assert (plan.kind, plan.reason) == (kind, reason)
    assert plan.selectivity == (None if filter_match is None else filter_match.selectivity)


@pytest.mark.parametrize("filter_match", [None, wide(0.5), wide(0.97)])
def test_what_the_client_asks_of_the_index_is_respected(filter_match: FilterMatch | None) -> None:
    assert filter_planner.choose_plan(LARGE, filter_match, LIMIT, ef_search=77).ef_search == 77


def test_a_look_that_is_wider_than_the_index_can_make_goes_on_instead() -> None:
    assert filter_planner.choose_plan(LARGE, wide(0.92), 900).kind == "hnsw"
    assert filter_planner.choose_plan(LARGE, wide(0.85), 900).kind == "hnsw_iterative"


def test_a_client_that_narrows_the_look_gets_one_that_goes_on() -> None:
    plan = filter_planner.choose_plan(LARGE, wide(0.5), LIMIT, ef_search=40)
    assert (plan.kind, plan.ef_search) == ("hnsw_iterative", 40)


def test_the_index_compares_as_many_of_what_passes_as_without_a_filter() -> None:
    plan = filter_planner.choose_plan(LARGE, wide(0.4), LIMIT)
    assert plan.ef_search == filter_planner.EF_SEARCH_MARGIN * filter_planner.DEFAULT_EF_SEARCH / 0.4
    assert filter_planner.choose_plan(LARGE, wide(0.11), LIMIT).ef_search == limits.MAX_EF_SEARCH


@pytest.mark.parametrize(
    ("kind", "limit", "rows", "k", "stuck"),
    [
        ("hnsw_iterative", 100, 99, 10, True),
        ("hnsw_iterative", 100, 100, 10, False),
        ("hnsw_iterative", 40, 40, 10, False),
        ("hnsw_iterative", 1_000, 150, 10, False),
        ("hnsw_iterative", 1_000, 150, 200, True),
        ("hnsw", 100, 50, 10, True),
        ("exact", 100, 3, 10, False),
    ],
)
def test_an_index_that_brings_too_little_is_not_believed(
    kind: Literal["exact", "hnsw", "hnsw_iterative"], limit: int, rows: int, k: int, stuck: bool
) -> None:
    assert filter_planner.is_underfilled(DensePlan(kind=kind, selectivity=0.5), limit, rows, k) is stuck
    assert not filter_planner.is_underfilled(DensePlan(kind=kind), limit, rows, k)  # no filter: there are no more


def test_naming_ends_where_the_index_is_as_cheap() -> None:
    most = filter_planner.max_allowlist(LARGE, LIMIT, 1_000_000)
    along_the_index = (
        filter_planner.DEFAULT_EF_SEARCH
        / (most / LARGE.rows)
        * (filter_planner.INDEX_ROW_COST + filter_planner.FILTER_CHECK_COST)
    )
    assert filter_planner.ROW_BY_ID_COST * most == pytest.approx(along_the_index, rel=0.01)


def test_naming_has_its_limits() -> None:
    assert filter_planner.max_allowlist(LARGE, LIMIT, 50) == 50
    unindexed = SpaceStatus(rows=100_000, indexed=False, chunks_per_document=1.0)
    assert filter_planner.max_allowlist(unindexed, LIMIT, 123_456) == 123_456
    assert filter_planner.max_allowlist(SpaceStatus(rows=0, indexed=True, chunks_per_document=1.0), LIMIT, 50) == 1


def test_more_documents_are_worth_naming_in_a_larger_space_and_fewer_where_each_has_many_chunks() -> None:
    sizes = [SpaceStatus(rows=rows, indexed=True, chunks_per_document=1.0) for rows in (10_000, 100_000, 1_000_000)]
    worth = [filter_planner.max_allowlist(size, LIMIT, 1_000_000) for size in sizes]
    assert worth == sorted(worth)
    chunked = SpaceStatus(rows=100_000, indexed=True, chunks_per_document=5.0)
    assert filter_planner.max_allowlist(chunked, LIMIT, 1_000_000) < worth[1]


def test_the_index_asks_twice_the_rows_that_would_do_and_then_gives_up() -> None:
    for share in (0.09, 0.05, 0.01):
        assert filter_planner.choose_plan(LARGE, wide(share), LIMIT).max_scan_tuples == math.ceil(2 * LIMIT / share)


@pytest.mark.parametrize("rows", [20_000, 100_000, 1_000_000])
def test_what_is_tried_in_vain_costs_no_more_than_the_exact_scan_after_it(rows: int) -> None:
    """Or little more, for the look is wider than it need be, wherever documents are named as far as it is worth it."""
    status = SpaceStatus(rows=rows, indexed=True, chunks_per_document=1.0)
    least = filter_planner.max_allowlist(status, LIMIT, 1_000_000) + 1
    for count in (least, 2 * least, rows // 2):
        plan = filter_planner.choose_plan(status, wide(count / rows, rows), LIMIT)
        tried = plan.max_scan_tuples or plan.ef_search
        assert tried is not None
        along_the_index = tried * (filter_planner.INDEX_ROW_COST + filter_planner.FILTER_CHECK_COST)
        assert along_the_index <= filter_planner.EF_SEARCH_MARGIN * 1.01 * filter_planner.ROW_BY_ID_COST * count


def test_after_an_index_that_brought_too_little_an_exact_scan() -> None:
    before = filter_planner.choose_plan(LARGE, wide(0.3), LIMIT)
    assert filter_planner.exact_fallback(before, "index_gave_too_few") == DensePlan(
        kind="exact", selectivity=0.3, reason="index_gave_too_few"
    )


@pytest.mark.parametrize(("near", "passed", "far"), [(25, 0, True), (25, 4, True), (25, 5, False), (25, 12, False)])
def test_what_is_scarce_near_the_query_is_far_from_it(near: int, passed: int, far: bool) -> None:
    assert filter_planner.is_anticorrelated(wide(0.5), near, passed) is far


def test_nothing_is_far_where_nothing_is_known() -> None:
    assert not filter_planner.is_anticorrelated(wide(0.5), 0, 0)
