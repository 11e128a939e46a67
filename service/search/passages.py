"""The passage of each found document that is shown, reranked and highlighted: the best by both legs.

The legs find documents (BM25) and chunks (cosine). Here the passages of the documents found are scored by both, and
fused as documents are: cosine and BM25 as shares of the best, the dense leg with the weight that the settings give it.
A document that is not encoded yet has windows of sentences as its passages.
"""

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from service.core.concurrency import both
from service.core.ids import DocumentId
from service.core.ports.documents import Documents
from service.core.ports.lexicon import Lexicon
from service.core.ports.vectors import VectorStore
from service.core.search import Candidate, ChunkScores, Hit
from service.core.text import sentence_starts
from service.search.candidates import CandidateSet, QueryCandidates
from service.search.context import SearchContext
from service.search.fusion import FusedItem
from service.search.retrievers import Item

UNEMBEDDED_LENGTH = 1000
"""Most code points of a passage of a document that has no chunks yet."""
TEXT_LIMIT = 4_000_000
"""Bytes of text that are read for one search; documents further down keep the best chunk by cosine."""
_ROUNDS = 3
"""Of scoring the chunks of documents that rise into the first hits when those above them are scored."""

Scores = npt.NDArray[np.float64]
Ranking = list[FusedItem[Item]]


@dataclass(frozen=True, kw_only=True, slots=True)
class PassageScores:
    """The passages of a document with their scores for one query. `fused`: in the order of preference."""

    passages: ChunkScores
    lexical: Scores
    fused: Scores

    def candidate(self, document_id: DocumentId, at: int) -> Candidate:
        """The passage number `at`, scored by its cosine."""
        passages = self.passages
        return Candidate(
            document_id=document_id,
            content_revision=passages.content_revision,
            score=passages.cosines[at],
            chunk=passages.chunks[at],
            start=passages.starts[at],
            end=passages.ends[at],
        )


class PassageSelector:
    def __init__(self, documents: Documents, vectors: VectorStore, lexicon: Lexicon) -> None:
        self._documents = documents
        self._vectors = vectors
        self._lexicon = lexicon

    async def choose(self, context: SearchContext, candidates: CandidateSet, hits: list[Hit]) -> list[Hit]:
        """Hits that are documents, each with its best passage for the query that contributes most to it.

        Where this stage cannot run, it is the best by cosine.
        """
        by_chunk = context.request.group_by == "chunk"
        if by_chunk or not candidates.has_lexical or not any(hit.partial for hit in hits):
            return hits
        work = self._choose(context, candidates, hits)
        return await context.run_stage("passages", work, optional=True, in_budget=False) or hits

    async def rank(
        self, context: SearchContext, candidates: CandidateSet, fuse: Callable[[CandidateSet], Ranking], wanted: int
    ) -> tuple[CandidateSet, Ranking]:
        """The candidates in the order of their fused scores; chunks among the first `wanted` with their own words."""
        ranked = None
        if context.request.group_by == "chunk" and candidates.has_lexical:
            work = self._rank_chunks(context, candidates, fuse, wanted)
            ranked = await context.run_stage("passages", work, optional=True)
        return ranked or (candidates, fuse(candidates))

    async def _choose(self, context: SearchContext, candidates: CandidateSet, hits: Sequence[Hit]) -> list[Hit]:
        chosen = list(hits)
        places: defaultdict[int, list[int]] = defaultdict(list)
        for at, hit in enumerate(hits):
            if hit.partial:
                places[context.request.main_query(hit.explanation)].append(at)
        for number, of_query in places.items():
            revisions = {hits[at].id: hits[at].content_revision for at in of_query}
            scored, texts = await self._score(context, number, candidates.queries[number], revisions)
            for at in of_query:
                if (one := scored.get(hits[at].id)) is not None:
                    best = one.candidate(hits[at].id, int(np.argmax(one.fused)))
                    text = texts[best.document_id][best.start : best.end]
                    start = best.start or 0
                    chosen[at] = replace(hits[at], chunk=best.chunk or 0, text=text, start=start, end=start + len(text))
        return chosen

    async def _rank_chunks(
        self, context: SearchContext, candidates: CandidateSet, fuse: Callable[[CandidateSet], Ranking], wanted: int
    ) -> tuple[CandidateSet, Ranking]:
        """Score the passages of the documents among the first `wanted`, until these are all scored.

        Until then a chunk has the score of its document, which is an upper bound, so that nothing better is missed.
        """
        ranking, seen = fuse(candidates), set[DocumentId]()
        for _ in range(_ROUNDS):
            first = [fused.item for fused in ranking[:wanted]]
            revisions = {item[0]: candidates.candidate(item).content_revision for item in first if item[0] not in seen}
            if not revisions:
                break
            seen |= revisions.keys()
            numbers = [at for at, query in enumerate(candidates.queries) if query.lexical is not None]
            scored = {at: (await self._score(context, at, candidates.queries[at], revisions))[0] for at in numbers}
            candidates = _with_chunks(candidates, scored, wanted)
            ranking = fuse(candidates)
        return candidates, ranking

    async def _score(
        self, context: SearchContext, number: int, query: QueryCandidates, revisions: Mapping[DocumentId, int]
    ) -> tuple[dict[DocumentId, PassageScores], Mapping[DocumentId, str]]:
        """The passages of documents, best document first, scored for query `number`; and the texts."""
        space, request = context.space, context.request
        texts, encoded = await both(
            self._documents.texts(space.collection.id, revisions, TEXT_LIMIT),
            self._vectors.chunks(space.version, query.vector, list(revisions)),
        )
        if len(texts) < len(revisions):
            unread = f"the texts of {len(revisions) - len(texts)} of {len(revisions)} documents were not read"
            context.degrade("passages", "incomplete", f"{unread}: of these the best chunk by cosine is shown")
        known = {id_: one for id_, one in encoded.items() if one.content_revision == revisions[id_]}
        missing = {id_: text for id_, text in texts.items() if id_ not in known}
        if missing:
            known |= await asyncio.to_thread(
                lambda: {id_: _windows(text, revisions[id_]) for id_, text in missing.items()}
            )
        found = [(id_, known[id_]) for id_ in texts]
        if not found:
            return {}, texts
        pieces = [texts[id_][start:end] for id_, one in found for start, end in zip(one.starts, one.ends, strict=True)]
        parsed = request.for_query(request.effective_queries[number]).parsed_query
        lexical = np.array(await self._lexicon.score_passages(space.collection, parsed, pieces))
        cosines = np.array([cosine for _, one in found for cosine in one.cosines])
        settings = request.fusion or space.collection.settings.fusion
        odds = settings.alpha * query.certainty
        weight = odds / (odds + 1 - settings.alpha) if settings.alpha < 1 else 1.0
        fused = weight * _shares(cosines) + (1 - weight) * _shares(lexical)
        borders = np.cumsum([len(one.starts) for _, one in found])[:-1]
        parts = zip(found, np.split(lexical, borders), np.split(fused, borders), strict=True)
        return {id_: PassageScores(passages=one, lexical=lex, fused=both) for (id_, one), lex, both in parts}, texts


def _with_chunks(
    candidates: CandidateSet, scored: Mapping[int, Mapping[DocumentId, PassageScores]], each: int
) -> CandidateSet:
    """With the best `each` chunks of the scored documents for any query, and what each has of its document's BM25."""
    known = {item for query in candidates.queries for item in query.dense_candidates}
    for found in scored.values():
        for id_, one in found.items():
            best = np.argsort(-one.fused, kind="stable")[:each].tolist()
            known |= {(id_, chunk) for at in best if (chunk := one.passages.chunks[at]) is not None}

    def completed(number: int, query: QueryCandidates) -> QueryCandidates:
        lookups, shares, lexical = dict(query.dense_lookups), dict(query.lexical_shares), query.lexical_candidates
        for id_, one in scored.get(number, {}).items():
            if one.passages.chunks[0] is None and (id_, None) in lexical:
                window = one.candidate(id_, int(np.argmax(one.fused)))
                found = replace(lexical[id_, None], start=window.start, end=window.end)
                lexical = {**lexical, (id_, None): found}
            own_shares = _shares(one.lexical) if one.lexical.any() else np.ones(len(one.lexical))
            for at, share in enumerate(own_shares.tolist()):
                item = (id_, one.passages.chunks[at])
                if item in known:
                    shares[item] = share
                    if query.dense is None or item not in query.dense.candidates:
                        lookups[item] = one.candidate(id_, at)
        leg = query.lexical and replace(query.lexical, candidates=lexical)
        return replace(query, dense_lookups=lookups, lexical=leg, lexical_shares=shares)

    return CandidateSet(queries=tuple(completed(*pair) for pair in enumerate(candidates.queries)))


def _shares(scores: Scores) -> Scores:
    """Scores as shares of the best; all 0 where none is above 0."""
    positive = np.maximum(scores, 0.0)
    best = positive.max(initial=0.0)
    return positive / best if best > 0 else positive


def _windows(text: str, content_revision: int) -> ChunkScores:
    """Passages of whole sentences, as long as `UNEMBEDDED_LENGTH` allows; a longer sentence is cut."""
    borders, starts = [*sentence_starts(text), len(text)], [0]
    while starts[-1] + UNEMBEDDED_LENGTH < len(text):
        most = starts[-1] + UNEMBEDDED_LENGTH
        border = borders[bisect_right(borders, most) - 1]
        starts.append(border if border > starts[-1] else most)
    ends = [*starts[1:], len(text)]
    unknown, zeros = [None] * len(starts), [0.0] * len(starts)
    return ChunkScores(content_revision=content_revision, chunks=unknown, starts=starts, ends=ends, cosines=zeros)
