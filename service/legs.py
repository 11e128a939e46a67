"""The two retrievers of a query: dense (cosine) and lexical (BM25). Each gives its best documents under the filter.

Both deepen by themselves where a first look brings too little, so that a filter or an index never leaves an answer
short while enough documents pass.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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

Best = dict[DocumentId, Candidate]
"""The candidates of a leg by document, best first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """What one leg brought. `exhausted`: it has no more to give, however much is asked for."""

    best: Best
    exhausted: bool
    plan: DensePlan = field(default_factory=DensePlan)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What the legs brought together. A leg that did not run is None."""

    dense: Leg | None
    lexical: Leg | None
    looked_up: Best = field(default_factory=dict)
    """Documents that only the lexical leg found, with the exact dense score that they have all the same."""

    @property
    def exhausted(self) -> bool:
        return all(leg is None or leg.exhausted for leg in (self.dense, self.lexical))

    @property
    def plan(self) -> DensePlan:
        return DensePlan() if self.dense is None else self.dense.plan

    def candidate(self, document_id: DocumentId) -> Candidate:
        """The dense one where there is one, for it knows the best chunk."""
        for best in (self.dense and self.dense.best, self.looked_up, self.lexical and self.lexical.best):
            if best and document_id in best:
                return best[document_id]
        raise KeyError(document_id)


async def dense(
    vectors: Vectors, space: Space, request: Request, vector: Vector, passing: Passing | None, width: int
) -> Leg:
    """The best chunk of each of the nearest documents.

    Where the index gives fewer documents than the answer needs, the space is scanned exactly instead.
    """
    within = None if passing is None else passing.ids
    where = request.where if within is None else None
    needed = min(request.k, math.inf if passing is None else passing.count)
    limit = rows_for(space, width)
    plan = choose_plan(space, request, passing, limit)
    while True:
        rows = await vectors.nearest(space.version, vector, limit, plan, within, where)
        best = _best_by_document(rows)
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
        found = await lexicon.search(space.collection, request.text, depth, within)
        exhausted = len(found) < depth
        if request.where is not None and within is None:
            ids = [candidate.document_id for candidate in found]
            passed = await documents.passing_among(space.collection.id, ids, request.where)
            found = tuple(candidate for candidate in found if candidate.document_id in passed)
            if len(found) < width and not exhausted:
                depth *= 8
                continue
        return Leg(best={candidate.document_id: candidate for candidate in found[:width]}, exhausted=exhausted)


async def look_up(vectors: Vectors, space: Space, vector: Vector, found: Found) -> Best:
    """The exact dense scores of the documents that only the lexical leg found: fusion then compares like with like."""
    if found.dense is None or found.lexical is None:
        return {}
    missing = [document_id for document_id in found.lexical.best if document_id not in found.dense.best]
    scored = await vectors.score(space.version, vector, missing) if missing else ()
    return {candidate.document_id: candidate for candidate in sorted(scored, key=lambda one: -one.score)}


def newest(found: Found) -> Found:
    """Where the legs know different contents of a document, only what the newer one says of it.

    A document that was changed stands in the lexical index seconds later, and in the space when the worker came to it:
    until then its old vector would get it dropped as stale, and its scores would speak of two texts.
    """
    if found.lexical is None:
        return found
    by_words, by_meaning = found.lexical.best, {**found.looked_up, **(found.dense.best if found.dense else {})}
    both = [(by_words[document_id], by_meaning[document_id]) for document_id in by_words.keys() & by_meaning.keys()]
    outdated_words = {one.document_id for one, other in both if one.content_revision < other.content_revision}
    outdated_meaning = {one.document_id for one, other in both if one.content_revision > other.content_revision}
    if not outdated_words and not outdated_meaning:
        return found
    return Found(
        dense=found.dense and replace(found.dense, best=_without(found.dense.best, outdated_meaning)),
        lexical=replace(found.lexical, best=_without(by_words, outdated_words)),
        looked_up=_without(found.looked_up, outdated_meaning),
    )


def _without(best: Best, ids: set[DocumentId]) -> Best:
    return {document_id: candidate for document_id, candidate in best.items() if document_id not in ids}


def _best_by_document(rows: Sequence[Candidate]) -> Best:
    """Rows are chunks, best first; the first of each document is its best."""
    best: Best = {}
    for row in rows:
        best.setdefault(row.document_id, row)
    return best
