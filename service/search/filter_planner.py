"""How the dense leg runs under a filter: the plan that is expected to be cheapest at the recall target. Pure: no I/O.

Three plans, where n documents of N pass (a selectivity of s) and `limit` rows are wanted:

exact            an exact scan of the n that pass, found by id
hnsw             along the index, checking the document of each row
hnsw_iterative   the same, going on until enough pass

Under a filter an index must search 1 / s times as wide to compare as many passing documents as without one. That is
enough if they lie evenly around the query; where they are far from it, what the index finds is found by chance. So the
index is searched once, as wide as it takes, and where that returns too little, all passing documents are scanned
exactly: at worst about twice the cost of having known it before (the rule of ski rental; Karlin et al. 1988,
"Competitive snoopy caching"). Where a sample shows that nothing near the query passes, the index is not tried. The
iterative plan is for searches wider than pgvector can make one.

The costs are microseconds measured on one machine (docs/performance.md, docs/decisions/0018). Only their ratios matter.
"""

import math

from service.core.limits import MAX_EF_SEARCH
from service.core.recall import Band, band_of
from service.core.search import DensePlan, FilterMatch
from service.core.versions import SpaceStatus

DEFAULT_EF_SEARCH = 200
"""Before the version was calibrated: with 100,000 chunks of MiniLM a recall@10 of 0.97, where as many as the candidates
(100) would give 0.92 and save 1 ms (docs/performance.md). From then on the recall controller decides."""

ROW_BY_ID_COST = 1.0
"""An exact scan: finding a chunk by the id of its document, ids in order, and its distance."""
INDEX_ROW_COST = 12.0
"""One row along the index."""
FILTER_CHECK_COST = 4.0
"""Checking whether the document of one row passes."""

EF_SEARCH_MARGIN = 1.5
"""The index is searched so many times wider than the selectivity requires: matches are never spread quite evenly."""
SCAN_MARGIN = 2
"""An iterative scan may check so many times the rows that evenly spread matches would require. Listing ids is worth it
up to where twice that costs about as much as an exact scan."""
MIN_INDEX_ROWS = 100
"""Rows that the index must return under a filter; all that are wanted where those are fewer."""
ANTICORRELATION_RATIO = MIN_INDEX_ROWS / (EF_SEARCH_MARGIN * DEFAULT_EF_SEARCH)
"""Where less than this part of the average selectivity holds near the query, the index will return too little."""

MAX_ALLOWLIST_IDS = 200_000
"""Most ids listed for an exact scan after the index returned too little: some 3 MB."""


def ef_search_for(status: SpaceStatus, band: Band = "all") -> int:
    """The calibrated `ef_search` of this band of selectivity; that of unfiltered searches where it has none."""
    return status.ef_settings.get(band) or status.ef_settings.get("all") or DEFAULT_EF_SEARCH


def max_allowlist(status: SpaceStatus, limit: int, cap: int) -> int:
    """Up to how many passing documents an exact scan of them costs no more than the index; at most `cap`.

    The balance: n * ROW_BY_ID_COST chunks cost as much as ef_search / (n / N) rows along the index.
    """
    if not status.indexed:
        return cap
    documents = status.rows / status.chunks_per_document
    index_cost = max(ef_search_for(status), limit) * documents * (INDEX_ROW_COST + FILTER_CHECK_COST)
    balance = index_cost / (ROW_BY_ID_COST * status.chunks_per_document)
    return max(1, min(cap, round(math.sqrt(balance))))


def choose_plan(
    status: SpaceStatus,
    filter_match: FilterMatch | None,
    limit: int,
    *,
    exact: bool = False,
    ef_search: int | None = None,
) -> DensePlan:
    """The plan for `limit` rows. `exact` and `ef_search`: as the client wants it.

    `ef_search` bounds the rows that a plain scan returns, so it is at least `limit` unless the client sets it.
    """
    selectivity = None if filter_match is None else filter_match.selectivity
    if exact:
        return DensePlan(kind="exact", selectivity=selectivity, reason="asked_for")
    if not status.indexed:
        return DensePlan(kind="exact", selectivity=selectivity, reason="no_index")
    unfiltered = max(ef_search_for(status, band_of(selectivity)), limit)
    if filter_match is None or selectivity is None:
        return DensePlan(kind="hnsw", ef_search=ef_search or unfiltered)
    if filter_match.ids is not None:
        return DensePlan(kind="exact", selectivity=selectivity, reason="few_pass")
    wide = min(MAX_EF_SEARCH, math.ceil(EF_SEARCH_MARGIN * unfiltered / selectivity)) if selectivity else MAX_EF_SEARCH
    if ef_search is None and limit <= wide * selectivity:
        return DensePlan(kind="hnsw", ef_search=wide, selectivity=selectivity, reason="many_pass")
    return DensePlan(
        kind="hnsw_iterative",
        ef_search=ef_search or wide,
        selectivity=selectivity,
        max_scan_tuples=math.ceil(SCAN_MARGIN * limit / selectivity) if selectivity else None,
        reason="many_pass",
    )


def is_underfilled(plan: DensePlan, limit: int, rows: int, k: int) -> bool:
    """Whether the index returned too little under a filter: what it finds then is found by chance."""
    return plan.kind != "exact" and plan.selectivity is not None and rows < min(limit, max(MIN_INDEX_ROWS, k))


def is_anticorrelated(filter_match: FilterMatch, near: int, passed: int) -> bool:
    """Whether matches lie far from the query: of the `near` nearest chunks of a random sample only `passed` pass.

    The index would be tried in vain. With 25 chunks and half of all documents passing, at most 4 pass by chance in one
    of 2,000 searches; and a mistake costs time alone.
    """
    return near > 0 and passed < ANTICORRELATION_RATIO * filter_match.selectivity * near


def exact_fallback(before: DensePlan, reason: str) -> DensePlan:
    """The exact plan in place of one that returns too little."""
    return DensePlan(kind="exact", selectivity=before.selectivity, reason=reason)
