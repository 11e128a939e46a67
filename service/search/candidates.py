"""What the legs brought for all queries of a search, of one state of each document, completed for fusion.

An item that one list has and another has not is not thereby unlike: its cosine is looked up, so that fusion compares
like with like. Its BM25 score is looked up, too, or a document just below a leg's last candidate would count as one in
which no word was found. Where hits are chunks, the lexical score of a document is that of each of its chunks.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from service.core.concurrency import gather_limited
from service.core.errors import Unavailable
from service.core.ids import DocumentId, Vector
from service.core.ports.lexicon import Lexicon
from service.core.ports.vectors import VectorStore
from service.core.query_syntax import ParsedQuery
from service.core.search import Candidate, DensePlan
from service.search.dense_certainty import DenseCertainty
from service.search.fusion import LegScores, RankedScore, rank_scores
from service.search.retrievers import CandidatesByItem, Item, LegResult
from service.spaces.resolver import Space

MAX_PARALLEL_STATEMENTS = 4
"""Statements of one search that run together, so that many queries do not take all connections from others."""

_EFFORT = ("none", "hnsw", "hnsw_iterative", "exact")


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryCandidates:
    """What the legs brought for one query. A leg that did not run is None."""

    vector: Vector | None
    dense: LegResult | None
    lexical: LegResult | None
    looked_up: CandidatesByItem = field(default_factory=dict)
    """What other lists found, with the exact dense score that it has for this query all the same."""
    looked_up_words: CandidatesByItem = field(default_factory=dict)
    """What the dense legs found, with the BM25 score that it has all the same; by document."""
    certainty: float = 1.0
    """Of the dense leg."""

    @property
    def by_cosine(self) -> tuple[CandidatesByItem, CandidatesByItem]:
        """What the dense leg found, and what was looked up."""
        return {} if self.dense is None else self.dense.best, self.looked_up

    @property
    def by_meaning(self) -> CandidatesByItem:
        found, looked_up = self.by_cosine
        return {**found, **looked_up}

    @property
    def by_words(self) -> CandidatesByItem:
        return {} if self.lexical is None else self.lexical.best


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateSet:
    """What the legs brought for each query, in order."""

    queries: tuple[QueryCandidates, ...]

    @property
    def exhausted(self) -> bool:
        legs = [leg for found in self.queries for leg in (found.dense, found.lexical)]
        return all(leg is None or leg.exhausted for leg in legs)

    @property
    def plan(self) -> DensePlan:
        """Of several the most thorough one."""
        plans = [found.dense.plan for found in self.queries if found.dense is not None]
        return max(plans, key=lambda plan: _EFFORT.index(plan.kind), default=DensePlan())

    def candidate(self, item: Item) -> Candidate:
        """The nearest to any query that the dense legs know, for they know chunks; else the lexical one.

        Where the dense leg found a document as it was, and the words as it is, only what was looked up is left of it.
        """
        known = [best[item] for found in self.queries for best in found.by_cosine if item in best]
        if known:
            return max(known, key=lambda one: one.score)
        return next(
            best[item] for found in self.queries for best in (found.by_words, found.looked_up_words) if item in best
        )

    def evidence(self, weights: Sequence[float]) -> list[LegScores[Item]]:
        """For fusion. The lexical leg speaks of documents; what it says goes for each chunk that is known of one."""
        chunks: dict[DocumentId, dict[Item, None]] = {}
        for found in self.queries:
            for item in found.by_meaning:
                chunks.setdefault(item[0], {})[item] = None
        return [
            LegScores(
                dense=None if found.dense is None else _dense(found, len(found.dense.best)),
                lexical=None if found.lexical is None else _lexical(found, chunks),
                weight=weight,
                certainty=found.certainty,
            )
            for found, weight in zip(self.queries, weights, strict=True)
        ]


def _dense(found: QueryCandidates, ranks: int) -> dict[Item, RankedScore]:
    return rank_scores({item: one.score for item, one in found.by_meaning.items()}, ranks)


def _lexical(found: QueryCandidates, chunks: dict[DocumentId, dict[Item, None]]) -> dict[Item, RankedScore]:
    scores = {item: one.score for item, one in {**found.by_words, **found.looked_up_words}.items()}
    return {
        each: place
        for item, place in rank_scores(scores, len(found.by_words)).items()
        for each in chunks.get(item[0], (item,))
    }


# ---------------------------------------------------------------- one state of each document


def newest(finds: CandidateSet) -> CandidateSet:
    """Where lists know different contents of a document, only what those say that know the newest.

    A document that was changed stands in the lexical index seconds later, and in the space when the worker came to it:
    until then its old vector would get it dropped as stale, and its scores would speak of two texts.
    """
    newest: dict[DocumentId, int] = {}
    outdated = False
    for found in finds.queries:
        for best in (*found.by_cosine, found.by_words, found.looked_up_words):
            for one in best.values():
                known = newest.setdefault(one.document_id, one.content_revision)
                outdated |= known != one.content_revision
                newest[one.document_id] = max(known, one.content_revision)
    if not outdated:
        return finds

    def current(best: CandidatesByItem) -> CandidatesByItem:
        return {item: one for item, one in best.items() if one.content_revision == newest[one.document_id]}

    return CandidateSet(
        queries=tuple(
            replace(
                found,
                dense=found.dense and replace(found.dense, best=current(found.dense.best)),
                lexical=found.lexical and replace(found.lexical, best=current(found.lexical.best)),
                looked_up=current(found.looked_up),
                looked_up_words=current(found.looked_up_words),
            )
            for found in finds.queries
        )
    )


# ---------------------------------------------------------------- what fulfils the wishes


async def fulfilling(lexicon: Lexicon, space: Space, finds: CandidateSet, words: ParsedQuery) -> CandidateSet:
    """Without what does not fulfil the wishes of the query: similar or not, it is not what was asked for.

    Where the words found all documents that do, the dense leg has no more of them to give.
    """
    ids = dict.fromkeys(item[0] for found in finds.queries for item in (*found.by_meaning, *found.by_words))
    named = await lexicon.matching_constraints(space.collection, words, list(ids))
    lexical = [found.lexical for found in finds.queries if found.lexical is not None]
    all_named = bool(words.required) and bool(lexical) and all(leg.exhausted for leg in lexical)

    def heeding(leg: LegResult | None, *, exhausted: bool = False) -> LegResult | None:
        best = {} if leg is None else {item: one for item, one in leg.best.items() if item[0] in named}
        return leg and replace(leg, best=best, exhausted=leg.exhausted or exhausted)

    return CandidateSet(
        queries=tuple(
            replace(found, dense=heeding(found.dense, exhausted=all_named), lexical=heeding(found.lexical))
            for found in finds.queries
        )
    )


# ---------------------------------------------------------------- what is missing


async def look_up(
    vectors: VectorStore,
    lexicon: Lexicon,
    space: Space,
    finds: CandidateSet,
    words: Sequence[ParsedQuery],
    chunks_each: int | None,
) -> CandidateSet:
    """For each query, the exact cosine and the BM25 score of what only other lists have. `words`: of each query.

    Hits that are documents (`chunks_each` None): the best chunk of each. Hits that are chunks: the best so many of each
    document that the words found, and those that other queries found.
    """
    by_words = dict.fromkeys(document_id for found in finds.queries for document_id, _ in found.by_words)
    by_meaning = dict.fromkeys(document_id for found in finds.queries for document_id, _ in found.by_meaning)
    named = by_words if chunks_each is not None else {**by_meaning, **by_words}

    async def match(found: QueryCandidates, asked: ParsedQuery) -> CandidatesByItem:
        missing = [] if found.lexical is None else [one for one in by_meaning if (one, None) not in found.by_words]
        if not missing:
            return {}
        try:
            matched = await lexicon.search(space.collection, asked, len(missing), missing)
        except Unavailable:  # the leg itself answered: without this, what it did not find has its lower bound
            return {}
        return {(one.document_id, None): one for one in matched}

    async def look(found: QueryCandidates) -> QueryCandidates:
        if found.dense is None or found.vector is None:
            return found
        own = found.dense.best
        missing = [one for one in named if chunks_each is not None or (one, None) not in own]
        if not missing:
            return found
        scored = await vectors.score(space.version, found.vector, missing, chunks_each or 1)
        return replace(found, looked_up=_best(scored, chunks_each is not None, own))

    async def complete(found: QueryCandidates, asked: ParsedQuery) -> QueryCandidates:
        looked, matched = await asyncio.gather(look(found), match(found, asked))
        return replace(looked, looked_up_words=matched)

    works = [partial(complete, *one) for one in zip(finds.queries, words, strict=True)]
    looked = CandidateSet(queries=tuple(await gather_limited(works, MAX_PARALLEL_STATEMENTS)))
    several = len(looked.queries) > 1 and chunks_each is not None
    return await _exchanged(vectors, space, looked) if several else looked


async def weighed(backgrounds: DenseCertainty, space: Space, finds: CandidateSet) -> CandidateSet:
    """With the certainty of the dense leg, where there is another one that it is to be weighed against."""

    async def weigh(found: QueryCandidates) -> QueryCandidates:
        if found.vector is None or found.lexical is None or not found.by_meaning:
            return found
        best = max(one.score for one in found.by_meaning.values())
        return replace(found, certainty=await backgrounds.certainty(space, found.vector, best))

    return CandidateSet(queries=tuple([await weigh(found) for found in finds.queries]))


async def _exchanged(vectors: VectorStore, space: Space, finds: CandidateSet) -> CandidateSet:
    """Every query with the cosine of every chunk that another one knows."""
    known = {item: one for found in finds.queries for item, one in found.by_meaning.items()}
    chunks = [(one.document_id, one.chunk or 0) for one in known.values()]
    rows = await vectors.get(space.version, chunks, [one.content_revision for one in known.values()])

    def exchanged(found: QueryCandidates) -> QueryCandidates:
        if found.dense is None or found.vector is None:
            return found
        missing = [(item, one) for item, one in known.items() if item not in found.by_meaning and item in rows]
        scored = [replace(one, score=float(rows[one.document_id, one.chunk or 0] @ found.vector)) for _, one in missing]
        return replace(found, looked_up=_best([*found.looked_up.values(), *scored], True, found.dense.best))

    return CandidateSet(queries=tuple(map(exchanged, finds.queries)))


def _best(candidates: Sequence[Candidate], by_chunk: bool, own: CandidatesByItem) -> CandidatesByItem:
    """Best first; without what the leg has found itself."""
    ordered = sorted(candidates, key=lambda one: -one.score)
    best = {(one.document_id, one.chunk if by_chunk else None): one for one in ordered}
    return {item: one for item, one in best.items() if item not in own}
