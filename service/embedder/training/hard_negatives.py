"""Wrong passages that look right: what the model itself and BM25 find for a query beside its answers.

Judgments are incomplete, and of titles and crops nobody said that nothing else answers them: what is found may answer
too. Left out are passages of documents with the same title, near-duplicates of the answer and, where nobody judged,
what the model finds nearly as good as the answer (Moreira et al., "NV-Retriever", 2024: above 95 % of its score). A
judged answer may lie far below wrong ones, which is why the model is trained: there that limit would leave out what is
most to be learnt from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.embedder.training.embedder_data import Pair, Passages
from service.embedder.training.reranker_negatives import Lexical, fuse

Vectors = npt.NDArray[np.float32]

DEPTH = 30
"""Passages that each of the two contributes."""
KEPT = 16
"""Wrong passages of a pair, the best by both."""
NEAR_DUPLICATE = 0.96
GUESSED_LIMIT = 0.95


@dataclass(frozen=True, slots=True)
class MinedExample:
    """A pair with its right passage, and wrong ones, best first. `logits`: a teacher's, of the right and each wrong."""

    pair: Pair
    passage: int
    wrong: tuple[int, ...]
    logits: tuple[float, ...] | None = None


def mine(
    pairs: Sequence[Pair], passages: Passages, asked: Vectors, vectors: Vectors, lexical: Lexical
) -> list[MinedExample]:
    """`asked`, `vectors`: of queries and passages, by the model as it is, rows of length 1.

    Of the passages of the right documents the one that the model finds nearest is taken as the answer.
    """
    own = passages.of()
    documents = np.array(passages.documents)
    folded = {title: number for number, title in enumerate(dict.fromkeys(passages.titles))}
    titles = np.array([folded[passages.titles[document]] for document in passages.documents])
    depth = min(DEPTH, len(vectors))
    found = []
    for pair, query in zip(pairs, asked, strict=True):
        cosines = vectors @ query
        candidates = [at for document in pair.right for at in own[document]] if pair.passage is None else [pair.passage]
        right = max(candidates, key=lambda at: cosines[at])
        by_words = lexical.search(pair.query, DEPTH)
        fused = fuse(cosines, by_words, {*np.argpartition(-cosines, depth - 1)[:depth].tolist(), *by_words})
        order = np.array(sorted(fused, key=lambda at: (-fused[at], at)))
        same = [folded[title] for title in {passages.titles[document] for document in pair.right} if title]
        wrong = ~np.isin(documents[order], pair.right) & ~np.isin(titles[order], same)
        wrong &= vectors[order] @ vectors[right] < NEAR_DUPLICATE
        if not pair.judged:
            wrong &= cosines[order] <= GUESSED_LIMIT * cosines[right]
        found.append(MinedExample(pair, right, tuple(order[wrong][:KEPT].tolist())))
    return found
