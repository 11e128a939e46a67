"""The cheapest plan at the recall target, from what is known before: how many documents pass, how many there are."""

import math
from typing import Literal

import pytest

from service.core import limits
from service.core.ids import DocumentId
from service.core.search import DensePlan, FilterMatch
from service.core.versions import SpaceStatus
from service.search import filter_planner
from service.search.filter_planner import DEFAULT_EF_SEARCH, EF_SEARCH_MARGIN, choose_plan, max_allowlist

ROW_COST = filter_planner.INDEX_ROW_COST + filter_planner.FILTER_CHECK_COST
LIMIT = 100


def status(rows: int = 100_000, *, indexed: bool = True, chunks_per_document: float = 1.0) -> SpaceStatus:
    return SpaceStatus(rows=rows, indexed=indexed, chunks_per_document=chunks_per_document)


LARGE = status()


def many(share: float, total: int = 100_000) -> FilterMatch:
    return FilterMatch(ids=None, count=round(share * total), total=total)


def listed(count: int, total: int = 100_000) -> FilterMatch:
    return FilterMatch(ids=tuple(DocumentId(f"d{number}") for number in range(count)), count=count, total=total)


def test_without_a_filter_a_plain_scan_of_the_index_with_as_many_rows_as_are_wanted() -> None:
    for limit, ef_search in ((LIMIT, DEFAULT_EF_SEARCH), (600, 600)):
        assert choose_plan(LARGE, None, limit) == DensePlan(kind="hnsw", ef_search=ef_search)


@pytest.mark.parametrize(
    ("status", "filter_match", "exact", "kind", "reason"),
    [
        (LARGE, None, True, "exact", "asked_for"),
        (status(5_000, indexed=False), many(0.5), False, "exact", "no_index"),
        (LARGE, listed(1_000), False, "exact", "few_pass"),
        (LARGE, many(0.97), False, "hnsw", "many_pass"),
        (LARGE, many(0.5), False, "hnsw", "many_pass"),
        (LARGE, many(0.05), False, "hnsw_iterative", "many_pass"),
    ],
)
def test_each_plan_has_its_place(
    status: SpaceStatus, filter_match: FilterMatch | None, exact: bool, kind: str, reason: str
) -> None:
    plan = choose_plan(status, filter_match, LIMIT, exact=exact)
    assert (plan.kind, plan.reason) == (kind, reason)
    assert plan.selectivity == (None if filter_match is None else filter_match.selectivity)


@pytest.mark.parametrize("filter_match", [None, many(0.5), many(0.97)])
def test_the_ef_search_of_the_client_is_respected(filter_match: FilterMatch | None) -> None:
    assert choose_plan(LARGE, filter_match, LIMIT, ef_search=77).ef_search == 77


def test_a_scan_that_is_wider_than_the_index_allows_or_than_the_client_wants_is_iterative() -> None:
    assert [choose_plan(LARGE, many(share), 900).kind for share in (0.92, 0.85)] == ["hnsw", "hnsw_iterative"]
    plan = choose_plan(LARGE, many(0.5), LIMIT, ef_search=40)
    assert (plan.kind, plan.ef_search) == ("hnsw_iterative", 40)


def test_the_index_compares_as_many_passing_documents_as_without_a_filter() -> None:
    assert choose_plan(LARGE, many(0.4), LIMIT).ef_search == EF_SEARCH_MARGIN * DEFAULT_EF_SEARCH / 0.4
    assert choose_plan(LARGE, many(0.11), LIMIT).ef_search == limits.MAX_EF_SEARCH


@pytest.mark.parametrize(
    ("kind", "limit", "rows", "k", "underfilled"),
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
def test_an_index_that_returns_too_little_is_not_trusted(
    kind: Literal["exact", "hnsw", "hnsw_iterative"], limit: int, rows: int, k: int, underfilled: bool
) -> None:
    assert filter_planner.is_underfilled(DensePlan(kind=kind, selectivity=0.5), limit, rows, k) is underfilled
    assert not filter_planner.is_underfilled(DensePlan(kind=kind), limit, rows, k)  # no filter: there are no more


def test_ids_are_listed_up_to_where_the_index_is_as_cheap_and_up_to_the_cap() -> None:
    most = max_allowlist(LARGE, LIMIT, 1_000_000)
    along_the_index = DEFAULT_EF_SEARCH / (most / LARGE.rows) * ROW_COST
    assert filter_planner.ROW_BY_ID_COST * most == pytest.approx(along_the_index, rel=0.01)
    assert max_allowlist(LARGE, LIMIT, 50) == 50
    assert max_allowlist(status(indexed=False), LIMIT, 123_456) == 123_456
    assert max_allowlist(status(0), LIMIT, 50) == 1


def test_more_ids_are_worth_listing_in_a_larger_space_and_fewer_where_documents_have_many_chunks() -> None:
    worth = [max_allowlist(status(rows), LIMIT, 1_000_000) for rows in (10_000, 100_000, 1_000_000)]
    assert worth == sorted(worth)
    assert max_allowlist(status(chunks_per_document=5.0), LIMIT, 1_000_000) < worth[1]


@pytest.mark.parametrize("share", [0.09, 0.05, 0.01])
def test_an_iterative_scan_checks_twice_the_rows_that_would_do(share: float) -> None:
    assert choose_plan(LARGE, many(share), LIMIT).max_scan_tuples == math.ceil(2 * LIMIT / share)


@pytest.mark.parametrize("rows", [20_000, 100_000, 1_000_000])
def test_what_is_tried_in_vain_costs_no_more_than_the_exact_scan_after_it(rows: int) -> None:
    """Or little more, for the scan is wider than it need be, wherever ids are listed as far as it is worth it."""
    least = max_allowlist(status(rows), LIMIT, 1_000_000) + 1
    for count in (least, 2 * least, rows // 2):
        plan = choose_plan(status(rows), many(count / rows, rows), LIMIT)
        tried = plan.max_scan_tuples or plan.ef_search
        assert tried is not None
        assert tried * ROW_COST <= EF_SEARCH_MARGIN * 1.01 * filter_planner.ROW_BY_ID_COST * count


def test_after_an_index_that_returned_too_little_an_exact_scan() -> None:
    plan = filter_planner.exact_fallback(choose_plan(LARGE, many(0.3), LIMIT), "index_gave_too_few")
    assert plan == DensePlan(kind="exact", selectivity=0.3, reason="index_gave_too_few")


@pytest.mark.parametrize(
    ("near", "passed", "far"), [(25, 0, True), (25, 4, True), (25, 5, False), (25, 12, False), (0, 0, False)]
)
def test_what_is_scarce_near_the_query_is_far_from_it(near: int, passed: int, far: bool) -> None:
    assert filter_planner.is_anticorrelated(many(0.5), near, passed) is far
