"""Is it better? nDCG@10 on queries that nothing was learnt from, over a part of the passages."""

import random
from collections.abc import Sequence

import numpy as np

from service.embedder.training.embedder_data import Passages
from service.embedder.training.hard_negatives import MinedExample
from service.embedder.training.trainable_model import TrainableModel
from service.evaluation.ranking_metrics import ndcg

POOL = 2_500
"""Passages that are searched: those of the right documents, what is wrongly found for the queries, others by chance.
Encoding them must take seconds: it is done after every part of the training."""


class HeldOut:
    """The same queries and passages for every candidate."""

    def __init__(self, examples: Sequence[MinedExample], passages: Passages, seed: int) -> None:
        self._pairs = [example.pair for example in examples]
        own = passages.of()
        pool = dict.fromkeys(at for pair in self._pairs for document in pair.right for at in own[document])
        for rank in range(max((len(example.wrong) for example in examples), default=0)):
            if len(pool) >= POOL:
                break
            pool |= dict.fromkeys(example.wrong[rank] for example in examples if rank < len(example.wrong))
        others = [at for at in range(len(passages.texts)) if at not in pool]
        random.Random(seed).shuffle(others)  # noqa: S311 - what is drawn is no secret
        chosen = [*pool, *others[: max(0, POOL - len(pool))]]
        # Where titles were asked, they would give the answer away.
        titled = all(pair.titled for pair in self._pairs)
        self._texts = [(passages.texts if titled else passages.bodies)[at] for at in chosen]
        self._documents = [passages.documents[at] for at in chosen]

    def __len__(self) -> int:
        return len(self._pairs)

    def scores(self, chain: TrainableModel) -> list[float]:
        """nDCG@10 of each query; a document counts as its best passage."""
        passages = chain.vectors(self._texts, "document")
        cosines = chain.vectors([pair.query for pair in self._pairs], "query") @ passages.T
        found = []
        for pair, row in zip(self._pairs, cosines, strict=True):
            ranking: dict[int, None] = {}
            for at in np.argsort(-row, kind="stable"):
                ranking.setdefault(self._documents[at])
                if len(ranking) == 10:
                    break
            found.append(ndcg([str(one) for one in ranking], {str(one): 1 for one in pair.right}, 10))
        return found
