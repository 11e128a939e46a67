"""The candidates of both legs for all queries of a search, completed for fusion.

An item that one list has and another lacks is not thereby unlike the query: its cosine and its BM25 score are looked
up, so that fusion compares like with like. Where hits are chunks, the lexical score of a document is that of each of
its chunks.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from service.core.concurrency import both, gather_limited
from service.core.errors import Unavailable
from service.core.ids import DocumentId, Vector
from service.core.ports.lexicon import Lexicon
from service.core.ports.vectors import VectorStore
from service.core.search import Candidate, DensePlan, Query
from service.search.context import SearchContext
from service.search.dense_certainty import DenseCertainty
from service.search.fusion import Leg, LegScores, rank_scores
from service.search.retrievers import CandidatesByItem, Item, LegResult, best_score
from service.spaces.resolver import Space

MAX_PARALLEL_STATEMENTS = 4
"""Statements of one search that run together, so that many queries do not take all connections from others."""

COVERAGE_CHANCE, COVERAGE_CERTAIN = 0.1, 0.25
"""Of the BM25 score that the words of a query could give. Nearly every query in the language of the documents reaches
the latter, and hardly any in another language, of which names and numbers are found (docs/decisions/0059)."""

_PLANS_BY_EFFORT = ("none", "hnsw", "hnsw_iterative", "exact")


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryCandidates:
    """The candidates for one query. A leg that did not run is None. `certainty`: of the dense leg.

    `dense_lookups`: what other lists found, with its exact cosine for this query.
    `lexical_lookups`: what the dense legs found, with its BM25 score, by document.
    `lexical_shares`: what a chunk has of its document's BM25 score, in [0, 1]; others have all of it.
    `floor`: the cosine that says nothing. `max_score`: see `Lexicon.max_score`; None: unknown.
    """

    vector: Vector | None
    dense: LegResult | None
    lexical: LegResult | None
    dense_lookups: CandidatesByItem = field(default_factory=dict)
    lexical_lookups: CandidatesByItem = field(default_factory=dict)
    lexical_shares: Mapping[Item, float] = field(default_factory=dict)
    certainty: float = 1.0
    floor: float = 0.0
    max_score: float | None = None

    @property
    def coverage(self) -> float | None:
        """What the best lexical find has of the highest score that is possible; None where that is unknown."""
        return (best_score([self.lexical_candidates]) or 0.0) / self.max_score if self.max_score else None

    @property
    def lexical_certainty(self) -> float:
        """How much of the query the lexical leg found, in [0, 1]."""
        if self.coverage is None:
            return 1.0
        return min(1.0, max(0.0, (self.coverage - COVERAGE_CHANCE) / (COVERAGE_CERTAIN - COVERAGE_CHANCE)))

    @property
    def dense_lists(self) -> tuple[CandidatesByItem, CandidatesByItem]:
        """What the dense leg found, and what was looked up."""
        return {} if self.dense is None else self.dense.candidates, self.dense_lookups

    @property
    def dense_candidates(self) -> CandidatesByItem:
        found, lookups = self.dense_lists
        return {**found, **lookups}

    @property
    def lexical_candidates(self) -> CandidatesByItem:
        return {} if self.lexical is None else self.lexical.candidates

    def filtered(self, keep: Callable[[Candidate], bool]) -> "QueryCandidates":
        def kept(found: CandidatesByItem) -> CandidatesByItem:
            return {item: one for item, one in found.items() if keep(one)}

        return replace(
            self,
            dense=self.dense and replace(self.dense, candidates=kept(self.dense.candidates)),
            lexical=self.lexical and replace(self.lexical, candidates=kept(self.lexical.candidates)),
            dense_lookups=kept(self.dense_lookups),
            lexical_lookups=kept(self.lexical_lookups),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateSet:
    """The candidates for each query of a search, in the order of the queries."""

    queries: tuple[QueryCandidates, ...]

    @property
    def exhausted(self) -> bool:
        legs = [leg for query in self.queries for leg in (query.dense, query.lexical)]
        return all(leg is None or leg.exhausted for leg in legs)

    @property
    def has_lexical(self) -> bool:
        """Whether a lexical leg found anything."""
        return any(query.lexical_candidates for query in self.queries)

    @property
    def plan(self) -> DensePlan:
        """The most thorough plan of all queries."""
        plans = [query.dense.plan for query in self.queries if query.dense is not None]
        return max(plans, key=lambda plan: _PLANS_BY_EFFORT.index(plan.kind), default=DensePlan())

    @property
    def documents(self) -> list[DocumentId]:
        """What the legs found for any query."""
        items = (item for one in self.queries for item in (*one.dense_candidates, *one.lexical_candidates))
        return list(dict.fromkeys(document for document, _ in items))

    def within(self, kept: Collection[DocumentId], *, all_required: bool) -> "CandidateSet":
        """Without the documents that are not `kept`.

        `all_required`: these have terms that are required. Where the lexical legs found all such documents, the dense
        legs have no more to give.
        """
        lexical = [one.lexical for one in self.queries if one.lexical is not None]
        all_found = all_required and bool(lexical) and all(leg.exhausted for leg in lexical)
        queries = [one.filtered(lambda candidate: candidate.document_id in kept) for one in self.queries]
        if all_found:
            queries = [replace(one, dense=one.dense and replace(one.dense, exhausted=True)) for one in queries]
        return CandidateSet(queries=tuple(queries))

    def candidate(self, item: Item) -> Candidate:
        """The dense candidate nearest to any query, since it names a chunk; else the lexical one.

        Where the dense leg found a document's former content, only a lexical look-up may be left of it.
        """
        dense = [found[item] for query in self.queries for found in query.dense_lists if item in found]
        if dense:
            return max(dense, key=lambda one: one.score)
        lexical = [found for query in self.queries for found in (query.lexical_candidates, query.lexical_lookups)]
        return next(found[item] for found in lexical if item in found)

    def leg_scores(self, weights: Sequence[float]) -> list[LegScores[Item]]:
        """The input of fusion. Of a lexical score, which is of a document, each known chunk of it has its share."""
        chunks: dict[DocumentId, dict[Item, None]] = {}
        for query in self.queries:
            for item in query.dense_candidates:
                if item[1] is not None:
                    chunks.setdefault(item[0], {})[item] = None

        def ranked(found: CandidatesByItem, lookups: CandidatesByItem, floor: float = 0.0) -> Leg[Item]:
            return rank_scores({item: one.score for item, one in {**found, **lookups}.items()}, len(found), floor)

        def lexical(query: QueryCandidates) -> Leg[Item]:
            leg = ranked(query.lexical_candidates, query.lexical_lookups)
            if not chunks:
                return leg
            of_chunks = [
                (chunk, score * share, rank)
                for item, score, rank in zip(leg.items, leg.scores.tolist(), leg.ranks.tolist(), strict=True)
                for chunk in chunks.get(item[0], (item,))
                if (share := query.lexical_shares.get(chunk, 1.0)) > 0
            ]
            if query.lexical_shares:
                of_chunks.sort(key=lambda one: (not one[2], -one[1]))
                found = sum(rank > 0 for _, _, rank in of_chunks)
                return rank_scores({item: score for item, score, _ in of_chunks}, found)
            scores = np.array([score for _, score, _ in of_chunks])
            return Leg([item for item, _, _ in of_chunks], scores, np.array([rank for _, _, rank in of_chunks]))

        return [
            LegScores(
                dense=None if query.dense is None else ranked(*query.dense_lists, query.floor),
                lexical=None if query.lexical is None else lexical(query),
                weight=weight,
                certainty=query.certainty,
                lexical_certainty=query.lexical_certainty,
            )
            for query, weight in zip(self.queries, weights, strict=True)
        ]


async def complete_scores(
    vectors: VectorStore, lexicon: Lexicon, context: SearchContext, candidates: CandidateSet, chunks_each: int
) -> CandidateSet:
    """Look up, for each query, the exact cosine and the BM25 score of what only other lists have.

    Where hits are documents: the best chunk of each. Where hits are chunks: the best `chunks_each` of each document
    that the lexical legs found, and the chunks that other queries found.
    """
    space, request = context.space, context.request
    by_chunk = request.group_by == "chunk"
    lexical = dict.fromkeys(document for one in candidates.queries for document, _ in one.lexical_candidates)
    dense = dict.fromkeys(document for one in candidates.queries for document, _ in one.dense_candidates)
    wanted = lexical if by_chunk else {**dense, **lexical}

    async def cosines(one: QueryCandidates) -> CandidatesByItem:
        if one.dense is None or one.vector is None:
            return {}
        found = one.dense.candidates
        missing = [document for document in wanted if by_chunk or (document, None) not in found]
        scored = await vectors.score(space.version, one.vector, missing, chunks_each if by_chunk else 1)
        return _best_first(scored, by_chunk, found)

    async def bm25(one: QueryCandidates, query: Query) -> CandidatesByItem:
        missing = [document for document in dense if (document, None) not in one.lexical_candidates]
        if one.lexical is None or not missing:
            return {}
        try:
            parsed = request.for_query(query).parsed_query
            found = await lexicon.search(space.collection, parsed, len(missing), missing)
        except Unavailable:  # the leg itself answered: what it did not find has its lower bound
            return {}
        return {(candidate.document_id, None): candidate for candidate in found}

    async def complete(one: QueryCandidates, query: Query) -> QueryCandidates:
        dense_lookups, lexical_lookups = await both(cosines(one), bm25(one, query))
        return replace(one, dense_lookups=dense_lookups, lexical_lookups=lexical_lookups)

    works = [partial(complete, *pair) for pair in zip(candidates.queries, request.effective_queries, strict=True)]
    completed = CandidateSet(queries=tuple(await gather_limited(works, MAX_PARALLEL_STATEMENTS)))
    several = len(completed.queries) > 1 and by_chunk
    return await _score_chunks_of_others(vectors, space, completed) if several else completed


async def _score_chunks_of_others(vectors: VectorStore, space: Space, candidates: CandidateSet) -> CandidateSet:
    """Give every query the cosine of every chunk that another query knows."""
    known = {item: one for query in candidates.queries for item, one in query.dense_candidates.items()}
    chunks = [(one.document_id, one.chunk or 0) for one in known.values()]
    rows = await vectors.get(space.version, chunks, [one.content_revision for one in known.values()])

    def completed(query: QueryCandidates) -> QueryCandidates:
        if query.dense is None or query.vector is None:
            return query
        own = query.dense_candidates
        scored = [
            one._replace(score=float(rows[one.document_id, one.chunk or 0] @ query.vector))
            for item, one in known.items()
            if item not in own and item in rows
        ]
        lookups = _best_first([*query.dense_lookups.values(), *scored], True, query.dense.candidates)
        return replace(query, dense_lookups=lookups)

    return CandidateSet(queries=tuple(map(completed, candidates.queries)))


def _best_first(candidates: Sequence[Candidate], by_chunk: bool, excluded: CandidatesByItem) -> CandidatesByItem:
    ordered = sorted(candidates, key=lambda one: -one.score)
    best = {(one.document_id, one.chunk if by_chunk else None): one for one in ordered}
    return {item: one for item, one in best.items() if item not in excluded}


async def add_certainty(
    estimator: DenseCertainty, lexicon: Lexicon, context: SearchContext, candidates: CandidateSet
) -> CandidateSet:
    """What tells how certain the legs are that are weighed against each other."""
    space = context.space

    async def estimated(one: QueryCandidates, query: Query) -> QueryCandidates:
        best = best_score(one.dense_lists)
        if one.vector is None or one.lexical is None or best is None:
            return one
        try:
            words = context.request.for_query(query).parsed_query
            max_score = await lexicon.max_score(space.collection, words)
        except Unavailable:  # the index was lost after the leg ran
            max_score = None
        certainty, floor = await estimator.certainty(space, one.vector, best), await estimator.floor(space, one.vector)
        return replace(one, certainty=certainty, floor=floor, max_score=max_score)

    pairs = zip(candidates.queries, context.request.effective_queries, strict=True)
    return CandidateSet(queries=tuple([await estimated(*pair) for pair in pairs]))


def keep_newest_content(candidates: CandidateSet) -> CandidateSet:
    """Where lists know different contents of a document, only the candidates of the newest one.

    A changed document enters the lexical index seconds later, and the space when a worker has encoded it. Until then
    its old vector would have it dropped as stale, and its scores would speak of two texts.
    """
    queries = candidates.queries
    lists = [(*one.dense_lists, one.lexical_candidates, one.lexical_lookups) for one in queries]
    known = itertools.chain.from_iterable(found.values() for found in itertools.chain.from_iterable(lists))
    contents = {(one.document_id, one.content_revision) for one in known}
    if len(contents) == len({document for document, _ in contents}):
        return candidates
    current = set(dict(sorted(contents)).items())  # the last of a document replaces the others
    return CandidateSet(
        queries=tuple(one.filtered(lambda one: (one.document_id, one.content_revision) in current) for one in queries)
    )
