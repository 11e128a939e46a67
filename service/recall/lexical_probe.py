"""The lexical leg looked at again: what it finds among some random documents, against exact BM25 of each of them.

truth   the documents as PostgreSQL holds them, analysed anew, every one scored by BM25 with lengths counted exactly and
        the statistics of terms that the index has: the score of rank-bm25 with Lucene's idf
found   the best of the same documents by the index

What differs is what the index does not know (yet), or knows otherwise, and what it rounds: Tantivy keeps the length of
a document in one byte, which alone costs a few percent of recall by id, and next to nothing of what is nearly as good.
"""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from service.core.collections import Collection
from service.core.ids import CollectionId, DocumentId
from service.core.ports.documents import Documents
from service.core.ports.lexicon import ExactBM25, Lexicon, TermCounts
from service.core.ports.vectors import VectorStore
from service.core.query_syntax import ParsedQuery
from service.core.recall import K, RecallStats, recall_at_k
from service.core.versions import EmbedderVersion

SAMPLED = 256
"""Documents that truth is known of."""
LONGEST, MOST_TEXT = 100_000, 1_000_000
"""Code points: of a document that is sampled, and of all of a sample."""
PORTION = 32
SAMPLE_SECONDS = 600.0
SAMPLES = 4
"""Collections of which a sample is kept; a few megabytes each."""
NEARLY = 0.06
"""Scores that differ by such a share are as good: as much as a rounded length changes one (docs/lexical.md)."""


@dataclass(frozen=True, slots=True)
class Drawn:
    bags: tuple[TermCounts, ...]
    until: float


class LexicalProbe:
    def __init__(
        self,
        *,
        lexicon: Lexicon,
        truth: ExactBM25,
        vectors: VectorStore,
        documents: Documents,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lexicon = lexicon
        self._truth = truth
        self._vectors = vectors
        self._documents = documents
        self._clock = clock
        self._drawn: OrderedDict[CollectionId, Drawn] = OrderedDict()

    async def look(self, collection: Collection, version: EmbedderVersion, words: ParsedQuery) -> RecallStats | None:
        """None where a document changed meanwhile; of no queries where no sampled document has any of the words.

        `version`: whose chunks documents are drawn by. Wishes and typos are left out: they do not rank.
        """
        plain = ParsedQuery(text=words.text)
        if self._lexicon.state(collection) != "ready":
            return RecallStats()
        bags = await self._bags(collection, version)
        scores = await self._truth.exact_scores(collection, plain, bags)
        exact = {bag.document_id: score for bag, score in zip(bags, scores, strict=True) if score > 0}
        if not exact:
            return RecallStats()
        started = time.perf_counter()
        found = await self._lexicon.search(collection, plain, K, [bag.document_id for bag in bags])
        seconds = time.perf_counter() - started
        best = sorted(exact, key=lambda one: (-exact[one], one))[:K]
        known = {bag.document_id: bag.content_revision for bag in bags}
        differing = {*best} ^ {one.document_id for one in found}
        newer = any(one.content_revision > known[one.document_id] for one in found)
        if newer or await self._changed(collection, sorted(differing), known):
            del self._drawn[collection.id]
            return None
        true = [(one, exact[one]) for one in best]
        given = [(one.document_id, exact.get(one.document_id, 0.0)) for one in found]
        return RecallStats.of_one(*recall_at_k(true, given, near=NEARLY * true[-1][1]), seconds)

    async def _changed(
        self, collection: Collection, ids: Sequence[DocumentId], known: Mapping[DocumentId, int]
    ) -> bool:
        now = await self._documents.get(collection.id, ids) if ids else {}
        return any(one not in now or now[one].content_revision != known[one] for one in ids)

    async def _bags(self, collection: Collection, version: EmbedderVersion) -> tuple[TermCounts, ...]:
        drawn = self._drawn.get(collection.id)
        if drawn is None or self._clock() >= drawn.until:
            bags = [bag async for bag in self._draw(collection, version)]
            drawn = self._drawn[collection.id] = Drawn(tuple(bags), self._clock() + SAMPLE_SECONDS)
            self._drawn.move_to_end(collection.id)
            while len(self._drawn) > SAMPLES:
                self._drawn.popitem(last=False)
        return drawn.bags

    async def _draw(self, collection: Collection, version: EmbedderVersion) -> AsyncIterator[TermCounts]:
        sample = await self._vectors.sample(version, SAMPLED)
        ids = list(dict.fromkeys(document_id for document_id, _ in sample.chunks))
        left = MOST_TEXT
        for at in range(0, len(ids), PORTION):
            there = (await self._documents.get(collection.id, ids[at : at + PORTION])).values()
            short = [one for one in there if len(one.text) <= min(LONGEST, left)]
            left = max(0, left - sum(len(one.text) for one in short))
            for bag in await self._truth.term_counts(collection, short):
                yield bag
