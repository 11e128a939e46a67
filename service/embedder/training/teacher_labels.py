"""Pseudo-labels: a cross-encoder's scores of a query's answer and of the wrong passages mined for it.

Nobody judged which passages answer titles and crops. A model that reads query and passage together knows more than two
vectors do, and its doubts soften the assumed right and wrong (Wang et al., "GPL", NAACL 2022).
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from service.embedder.models.batch_packing import pack
from service.embedder.reranker import adapter
from service.embedder.reranker.cross_encoder import PackedCrossEncoder
from service.embedder.training.embedder_data import Passages
from service.embedder.training.hard_negatives import MinedExample


class Teacher:
    """A reranker, by default the bundled one."""

    def __init__(self, name: str = adapter.BUNDLED, *, device: str = "auto", precision: str = "auto") -> None:
        """ModelUnavailable if there is no reranker of that name."""
        self._reranker = PackedCrossEncoder(name, device=device, precision=precision, threads=0)

    def label(
        self, examples: Sequence[MinedExample], passages: Passages, negatives: int, seed: int
    ) -> list[MinedExample]:
        """All examples; those of derived queries with at most `negatives` wrong passages, and logits for these."""
        dice = random.Random(seed)  # noqa: S311 not a secret
        labelled = [
            one
            if one.query.judged
            else replace(one, wrong=tuple(dice.sample(one.wrong, min(negatives, len(one.wrong)))))
            for one in examples
        ]
        derived = [at for at, one in enumerate(labelled) if not one.query.judged and one.wrong]
        pairs: list[tuple[str, str]] = []
        for one in (labelled[at] for at in derived):
            shown = passages.shown(titled=one.query.titled)
            answers = [one.query.answer or shown[one.passage], *(shown[at] for at in one.wrong)]
            pairs += [(one.query.text, answer) for answer in answers]
        logits = iter(self._logits(pairs))
        for at in derived:
            labelled[at] = replace(labelled[at], logits=tuple(islice(logits, 1 + len(labelled[at].wrong))))
        return labelled

    def _logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One logit for each pair of query and passage."""
        encodings = [self._reranker.tokens(query, [passage])[0][0] for query, passage in pairs]
        found = np.empty(len(pairs))
        for batch in pack([len(encoding) for encoding in encodings], self._reranker.batch_tokens):
            found[batch] = self._reranker.forward([encodings[at] for at in batch])
        return found.tolist()
