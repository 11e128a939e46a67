"""The two retrievers of a query: dense (cosine) and lexical (BM25). Each returns its best candidates under the filter.

Both search deeper by themselves where the first attempt returns too little, so that neither a filter nor an index
leaves an answer short while enough documents pass.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from service.core.concurrency import off_loop
from service.core.filters import Filter
from service.core.ids import DocumentId, Vector
from service.core.ports.documents import Documents
from service.core.ports.lexicon import Lexicon
from service.core.ports.vectors import VectorQuery, VectorStore
from service.core.search import Candidate, DensePlan, FilterMatch, SearchRequest
from service.search import filter_planner
from service.search.context import FILTER_GRACE_SECONDS, SearchContext
from service.search.dense_certainty import DenseCertainty
from service.spaces.resolver import Space

MAX_WIDTH = 1000
"""Most candidates that a leg is asked for at first."""
MIN_CANDIDATES_PER_HIT = 2
"""Candidates for each hit wanted that the lexical leg returns at least under a filter, so that fusion has a choice."""
DEPTH_MARGIN = 1.3
"""The lexical leg searches so many times deeper than a filter with evenly spread matches would require."""
MAX_INITIAL_DEPTH = 5_000

Item = tuple[DocumentId, int | None]
"""What a hit is: a document as a whole (None), or one of its chunks."""

CandidatesByItem = dict[Item, Candidate]
"""The candidates of a leg, best first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LegResult:
    """The candidates of one leg for one query. `exhausted`: it has no more, however many are asked for."""

    candidates: CandidatesByItem
    exhausted: bool
    plan: DensePlan = field(default_factory=DensePlan)


class DenseRetriever:
    """Finds the chunks nearest to a query vector. `certainty`: its samples tell when the index would fail."""

    def __init__(self, vectors: VectorStore, documents: Documents, certainty: DenseCertainty | None = None) -> None:
        self._vectors = vectors
        self._documents = documents
        self._certainty = certainty

    async def search(
        self, space: Space, request: SearchRequest, vector: Vector, filter_match: FilterMatch | None, width: int
    ) -> LegResult:
        """The best chunk of each of the nearest documents, or the nearest chunks; without the example documents.

        Where the index returns (or the sample predicts) too few, an exact scan of the passing documents replaces it;
        where a client's `ef_search` alone is too small, the index is followed further. Where a few documents have all
        of the nearest chunks, or there are no more documents than are wanted, the scan is of documents.
        """
        within = None if filter_match is None else filter_match.ids
        where = request.where if within is None else None
        by_document = request.group_by == "document"
        excluded = frozenset() if request.like is None else request.like.ids
        limit = chunks_for(space, width + len(excluded)) if by_document or excluded else width
        choose_plan = partial(filter_planner.choose_plan, space.status, ef_search=request.ef_search)
        plan = choose_plan(filter_match, limit, exact=request.exact)
        if self._certainty is not None and where is not None and filter_match is not None and plan.kind != "exact":
            sampled = await self._certainty.nearest_sampled(space, vector)
            passing = await self._documents.filter_ids(space.collection.id, sampled, where) if sampled else frozenset()
            passed = sum(document in passing for document in sampled)
            if filter_planner.is_anticorrelated(filter_match, len(sampled), passed):
                plan = filter_planner.exact_fallback(plan, "far_from_query")
                within, where = await _resolve_allowlist(self._documents, space, where)
        all_documents = by_document and request.k * space.status.chunks_per_document >= space.status.rows
        while True:
            query = VectorQuery(space.version, vector, limit, plan, within, where, all_documents)
            rows = await self._vectors.nearest(query)
            candidates = _group((row for row in rows if row.document_id not in excluded), by_document)
            needed = min(request.k, len(within)) if by_document and within is not None else request.k
            exhausted = plan.kind == "exact" and len(rows) < limit
            underfilled = filter_planner.is_underfilled(plan, limit, len(rows), request.k)
            if (len(candidates) >= needed and not underfilled) or exhausted:
                return LegResult(candidates=candidates, exhausted=exhausted, plan=plan)
            if plan.kind == "exact" and by_document and not all_documents:
                all_documents = True
            elif plan.kind == "exact":
                limit *= 4
            elif filter_match is None and request.ef_search is not None and plan.kind == "hnsw":
                plan = replace(plan, kind="hnsw_iterative")
            elif filter_match is None and len(rows) >= limit and limit < MAX_WIDTH:  # documents have many chunks
                limit = min(MAX_WIDTH, 4 * limit)
                plan = replace(choose_plan(None, limit), kind=plan.kind)
            else:
                if where is not None:
                    within, where = await _resolve_allowlist(self._documents, space, where)
                plan = filter_planner.exact_fallback(plan, "index_gave_too_few")


class LexicalRetriever:
    """Finds the best documents by BM25."""

    def __init__(self, lexicon: Lexicon, documents: Documents) -> None:
        self._lexicon = lexicon
        self._documents = documents

    async def search(
        self, space: Space, request: SearchRequest, filter_match: FilterMatch | None, width: int
    ) -> LegResult:
        """The best passing documents. The index is given their ids where they are few.

        Where they are many, it is searched deeper by what the filter will drop. Where that is not enough, because the
        terms stand in other documents, it gets the ids after all or, if they are too many, is searched ever deeper.
        """
        query = request.parsed_query

        async def search_within(ids: Sequence[DocumentId] | None) -> LegResult:
            found = await self._lexicon.search(space.collection, query, width, ids)
            return _lexical_result(found, width, exhausted=len(found) < width)

        if filter_match is None or request.where is None:
            return await search_within(None)
        depth = min(MAX_INITIAL_DEPTH, math.ceil(DEPTH_MARGIN * width / max(filter_match.selectivity, 1e-9)))
        wanted = min(MIN_CANDIDATES_PER_HIT * request.k, width)
        within = filter_match.ids
        if within is not None and len(within) <= depth:
            return await search_within(within)
        while True:
            unfiltered = await self._lexicon.search(space.collection, query, depth, None)
            ids = [candidate.document_id for candidate in unfiltered]
            if within is None:
                passing = await self._documents.filter_ids(space.collection.id, ids, request.where)
            else:  # up to 200,000, which are not made a set of for each search
                passing = await off_loop(0, frozenset(ids).intersection, within)
            found = tuple(candidate for candidate in unfiltered if candidate.document_id in passing)
            exhausted = len(unfiltered) < depth
            if len(found) >= wanted or exhausted:
                return _lexical_result(found, width, exhausted=exhausted)
            if within is None:
                within, _ = await _resolve_allowlist(self._documents, space, request.where)
            if within is not None:
                return await search_within(within)
            depth *= 8


def best_score(lists: Iterable[CandidatesByItem]) -> float | None:
    """Of lists that each are best first."""
    return max((next(iter(found.values())).score for found in lists if found), default=None)


async def match_filter(documents: Documents, context: SearchContext, width: int, cap: int) -> FilterMatch | None:
    """The documents that pass the filter of a search, listed where half of the budget is enough."""
    space, where = context.space, context.request.where
    if where is None:
        return None
    remaining = context.remaining_seconds()
    seconds = None if remaining is None else max(remaining / 2, FILTER_GRACE_SECONDS)
    with context.timings.stage("filter"):
        cap = filter_planner.max_allowlist(space.status, chunks_for(space, width), cap)
        return await documents.match_filter(space.collection.id, where, cap, seconds)


def chunks_for(space: Space, width: int) -> int:
    """The number of nearest chunks that should contain `width` documents."""
    return min(MAX_WIDTH, math.ceil(width * space.status.chunks_per_document))


async def _resolve_allowlist(
    documents: Documents, space: Space, where: Filter
) -> tuple[tuple[DocumentId, ...] | None, Filter | None]:
    """The ids of the passing documents; where they are too many, the filter itself."""
    ids = (await documents.match_filter(space.collection.id, where, filter_planner.MAX_ALLOWLIST_IDS)).ids
    return ids, where if ids is None else None


def _lexical_result(found: Sequence[Candidate], width: int, *, exhausted: bool) -> LegResult:
    candidates: CandidatesByItem = {(candidate.document_id, None): candidate for candidate in found[:width]}
    return LegResult(candidates=candidates, exhausted=exhausted and len(found) <= width)


def _group(rows: Iterable[Candidate], by_document: bool) -> CandidatesByItem:
    """Chunks, best first, by item; of each document the first, which is its best."""
    candidates: CandidatesByItem = {}
    for row in rows:
        candidates.setdefault((row.document_id, None if by_document else row.chunk), row)
    return candidates
