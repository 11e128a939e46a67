"""Measure a candidate: nDCG@10 on held-out queries, over a part of the passages."""

import random
from collections.abc import Sequence

import numpy as np

from service.embedder.training.embedder_data import Passages
from service.embedder.training.hard_negatives import MinedExample
from service.embedder.training.trainable_model import TrainableModel
from service.evaluation.ranking_metrics import ndcg

POOL = 2_500
"""Passages that are searched: those of the right documents, mined wrong ones, and others at random. Encoding them must
take seconds, since it is done after every part of the training."""


class HeldOut:
    """The same queries and passages for every candidate."""

    def __init__(self, examples: Sequence[MinedExample], passages: Passages, seed: int) -> None:
        self._queries = [example.query for example in examples]
        own = passages.by_document()
        pool = dict.fromkeys(at for query in self._queries for document in query.right for at in own[document])
        for rank in range(max((len(example.wrong) for example in examples), default=0)):
            if len(pool) >= POOL:
                break
            pool |= dict.fromkeys(example.wrong[rank] for example in examples if rank < len(example.wrong))
        others = [at for at in range(len(passages.texts)) if at not in pool]
        random.Random(seed).shuffle(others)  # noqa: S311 not a secret
        chosen = [*pool, *others[: max(0, POOL - len(pool))]]
        # If titles are queries, passages with titles would give the answers away.
        shown = passages.shown(titled=all(query.titled for query in self._queries))
        self._texts = [shown[at] for at in chosen]
        self._documents = [passages.documents[at] for at in chosen]

    def __len__(self) -> int:
        return len(self._queries)

    def scores(self, chain: TrainableModel) -> list[float]:
        """nDCG@10 of each query; a document counts as its best passage."""
        passages = chain.vectors(self._texts, "document")
        cosines = chain.vectors([query.text for query in self._queries], "query") @ passages.T
        found = []
        for query, row in zip(self._queries, cosines, strict=True):
            ranking = list(dict.fromkeys(self._documents[at] for at in np.argsort(-row, kind="stable")))[:10]
            found.append(ndcg([str(one) for one in ranking], {str(one): 1 for one in query.right}, 10))
        return found
