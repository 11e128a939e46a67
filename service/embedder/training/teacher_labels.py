"""Pseudo-labels: what a cross-encoder says of a query's answer and of the wrong passages mined for it.

Of titles and crops nobody judged which passages answer them. A reader of query and passage together knows more than two
vectors do, and its doubts soften what is taken for right and wrong (Wang et al., "GPL", NAACL 2022).
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from service.embedder.models.batch_packing import pack
from service.embedder.reranker import adapter
from service.embedder.reranker.cross_encoder import PackedCrossEncoder
from service.embedder.training.embedder_data import Passages
from service.embedder.training.hard_negatives import MinedExample


class Teacher:
    """A reranker, by default the one that ships."""

    def __init__(self, name: str = adapter.BUNDLED, *, device: str = "auto", precision: str = "auto") -> None:
        """ModelUnavailable where there is none of that name."""
        self._pairs = PackedCrossEncoder(name, device=device, precision=precision, threads=0)

    def label(
        self, examples: Sequence[MinedExample], passages: Passages, negatives: int, seed: int
    ) -> list[MinedExample]:
        """All of them; those that nobody judged with so many of their wrong passages, and logits for these."""
        dice = random.Random(seed)  # noqa: S311 - what is drawn is no secret
        drawn = [
            one
            if one.pair.judged
            else replace(one, wrong=tuple(dice.sample(one.wrong, min(negatives, len(one.wrong)))))
            for one in examples
        ]
        guessed = [one for one in drawn if not one.pair.judged and one.wrong]
        read: list[tuple[str, str]] = []
        for one in guessed:
            shown = passages.shown(titled=one.pair.titled)
            answers = [one.pair.answer or shown[one.passage], *(shown[at] for at in one.wrong)]
            read += [(one.pair.query, answer) for answer in answers]
        logits = iter(self.logits(read))
        labelled = iter([replace(one, logits=tuple(next(logits) for _ in (0, *one.wrong))) for one in guessed])
        return [one if one.pair.judged or not one.wrong else next(labelled) for one in drawn]

    def logits(self, read: Sequence[tuple[str, str]]) -> list[float]:
        """Of each query and passage."""
        encodings = [self._pairs.tokens(query, [passage])[0][0] for query, passage in read]
        found = [0.0] * len(read)
        for taken in pack([len(encoding) for encoding in encodings], self._pairs.batch_tokens):
            for at, logit in zip(taken, self._pairs.forward([encodings[at] for at in taken]).tolist(), strict=True):
                found[at] = logit
        return found
