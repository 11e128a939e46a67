"""Wrong answers that look right: what both legs of a search find for a question.

A reranker reads what the first stage put on top, so that is what it must learn to tell apart. Candidates are the best
of exact dense search and of BM25, ordered by the convex fusion that searches use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tantivy

from service.embedder.training.reranker_data import Material, Question

Vectors = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]
"""Texts -> unit vectors, [n, dimensions]."""

DEPTH = 50
"""Candidates of each leg."""
ALPHA = 0.55
"""Weight of the dense leg in the fusion of both."""
NEAR_DUPLICATE = 0.96
"""Cosine of two documents above which one is no wrong answer where the other is a right one."""
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Candidates:
    """For one question: wrong documents, best first, with their fused scores; and that of each right one."""

    wrong: list[int]
    scores: list[float]
    right_scores: list[float]


class Corpus:
    """One collection, ready to be searched by both legs."""

    def __init__(self, material: Material, encode: Encode) -> None:
        """Encodes and indexes every document: minutes for ten thousand on a CPU."""
        self._material, self._encode = material, encode
        passages = [material.passage(at, titled=True) for at in range(len(material.texts))]
        self._vectors = encode(passages)
        self._lexical = Lexical(passages)

    def mine(self, asked: Sequence[Question], barred: frozenset[int]) -> list[Candidates]:
        """Candidates for each question; `barred` documents are none of anybody's."""
        found: list[Candidates] = []
        for start in range(0, len(asked), _CHUNK):
            chunk = asked[start : start + _CHUNK]
            cosines = self._encode([question.text for question in chunk]) @ self._vectors.T
            found += [self._of_one(*each, barred) for each in zip(chunk, cosines, strict=True)]
        return found

    def _of_one(self, question: Question, cosines: Vectors, barred: frozenset[int]) -> Candidates:
        titles, right = self._material.titles, list(question.right)
        depth = min(DEPTH, len(cosines))
        by_meaning = np.argpartition(-cosines, depth - 1)[:depth]
        by_words = self._lexical.search(question.text, DEPTH)
        fused = fuse(cosines, by_words, {*by_meaning.tolist(), *by_words, *right})
        wrong = [
            at
            for at in sorted(fused, key=lambda at: (-fused[at], at))
            if at not in barred
            and at not in question.right
            and float((self._vectors[right] @ self._vectors[at]).max()) < NEAR_DUPLICATE
            # Where the title was the question, a document of the same title answers it.
            and (question.titled or titles[at] != titles[right[0]])
        ]
        return Candidates(wrong, [fused[at] for at in wrong], [fused[at] for at in right])


def fuse(cosines: Vectors, by_words: dict[int, float], documents: set[int]) -> dict[int, float]:
    """Convex combination, each leg scaled from 0 to its best score of this question."""
    best_cosine = max(float(cosines.max()), 1e-6)
    best_words = max(by_words.values(), default=1.0)
    return {
        at: ALPHA * max(0.0, float(cosines[at])) / best_cosine + (1 - ALPHA) * by_words.get(at, 0.0) / best_words
        for at in documents
    }


class Lexical:
    """BM25 over texts in memory, with English stems."""

    def __init__(self, texts: Sequence[str]) -> None:
        chain = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple()).filter(tantivy.Filter.lowercase())
        self._analyzer = (
            chain.filter(tantivy.Filter.stopword("english")).filter(tantivy.Filter.stemmer("english")).build()
        )
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("text", tokenizer_name="stems", index_option="freq")
        builder.add_integer_field("at", stored=True)
        self._schema = builder.build()
        self._index = tantivy.Index(self._schema)
        self._index.register_tokenizer("stems", self._analyzer)
        writer = self._index.writer(heap_size=64_000_000, num_threads=1)
        for at, text in enumerate(texts):
            writer.add_document(tantivy.Document(text=text, at=at))
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()
        self._searcher = self._index.searcher()

    def search(self, text: str, depth: int) -> dict[int, float]:
        """Positions of the best texts and their scores, best first."""
        terms = [
            (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, "text", term, index_option="freq"))
            for term in self._analyzer.analyze(text)
        ]
        if not terms:
            return {}
        hits = self._searcher.search(tantivy.Query.boolean_query(terms), depth).hits
        return {self._searcher.doc(address)["at"][0]: float(score) for score, address in hits}
