"""Exact BM25 of a sample of documents, computed by rank-bm25: the truth that the lexical leg is measured against."""

from collections.abc import Mapping, Sequence

from rank_bm25 import BM25Okapi

from service.core.ports.lexicon import TermCounts
from service.store.lexical.query import K1, B


class SampleBM25(BM25Okapi):
    """Scores documents with the statistics of their whole collection instead of those of the sample.

    `weights`: the idf of each query term, times how often the query counts it. `average_length`: terms per document.
    """

    def __init__(self, documents: Sequence[TermCounts], weights: Mapping[str, float], average_length: float) -> None:
        # BM25Okapi.__init__ would count terms and compute an idf of its own.
        self.k1, self.b = K1, B
        self.corpus_size = len(documents)
        self.doc_freqs = [document.counts for document in documents]
        self.doc_len = [document.length for document in documents]
        self.avgdl = average_length
        self.idf = weights

    def scores(self) -> tuple[float, ...]:
        """The score of each document, 0 where it has none of the terms."""
        return tuple(self.get_scores(list(self.idf)).tolist())
