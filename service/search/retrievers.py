"""The two retrievers of a query: dense (cosine) and lexical (BM25). Each gives its best documents under the filter.

Both deepen by themselves where a first look brings too little, so that a filter or an index never leaves an answer
short while enough documents pass.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from service.core.filters import Filter
from service.core.ids import DocumentId, Vector
from service.core.ports.documents import Documents
from service.core.ports.lexicon import Lexicon
from service.core.ports.vectors import VectorQuery, VectorStore
from service.core.search import Candidate, DensePlan, FilterMatch, SearchRequest
from service.search import filter_planner
from service.spaces.resolver import Space

MAX_WIDTH = 1000
"""Most candidates that a leg is asked for at first, however much was dropped."""

MIN_CANDIDATES_PER_HIT = 2
"""Under a filter the lexical leg brings so many times what is wanted at least, for the fusion has other wishes too."""

DEPTH_MARGIN = 1.3
"""The lexical leg looks so many times deeper than would do if what passes lay evenly among what has the words."""
MAX_INITIAL_DEPTH = 5_000
"""How deep it looks at first, however little passes."""

Item = tuple[DocumentId, int | None]
"""What a hit is: a document as a whole (None), or one of its chunks."""

CandidatesByItem = dict[Item, Candidate]
"""The candidates of a leg, best first."""

Nearby = Callable[[Space, Vector], Awaitable[Sequence[DocumentId]]]
"""The documents of those chunks of a random sample that are nearest to a vector."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LegResult:
    """What one leg brought. `exhausted`: it has no more to give, however much is asked for."""

    best: CandidatesByItem
    exhausted: bool
    plan: DensePlan = field(default_factory=DensePlan)


async def search_dense(
    vectors: VectorStore,
    documents: Documents,
    space: Space,
    request: SearchRequest,
    vector: Vector,
    filter_match: FilterMatch | None,
    width: int,
    nearby: Nearby | None = None,
) -> LegResult:
    """The best chunk of each of the nearest documents, or the nearest chunks; none of the examples' own.

    Where the index gives fewer than the answer needs, an exact scan of what passes is made instead; at once where
    `nearby` tells that it would.
    """
    within = None if filter_match is None else filter_match.ids
    where = request.where if within is None else None
    by_document = request.group_by == "document"
    left_out = frozenset() if request.like is None else request.like.ids
    limit = chunks_for(space, width + len(left_out)) if by_document or left_out else width
    plan = filter_planner.choose_plan(
        space.status, filter_match, limit, exact=request.exact, ef_search=request.ef_search
    )
    if nearby is not None and where is not None and filter_match is not None and plan.kind != "exact":
        near = await nearby(space, vector)
        among = await documents.filter_ids(space.collection.id, near, where) if near else frozenset()
        if filter_planner.is_anticorrelated(filter_match, len(near), sum(one in among for one in near)):
            plan = filter_planner.exact_fallback(plan, "far_from_query")
            within, where = await _resolve_allowlist(documents, space, where)
    needed = request.k
    if by_document and within is not None:
        needed = min(needed, len(within))
    while True:
        rows = await vectors.nearest(VectorQuery(space.version, vector, limit, plan, within, where))
        best = _best((row for row in rows if row.document_id not in left_out), by_document)
        exhausted = plan.kind == "exact" and len(rows) < limit
        stuck = filter_planner.is_underfilled(plan, limit, len(rows), request.k)
        if (len(best) >= needed and not stuck) or exhausted:
            return LegResult(best=best, exhausted=exhausted, plan=plan)
        if plan.kind == "exact":
            limit *= 4
            continue
        if (
            filter_match is None and len(rows) >= limit and limit < MAX_WIDTH
        ):  # all it may give, of documents with many chunks
            limit = min(MAX_WIDTH, 4 * limit)
            plan = filter_planner.choose_plan(space.status, None, limit, ef_search=request.ef_search)
            continue
        if where is not None:
            within, where = await _resolve_allowlist(documents, space, where)
            needed = min(request.k, len(within)) if by_document and within is not None else request.k
        plan = filter_planner.exact_fallback(plan, "index_gave_too_few")


async def _resolve_allowlist(
    documents: Documents, space: Space, where: Filter
) -> tuple[tuple[DocumentId, ...] | None, Filter | None]:
    """What passes by name; or, where it is too much for that, the filter as it was."""
    ids = (await documents.match_filter(space.collection.id, where, filter_planner.MAX_ALLOWLIST_IDS)).ids
    return ids, where if ids is None else None


def chunks_for(space: Space, width: int) -> int:
    """How many chunks are looked at first for `width` documents."""
    return min(MAX_WIDTH, math.ceil(width * space.status.chunks_per_document))


async def search_lexical(
    lexicon: Lexicon,
    documents: Documents,
    space: Space,
    request: SearchRequest,
    filter_match: FilterMatch | None,
    width: int,
) -> LegResult:
    """The best documents by BM25.

    Few that pass are named to the index. Of many, so much more is looked at as the filter will drop; where that was not
    enough, because the words stand in what does not pass, they are named all the same or, beyond all names, it looks
    ever deeper.
    """
    if filter_match is None or request.where is None:
        found = await lexicon.search(space.collection, request.parsed_query, width, None)
        return _by_words(found, width, exhausted=len(found) < width)
    depth = min(MAX_INITIAL_DEPTH, math.ceil(DEPTH_MARGIN * width / max(filter_match.selectivity, 1e-9)))
    within, wanted = filter_match.ids, min(MIN_CANDIDATES_PER_HIT * request.k, width)
    if within is not None and len(within) <= depth:
        found = await lexicon.search(space.collection, request.parsed_query, width, within)
        return _by_words(found, width, exhausted=len(found) < width)
    while True:
        seen = await lexicon.search(space.collection, request.parsed_query, depth, None)
        if within is None:
            ids = [candidate.document_id for candidate in seen]
            passed = await documents.filter_ids(space.collection.id, ids, request.where)
        else:
            passed = frozenset(within)
        found = tuple(candidate for candidate in seen if candidate.document_id in passed)
        exhausted = len(seen) < depth
        if len(found) >= wanted or exhausted:
            return _by_words(found, width, exhausted=exhausted)
        if within is None:
            within = (
                await documents.match_filter(space.collection.id, request.where, filter_planner.MAX_ALLOWLIST_IDS)
            ).ids
        if within is not None:
            found = await lexicon.search(space.collection, request.parsed_query, width, within)
            return _by_words(found, width, exhausted=len(found) < width)
        depth *= 8


def _by_words(found: Sequence[Candidate], width: int, *, exhausted: bool) -> LegResult:
    best: CandidatesByItem = {(candidate.document_id, None): candidate for candidate in found[:width]}
    return LegResult(best=best, exhausted=exhausted and len(found) <= width)


def _best(rows: Iterable[Candidate], by_document: bool) -> CandidatesByItem:
    """Rows are chunks, best first; the first of each document is its best."""
    best: CandidatesByItem = {}
    for row in rows:
        best.setdefault((row.document_id, None if by_document else row.chunk), row)
    return best
