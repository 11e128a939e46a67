"""The two retrievers of a query: dense (cosine) and lexical (BM25). Each gives its best documents under the filter.

Both deepen by themselves where a first look brings too little, so that a filter or an index never leaves an answer
short while enough documents pass.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from service.domain import Candidate, DensePlan, DocumentId, Passing, Vector
from service.ports import Documents, Lexicon, Vectors
from service.query import Request
from service.space import Space

MAX_WIDTH = 1000
"""Most candidates that a leg is asked for at first, however much was dropped."""

EF_SEARCH = 200
"""How far the index looks where nobody says otherwise: with 100,000 chunks of MiniLM a recall@10 of 0.97, where as many
as the candidates (100) would give 0.92 and save 1 ms (docs/performance.md)."""

Item = tuple[DocumentId, int | None]
"""What a hit is: a document as a whole (None), or one of its chunks."""

Best = dict[Item, Candidate]
"""The candidates of a leg, best first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """What one leg brought. `exhausted`: it has no more to give, however much is asked for."""

    best: Best
    exhausted: bool
    plan: DensePlan = field(default_factory=DensePlan)


async def dense(
    vectors: Vectors, space: Space, request: Request, vector: Vector, passing: Passing | None, width: int
) -> Leg:
    """The best chunk of each of the nearest documents, or the nearest chunks; none of the examples' own.

    Where the index gives fewer than the answer needs, the space is scanned exactly instead.
    """
    within = None if passing is None else passing.ids
    where = request.where if within is None else None
    by_document = request.group_by == "document"
    left_out = frozenset() if request.like is None else request.like.ids
    needed = request.k if passing is None or not by_document else min(request.k, passing.count)
    limit = rows_for(space, width + len(left_out)) if by_document or left_out else width
    plan = choose_plan(space, request, passing, limit)
    while True:
        rows = await vectors.nearest(space.version, vector, limit, plan, within, where)
        best = _best((row for row in rows if row.document_id not in left_out), by_document)
        exhausted = plan.kind == "exact" and len(rows) < limit
        if len(best) >= needed or exhausted:
            return Leg(best=best, exhausted=exhausted, plan=plan)
        plan = DensePlan(kind="exact", selectivity=plan.selectivity)
        limit *= 4


def rows_for(space: Space, width: int) -> int:
    """How many chunks are looked at first for `width` documents."""
    return min(MAX_WIDTH, math.ceil(width * space.status.chunks_per_document))


def choose_plan(space: Space, request: Request, passing: Passing | None, limit: int) -> DensePlan:
    """Exact where it is asked for, where there is no index, or where few documents pass; else the index.

    `ef_search` bounds how many rows the index gives, so it is at least `limit` unless the request says otherwise.
    """
    selectivity = None if passing is None else passing.selectivity
    few = passing is not None and passing.ids is not None
    if request.exact or few or not space.status.indexed:
        return DensePlan(kind="exact", selectivity=selectivity)
    kind: Literal["hnsw", "hnsw_iterative"] = "hnsw" if passing is None else "hnsw_iterative"
    return DensePlan(kind=kind, ef_search=request.ef_search or max(EF_SEARCH, limit), selectivity=selectivity)


async def lexical(
    lexicon: Lexicon, documents: Documents, space: Space, request: Request, passing: Passing | None, width: int
) -> Leg:
    """The best documents by BM25.

    A filter that passes too many documents to name is applied to what is found, looking deeper until it suffices.
    """
    within = None if passing is None else passing.ids
    depth = width
    while True:
        found = await lexicon.search(space.collection, request.words, depth, within)
        exhausted = len(found) < depth
        if request.where is not None and within is None:
            ids = [candidate.document_id for candidate in found]
            passed = await documents.passing_among(space.collection.id, ids, request.where)
            found = tuple(candidate for candidate in found if candidate.document_id in passed)
            if len(found) < width and not exhausted:
                depth *= 8
                continue
        return Leg(best={(candidate.document_id, None): candidate for candidate in found[:width]}, exhausted=exhausted)


def _best(rows: Iterable[Candidate], by_document: bool) -> Best:
    """Rows are chunks, best first; the first of each document is its best."""
    best: Best = {}
    for row in rows:
        best.setdefault((row.document_id, None if by_document else row.chunk), row)
    return best
