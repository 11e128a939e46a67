"""A probe of the lexical leg: what the index finds among some random documents, against exact BM25 of each of them.

truth   the documents as PostgreSQL holds them, analysed again and scored by rank-bm25, with exact lengths and the term
        statistics of the index
found   the best of the same documents by the index

The two differ in what the index does not know (yet) or knows otherwise, and in rounding: Tantivy keeps the length of a
document in one byte, which alone costs a few percent of recall by id, and next to nothing of distance recall.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from service.core.collections import Collection
from service.core.ids import CollectionId, DocumentId
from service.core.ports.documents import Documents
from service.core.ports.lexicon import ExactBM25, Lexicon, TermCounts
from service.core.ports.vectors import VectorStore
from service.core.query_syntax import ParsedQuery
from service.core.recall import K, RecallStats, recall_at_k
from service.core.versions import EmbedderVersion
from service.spaces.sample_cache import SampleCache

SAMPLE_DOCUMENTS = 256
MAX_DOCUMENT_LENGTH, MAX_SAMPLE_LENGTH = 100_000, 1_000_000
"""Code points of one sampled document, and of a whole sample."""
BATCH = 32
SAMPLE_SECONDS = 600.0
MAX_SAMPLES = 4
"""Collections whose sample is kept; a few megabytes each."""
NEAR_SHARE = 0.06
"""Scores that differ by this share are equally good: a rounded length changes one by as much (docs/lexical.md)."""


@dataclass(kw_only=True, eq=False)
class LexicalProbe:
    """Probes the lexical leg on a sample of documents, which is drawn again after `SAMPLE_SECONDS`."""

    lexicon: Lexicon
    truth: ExactBM25
    vectors: VectorStore
    documents: Documents
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._samples: SampleCache[CollectionId, tuple[TermCounts, ...]] = SampleCache(
            seconds=SAMPLE_SECONDS, capacity=MAX_SAMPLES, clock=self.clock
        )

    async def probe(self, collection: Collection, version: EmbedderVersion, words: ParsedQuery) -> RecallStats | None:
        """None where a document changed meanwhile; empty where no sampled document has any of the words.

        Documents are sampled by the chunks of `version`. Constraints and typos are left out, because they do not rank.
        """
        plain = ParsedQuery(text=words.text, identifiers=False)
        if self.lexicon.state(collection) != "ready":
            return RecallStats()
        sample = await self._samples.get_or_compute(collection.id, partial(self._draw, collection, version))
        scores = await self.truth.exact_scores(collection, plain, sample)
        exact = {one.document_id: score for one, score in zip(sample, scores, strict=True) if score > 0}
        if not exact:
            return RecallStats()
        started = time.perf_counter()
        found = await self.lexicon.search(collection, plain, K, [one.document_id for one in sample])
        seconds = time.perf_counter() - started
        best = sorted(exact, key=lambda one: (-exact[one], one))[:K]
        revisions = {one.document_id: one.content_revision for one in sample}
        differing = {*best} ^ {one.document_id for one in found}
        newer = any(one.content_revision > revisions[one.document_id] for one in found)
        if newer or await self._changed(collection, sorted(differing), revisions):
            self._samples.forget(collection.id)
            return None
        true = [(one, exact[one]) for one in best]
        given = [(one.document_id, exact.get(one.document_id, 0.0)) for one in found]
        return RecallStats.of_one(*recall_at_k(true, given, near=NEAR_SHARE * true[-1][1]), seconds)

    async def _changed(self, collection: Collection, ids: list[DocumentId], revisions: dict[DocumentId, int]) -> bool:
        now = await self.documents.get(collection.id, ids) if ids else {}
        return any(one not in now or now[one].content_revision != revisions[one] for one in ids)

    async def _draw(self, collection: Collection, version: EmbedderVersion) -> tuple[TermCounts, ...]:
        chunks = (await self.vectors.sample(version, SAMPLE_DOCUMENTS)).chunks
        ids = list(dict.fromkeys(document_id for document_id, _ in chunks))
        left, sample = MAX_SAMPLE_LENGTH, list[TermCounts]()
        for at in range(0, len(ids), BATCH):
            documents = (await self.documents.get(collection.id, ids[at : at + BATCH])).values()
            short = [one for one in documents if len(one.text) <= min(MAX_DOCUMENT_LENGTH, left)]
            left = max(0, left - sum(len(one.text) for one in short))
            sample += await self.truth.term_counts(collection, short)
        return tuple(sample)
