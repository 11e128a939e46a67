"""Hard negatives: passages that dense search and BM25 find for a query although they do not answer it.

Judgments are incomplete, so near duplicates of the answer and documents with the same title are left out. For derived
queries (titles, crops), which nobody judged, passages that the embedder finds nearly as good as the answer are left out
too (Moreira et al., "NV-Retriever", 2024: above 95 % of its score). For judged ones, which may rank far below wrong
passages, this limit would remove the most instructive negatives.
"""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tantivy

from service.core.collections import FusionSettings
from service.embedder.training.embedder_data import Passages
from service.embedder.training.reranker_data import Material
from service.embedder.training.training_queries import TrainingQuery
from service.search.fusion import LegScores, fuse, rank_scores

Vectors = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]
"""Texts -> unit vectors, [n, dimensions]."""

RERANKER_DEPTH, EMBEDDER_DEPTH = 50, 30
"""Candidates of each leg."""
MAX_WRONG = 16
"""Wrong passages of an example of an embedder, the best of both legs."""
NEAR_DUPLICATE = 0.96
"""Cosine of two passages above which one is no wrong answer if the other is a right one."""
DERIVED_LIMIT = 0.95


class Bm25Index:
    """BM25 over texts in memory, with English stems."""

    def __init__(self, texts: Sequence[str]) -> None:
        stems = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple()).filter(tantivy.Filter.lowercase())
        stems = stems.filter(tantivy.Filter.stopword("english")).filter(tantivy.Filter.stemmer("english"))
        self._analyzer = stems.build()
        builder = tantivy.SchemaBuilder().add_text_field("text", tokenizer_name="stems", index_option="freq")
        index = tantivy.Index(builder.add_integer_field("at", stored=True).build())
        index.register_tokenizer("stems", self._analyzer)
        writer = index.writer(heap_size=64_000_000, num_threads=1)
        for at, text in enumerate(texts):
            writer.add_document(tantivy.Document(text=text, at=at))
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        self._schema, self._searcher = index.schema, index.searcher()

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


class CandidateIndex:
    """Texts in memory, searched by cosine and BM25 and ranked by the fusion of the service."""

    def __init__(self, texts: Sequence[str], vectors: Vectors) -> None:
        self.vectors = vectors
        self._bm25 = Bm25Index(texts)

    def search(self, query: str, cosines: Vectors, depth: int, also: Iterable[int] = ()) -> dict[int, float]:
        """Positions of the candidates of both legs, and those of `also`, with their fused scores, best first."""
        depth = min(depth, len(cosines))
        lexical = self._bm25.search(query, depth)
        found = {*np.argpartition(-cosines, depth - 1)[:depth].tolist(), *lexical, *also}
        dense = {at: float(cosines[at]) for at in found}
        fused = fuse([LegScores(dense=rank_scores(dense), lexical=rank_scores(lexical))], FusionSettings())
        return dict(zip(fused.items, fused.scores, strict=True))

    def near_duplicates(self, candidates: npt.NDArray[np.int64], right: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which of the candidates are near duplicates of one of the right texts."""
        cosines: Vectors = self.vectors[candidates] @ self.vectors[list(right)].T
        similar: npt.NDArray[np.bool_] = cosines.max(axis=1) >= NEAR_DUPLICATE
        return similar


@dataclass(frozen=True, slots=True)
class RankedNegatives:
    """A query of a collection with wrong documents, best first, their fused scores, and those of the right ones."""

    material: Material
    query: TrainingQuery
    wrong: list[int]
    scores: list[float]
    right_scores: list[float]


def mine_documents(
    queries: Sequence[TrainingQuery], material: Material, index: CandidateIndex, encode: Encode, excluded: Set[int]
) -> list[RankedNegatives]:
    """Negatives of each query for a reranker; a query that occurs several times is mined once.

    `index`: of the material's documents, of which the `excluded` ones are never used.
    """
    once = list({id(query): query for query in queries}.values())
    mined: dict[int, RankedNegatives] = {}
    for query, vector in zip(once, encode([query.text for query in once]), strict=True):
        right = list(query.right)
        fused = index.search(query.text, index.vectors @ vector, RERANKER_DEPTH, also=right)
        order = np.array(list(fused))
        usable = ~np.isin(order, [*excluded, *right]) & ~index.near_duplicates(order, right)
        if not query.titled:  # the query is the title, so documents with the same title answer it
            usable &= np.array([material.titles[at] != material.titles[right[0]] for at in fused])
        wrong = order[usable].tolist()
        scores, right_scores = [fused[at] for at in wrong], [fused[at] for at in right]
        mined[id(query)] = RankedNegatives(material, query, wrong, scores, right_scores)
    return [mined[id(query)] for query in queries]


@dataclass(frozen=True, slots=True)
class MinedExample:
    """A query with its right passage and wrong ones, best first.

    `logits`: a teacher's, of the right passage and each wrong one.
    """

    query: TrainingQuery
    passage: int
    wrong: tuple[int, ...]
    logits: tuple[float, ...] | None = None


def mine_passages(
    queries: Sequence[TrainingQuery], query_vectors: Vectors, passages: Passages, index: CandidateIndex
) -> list[MinedExample]:
    """Examples for an embedder, by the vectors of its present state. `index`: of the passages.

    The right passage is the one of the right documents that the model finds nearest.
    """
    own = passages.by_document()
    documents = np.array(passages.documents)
    titles = np.array([passages.titles[document] for document in passages.documents])
    found = []
    for query, vector in zip(queries, query_vectors, strict=True):
        cosines = index.vectors @ vector
        candidates = [at for document in query.right for at in own[document]]
        right = query.passage if query.passage is not None else max(candidates, key=lambda at: cosines[at])
        order = np.array(list(index.search(query.text, cosines, EMBEDDER_DEPTH)))
        same_title = [title for title in {passages.titles[document] for document in query.right} if title]
        wrong = ~np.isin(documents[order], query.right) & ~np.isin(titles[order], same_title)
        wrong &= ~index.near_duplicates(order, [right])
        if not query.judged:
            wrong &= cosines[order] <= DERIVED_LIMIT * cosines[right]
        found.append(MinedExample(query, right, tuple(order[wrong][:MAX_WRONG].tolist())))
    return found
