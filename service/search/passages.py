"""The passage of each found document that is shown, reranked and highlighted: the best by both legs.

The legs find documents (BM25) and chunks (cosine). Here the passages of the documents found are scored by both, each
score as a share of the best, with the weights that the legs have in fusion. A document that is not encoded yet has
windows of sentences as its passages.
"""

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from service.core.concurrency import both
from service.core.explanation import Explanation
from service.core.ids import DocumentId
from service.core.passage_context import Part, context_at, parts_of
from service.core.ports.documents import Documents
from service.core.ports.lexicon import Lexicon
from service.core.ports.vectors import VectorStore
from service.core.search import Candidate, Hit, Passage
from service.core.text import sentence_starts
from service.search.candidates import CandidateSet, QueryCandidates
from service.search.context import SearchContext
from service.search.fusion import Ranking, dense_weight
from service.search.retrievers import Item

UNEMBEDDED_LENGTH = 1000
"""Most code points of a passage of a document that has no chunks yet."""
TEXT_LIMIT = 4_000_000
"""Bytes of text that are read at once; documents further down keep the best chunk by cosine."""
CONTEXT_SHARE = 0.9
"""What a word counts in the headings above a passage: less than in the passage, which shows it."""
READ_ON_LOOP = 20_000
"""Code points of texts whose headings are looked for on the event loop: 0.1 ms for prose, 1 ms where it is full of
headings and tables."""
MAX_CHUNKS = 10_000
_ROUNDS = 3
"""Of scoring the chunks of documents that rise into the first hits when those above them are scored."""

Fuse = Callable[[CandidateSet], Awaitable[Ranking[Item]]]
Scored = Mapping[DocumentId, Sequence[tuple[Candidate, float, str]]]
"""The passages of each document, best first: place and cosine, lexical score, and text."""


class PassageSelector:
    def __init__(self, documents: Documents, vectors: VectorStore, lexicon: Lexicon) -> None:
        self._documents = documents
        self._vectors = vectors
        self._lexicon = lexicon

    async def read(
        self, context: SearchContext, candidates: CandidateSet, found: Sequence[Candidate]
    ) -> tuple[Passage | None, ...]:
        """As `Documents.passages`. Where `choose` will need the whole texts, they are read along."""
        whole_bytes = TEXT_LIMIT if _choosing(context, candidates) else 0
        collection, where = context.space.collection, context.request.where
        passages = await self._documents.passages(collection.id, found, where, UNEMBEDDED_LENGTH, whole_bytes)
        pairs = [(one, passage) for one, passage in zip(found, passages, strict=True) if passage and passage.partial]
        texts = {(one.document_id, one.content_revision): passage.whole for one, passage in pairs if passage.whole}
        if len(texts) == len(pairs):  # else `read_texts` chooses which are read
            context.texts |= texts
        return passages

    async def choose(self, context: SearchContext, candidates: CandidateSet, hits: list[Hit]) -> list[Hit]:
        """Hits that are documents, each with its best passage for the query that contributes most to it.

        Where this stage cannot run, it is the best by cosine.
        """
        if not _choosing(context, candidates) or not any(hit.partial for hit in hits):
            return hits
        work = self._choose(context, candidates, hits)
        return await context.run_stage("passages", work, optional=True, in_budget=False) or hits

    async def rank(
        self, context: SearchContext, candidates: CandidateSet, fuse: Fuse, wanted: int
    ) -> tuple[CandidateSet, Ranking[Item]]:
        """The candidates in the order of their fused scores; chunks among the first `wanted` with their own words."""
        ranked = None
        if context.request.group_by == "chunk" and candidates.has_lexical:
            work = self._rank_chunks(context, candidates, fuse, wanted)
            ranked = await context.run_stage("passages", work, optional=True)
        return ranked or (candidates, await fuse(candidates))

    async def _choose(self, context: SearchContext, candidates: CandidateSet, hits: Sequence[Hit]) -> list[Hit]:
        by_query: defaultdict[int, dict[DocumentId, int]] = defaultdict(dict)
        for hit in hits:
            if hit.partial:
                by_query[context.request.main_query(hit.explanation)][hit.id] = hit.content_revision
        scored: dict[DocumentId, Sequence[tuple[Candidate, float, str]]] = {}
        for number, revisions in by_query.items():
            scored |= await self._score(context, number, candidates.queries[number], revisions)
        return [_showing(hit, *scored[hit.id][0]) if hit.id in scored else hit for hit in hits]

    async def _rank_chunks(
        self, context: SearchContext, candidates: CandidateSet, fuse: Fuse, wanted: int
    ) -> tuple[CandidateSet, Ranking[Item]]:
        """Score the passages of the documents among the first `wanted`, until these are all scored.

        Until then a chunk has the score of its document, which is an upper bound, so that nothing better is missed.
        """
        ranking, seen = await fuse(candidates), set[DocumentId]()
        for _ in range(_ROUNDS):
            first = [item for item in ranking.items[:wanted] if item[0] not in seen]
            revisions = {item[0]: candidates.candidate(item).content_revision for item in first}
            if not revisions:
                break
            seen |= revisions.keys()
            scored = [
                {} if query.lexical is None else await self._score(context, number, query, revisions)
                for number, query in enumerate(candidates.queries)
            ]
            candidates = _with_chunks(candidates, scored, wanted)
            ranking = await fuse(candidates)
        return candidates, ranking

    async def _score(
        self, context: SearchContext, number: int, query: QueryCandidates, revisions: Mapping[DocumentId, int]
    ) -> Scored:
        """The passages of documents, given best first with the content that was found, for query `number`."""
        space, request = context.space, context.request
        texts, rows = await both(
            read_texts(self._documents, context, revisions),
            self._vectors.score(space.version, query.vector, list(revisions), MAX_CHUNKS),
        )
        if len(texts) < len(revisions):
            unread = f"the texts of {len(revisions) - len(texts)} of {len(revisions)} documents were not read"
            context.degrade("passages", "incomplete", f"{unread}: of these the best chunk by cosine is shown")
        chunks: defaultdict[DocumentId, list[Candidate]] = defaultdict(list)
        for one in rows:
            if one.content_revision == revisions[one.document_id]:
                chunks[one.document_id].append(one)
        passages: list[tuple[Candidate, str]] = []
        for id_, text in texts.items():
            places = chunks[id_] or await asyncio.to_thread(windows, id_, revisions[id_], text)
            passages += ((one, text[one.start : one.end]) for one in places)
        parsed = request.for_query(request.effective_queries[number]).parsed_query
        pieces = [piece for _, piece in passages]
        length = sum(map(len, texts.values()))
        parts = read_parts(texts) if length <= READ_ON_LOOP else await asyncio.to_thread(read_parts, texts)
        longest = space.version.max_chunk_tokens
        contexts = [context_at(parts[one.document_id], one.start or 0, "", longest) for one, _ in passages]
        lexical = np.array(await self._lexicon.score_passages(space.collection, parsed, pieces))
        if any(contexts):  # apart, so that they do not change how rare a word is in the passages
            scores = await self._lexicon.score_passages(space.collection, parsed, contexts)
            lexical = lexical + CONTEXT_SHARE * np.array(scores)
        fusion = request.fusion or space.collection.settings.fusion
        weight = dense_weight(fusion, query.certainty, query.lexical_certainty)
        cosines = np.array([one.score for one, _ in passages]) - query.floor
        fused = weight * _shares(cosines) + (1 - weight) * _shares(lexical)
        scored: defaultdict[DocumentId, list[tuple[Candidate, float, str]]] = defaultdict(list)
        for at in np.argsort(-fused, kind="stable").tolist():
            one, piece = passages[at]
            scored[one.document_id].append((one, float(lexical[at]), piece))
        return scored


def as_hit(found: Candidate, passage: Passage, score: float, explanation: Explanation) -> Hit:
    """The hit that shows this passage of what was found."""
    return Hit(
        id=found.document_id,
        chunk=found.chunk or 0,
        score=score,
        title=passage.title,
        text=passage.text,
        start=passage.start,
        end=passage.end,
        metadata=passage.metadata,
        revision=passage.revision,
        partial=passage.partial,
        image=passage.image,
        content_revision=found.content_revision,
        explanation=explanation,
    )


def _choosing(context: SearchContext, candidates: CandidateSet) -> bool:
    return context.request.group_by == "document" and candidates.has_lexical


def _showing(hit: Hit, passage: Candidate, _: float, text: str) -> Hit:
    start = passage.start or 0
    return replace(hit, chunk=passage.chunk or 0, text=text, start=start, end=start + len(text))


def _with_chunks(candidates: CandidateSet, scored: Sequence[Scored], each: int) -> CandidateSet:
    """With the best `each` chunks of the scored documents for any query, and what each has of its document's BM25."""
    kept = {item for query in candidates.queries for item in query.dense_candidates}
    kept |= {(id_, one.chunk) for found in scored for id_, own in found.items() for one, _, _ in own[:each]}

    def completed(query: QueryCandidates, found: Scored) -> QueryCandidates:
        lookups, shares, lexical = dict(query.dense_lookups), dict(query.lexical_shares), query.lexical_candidates
        for id_, passages in found.items():
            best = max(score for _, score, _ in passages)
            for one, score, _ in passages:
                if one.chunk is not None and (id_, one.chunk) in kept:
                    shares[id_, one.chunk] = score / best if best else 1.0
                    lookups[id_, one.chunk] = one
            window = passages[0][0]
            if window.chunk is None and (id_, None) in lexical:
                shown = lexical[id_, None]._replace(start=window.start, end=window.end)
                lexical = lexical | {(id_, None): shown}
        leg = query.lexical and replace(query.lexical, candidates=lexical)
        return replace(query, dense_lookups=lookups, lexical=leg, lexical_shares=shares)

    return CandidateSet(queries=tuple(map(completed, candidates.queries, scored)))


def read_parts(texts: Mapping[DocumentId, str]) -> dict[DocumentId, list[Part]]:
    return {id_: parts_of(text) for id_, text in texts.items()}


async def read_texts(
    documents: Documents, context: SearchContext, revisions: Mapping[DocumentId, int]
) -> Mapping[DocumentId, str]:
    """As `Documents.texts`; what this search has read before is not read again."""
    missing = {id_: revision for id_, revision in revisions.items() if (id_, revision) not in context.texts}
    if missing:
        found = await documents.texts(context.space.collection.id, missing, TEXT_LIMIT)
        context.texts |= {(id_, missing[id_]): text for id_, text in found.items()}
    return {one[0]: context.texts[one] for one in revisions.items() if one in context.texts}


def _shares(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scores as shares of the best; all 0 where none is above 0."""
    positive = np.maximum(scores, 0.0)
    return positive / (positive.max(initial=0.0) or 1.0)


def windows(document_id: DocumentId, content_revision: int, text: str) -> list[Candidate]:
    """Passages of whole sentences, as long as `UNEMBEDDED_LENGTH` allows; a longer sentence is cut."""
    borders, starts = sentence_starts(text), [0]
    while starts[-1] + UNEMBEDDED_LENGTH < len(text):
        most = starts[-1] + UNEMBEDDED_LENGTH
        border = borders[bisect_right(borders, most) - 1]
        starts.append(border if border > starts[-1] else most)
    return [
        Candidate(document_id=document_id, content_revision=content_revision, score=0.0, start=start, end=end)
        for start, end in pairwise([*starts, len(text)])
    ]
