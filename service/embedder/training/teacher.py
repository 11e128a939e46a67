"""Pseudo-labels: what the cross-encoder that ships says of a query's answer and of the wrong passages mined for it.

Of titles and crops nobody judged which passages answer them. A reader of query and passage together knows more than two
vectors do, and its doubts soften what is taken for right and wrong (Wang et al., "GPL", NAACL 2022).
"""

import random
from collections.abc import Sequence
from dataclasses import replace

import torch

from service.embedder import adapter
from service.embedder import device as devices
from service.embedder.packing import pack
from service.embedder.training.mining import Example
from service.embedder.training.pairs import Passages


class Teacher:
    """The reranker `name`: the bundled one, or a folder that `azimuth train reranker` made."""

    def __init__(self, name: str = adapter.BUNDLED, *, device: str = "auto", longest: int = 160) -> None:
        """ModelUnavailable where there is none. `longest`: tokens at which pairs are cut."""
        self._device = devices.choose(device)
        self._dtype = devices.precision(self._device, "auto")
        loaded = adapter.load_reranker(name)
        self._model = loaded.model.to(self._device, self._dtype)
        self._tokenizer = loaded.tokenizer
        self._longest = min(longest, loaded.max_tokens)
        self._pass_tokens = devices.batch_tokens(self._device)

    def label(self, examples: Sequence[Example], passages: Passages, negatives: int, seed: int) -> list[Example]:
        """Examples whose pairs nobody judged, with so many wrong passages left of each, and logits for them."""
        dice = random.Random(seed)  # noqa: S311 - what is drawn is no secret
        drawn = [
            replace(one, wrong=tuple(dice.sample(one.wrong, min(negatives, len(one.wrong)))))
            for one in examples
            if not one.pair.judged and one.wrong
        ]
        asked = [one.pair.query for one in drawn for _ in range(1 + len(one.wrong))]
        read = []
        for one in drawn:
            shown = passages.shown(titled=one.pair.titled)
            read += [one.pair.answer or shown[one.passage], *(shown[at] for at in one.wrong)]
        logits = iter(self.logits(asked, read))
        labelled = iter([replace(one, logits=tuple(next(logits) for _ in range(1 + len(one.wrong)))) for one in drawn])
        return [one if one.pair.judged or not one.wrong else next(labelled) for one in examples]

    @torch.inference_mode()
    def logits(self, queries: Sequence[str], passages: Sequence[str]) -> list[float]:
        """One for each query and the passage at the same place."""
        found = self._tokenizer(list(queries), list(passages), truncation=True, max_length=self._longest)
        logits = [0.0] * len(queries)
        for taken in pack([len(ids) for ids in found["input_ids"]], self._pass_tokens):
            rows = {name: [values[at] for at in taken] for name, values in found.items()}
            inputs = self._tokenizer.pad(rows, return_tensors="pt").to(self._device)
            for at, logit in zip(taken, self._model(**inputs).logits[:, 0].float().tolist(), strict=True):
                logits[at] = logit
        return logits
