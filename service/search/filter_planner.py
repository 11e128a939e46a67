"""How the dense leg runs under a filter: what is expected to be cheapest at the recall target. Pure: no I/O.

Three ways, n documents of N passing (a share s), and `limit` rows wanted:

exact            over the n that pass, looked up by name
hnsw             along the index, asking each row that it gives whether its document passes
hnsw_iterative   the same, going on until enough do

What an index brings is as good as it looked far: under a filter it must look 1 / s times as far, so that as many of
what passes are compared as without one. That is enough if what passes lies evenly around the query. It need not: where
the documents that pass are far from the query, all nearer ones are asked in vain, and what is found beyond them is
found by chance. So the index looks once, as far as it takes, and where it brought too few, all that pass are scanned
exactly: at worst about twice the cost of having known it before (the rule of ski rental; Karlin et al. 1988,
"Competitive snoopy caching"). Where a sample tells already that nothing near the query passes, it is not tried. It goes
on only where the look that it takes is wider than pgvector can make one.

The costs are microseconds measured on one machine (docs/performance.md, docs/decisions/0018). Only their ratios matter.
"""

import math

from service.core.limits import MAX_EF_SEARCH
from service.core.recall import Band, band_of
from service.core.search import DensePlan, FilterMatch
from service.core.versions import SpaceStatus

DEFAULT_EF_SEARCH = 200
"""How far the index looks before it was calibrated: with 100,000 chunks of MiniLM a recall@10 of 0.97, where as many as
the candidates (100) would give 0.92 and save 1 ms (docs/performance.md). From then on `control.py` says how far."""

ROW_BY_ID_COST = 1.0
"""Of an exact scan: finding a chunk by the name of its document, names in order, and its distance."""
INDEX_ROW_COST = 12.0
"""One row along the index."""
FILTER_CHECK_COST = 4.0
"""Asking the document of one row whether it passes."""

EF_SEARCH_MARGIN = 1.5
"""The index looks so many times as far as what the filter drops asks for: what passes is never spread quite evenly."""
SCAN_MARGIN = 2
"""An iterative scan may ask so many times the rows that would do if what passes lay evenly. What is worth naming ends
where twice that costs about as much as an exact scan."""
MIN_INDEX_ROWS = 100
"""Rows that the index brings under a filter, or it was stuck; all that are wanted where those are fewer."""

ANTICORRELATION_RATIO = MIN_INDEX_ROWS / (EF_SEARCH_MARGIN * DEFAULT_EF_SEARCH)
"""Where near the query less than this part of the usual share passes, the look that the index takes brings too little.
"""

MAX_ALLOWLIST_IDS = 200_000
"""Documents that are named at most for an exact scan, when the index has brought too little: some 3 MB of ids."""


def ef_search_for(status: SpaceStatus, band: Band = "all") -> int:
    """What was chosen for searches of this band; without filters where it has none of its own."""
    return status.ef_settings.get(band) or status.ef_settings.get("all") or DEFAULT_EF_SEARCH


def max_allowlist(status: SpaceStatus, limit: int, most: int) -> int:
    """Up to how many passing documents an exact scan of them is no dearer than the index; at most `most`.

    Where n x NAMED chunks cost as much as going `effort` / (n / N) rows along the index. Without one: all that may be.
    """
    if not status.indexed:
        return most
    documents = status.rows / status.chunks_per_document
    balance = (
        max(ef_search_for(status), limit)
        * documents
        * (INDEX_ROW_COST + FILTER_CHECK_COST)
        / (ROW_BY_ID_COST * status.chunks_per_document)
    )
    return max(1, min(most, round(math.sqrt(balance))))


def choose_plan(
    status: SpaceStatus,
    filter_match: FilterMatch | None,
    limit: int,
    *,
    exact: bool = False,
    ef_search: int | None = None,
) -> DensePlan:
    """The plan for `limit` rows. `exact` and `ef_search` are as the client asks.

    `ef_search` bounds how many rows a plain look gives, so it is at least `limit` unless the client says otherwise.
    """
    selectivity = None if filter_match is None else filter_match.selectivity
    if exact:
        return DensePlan(kind="exact", selectivity=selectivity, reason="asked_for")
    if not status.indexed:
        return DensePlan(kind="exact", selectivity=selectivity, reason="no_index")
    wide = max(ef_search_for(status, band_of(selectivity)), limit)
    if filter_match is None or selectivity is None:
        return DensePlan(kind="hnsw", ef_search=ef_search or wide)
    if filter_match.ids is not None:
        return DensePlan(kind="exact", selectivity=selectivity, reason="few_pass")
    needed = min(MAX_EF_SEARCH, math.ceil(EF_SEARCH_MARGIN * wide / selectivity)) if selectivity else MAX_EF_SEARCH
    if ef_search is None and limit <= needed * selectivity:
        return DensePlan(kind="hnsw", ef_search=needed, selectivity=selectivity, reason="many_pass")
    return DensePlan(
        kind="hnsw_iterative",
        ef_search=ef_search or needed,
        selectivity=selectivity,
        max_scan_tuples=math.ceil(SCAN_MARGIN * limit / selectivity) if selectivity else None,
        reason="many_pass",
    )


def is_underfilled(plan: DensePlan, limit: int, rows: int, k: int) -> bool:
    """Did the index bring too little under a filter to be believed? What it finds beyond that is found by chance."""
    return plan.kind != "exact" and plan.selectivity is not None and rows < min(limit, max(MIN_INDEX_ROWS, k))


def is_anticorrelated(filter_match: FilterMatch, near: int, passed: int) -> bool:
    """Of the `near` chunks of a random sample that are nearest to the query, `passed` pass: is what passes far away?

    Then the index would be tried in vain. With 25 chunks and half of all documents passing, at most 4 do so by chance
    in one of 2,000 searches; and a mistake costs time alone.
    """
    return near > 0 and passed < ANTICORRELATION_RATIO * filter_match.selectivity * near


def exact_fallback(before: DensePlan, reason: str) -> DensePlan:
    """The exact plan in place of one that brings too little."""
    return DensePlan(kind="exact", selectivity=before.selectivity, reason=reason)
