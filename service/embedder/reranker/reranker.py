"""`Reranker` over a cross-encoder, which reads query and passage together and gives a probability of relevance."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from service.core import metrics
from service.core.errors import ModelUnavailable, Overloaded
from service.core.ports.reranker import RerankScores
from service.embedder.models.loading import SharedLoads
from service.embedder.models.scheduler import PassScheduler

if TYPE_CHECKING:
    from service.embedder.models.text_tokenizer import Tokens
    from service.embedder.reranker.cross_encoder import PackedCrossEncoder

PORTION, PORTION_ON_GPU = 16, 128
"""Passages of the length of an embedder's chunks that are tokenized, and read before the next are chosen, at once."""

WARM_WORDS = (40, 250)
"""Words of the passages that are read to warm up: about an excerpt and a whole chunk."""


class CrossEncoderReranker:
    """Loaded at the first use or by `warm`.

    An activation in the model's configuration is ignored. The score is the logistic function of the log-odds, after the
    calibration of the model if it has one, so that scores of all models have the same meaning.
    """

    def __init__(
        self,
        model: str,
        scheduler: PassScheduler,
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        batch_tokens: int = 0,
    ) -> None:
        """`model`: the bundled one, a folder (with an adapter or a whole model), a hub id, or `id@revision`.

        `scheduler`: of all models of the process. `batch_tokens`: padded tokens of one pass; 0: by device.
        """
        self.name = model
        self._scheduler = scheduler
        settings = {"device": device, "precision": precision, "threads": threads, "batch_tokens": batch_tokens}
        self._settings: Mapping[str, Any] = settings
        self._model: PackedCrossEncoder | None = None
        self._loads = SharedLoads[str, "PackedCrossEncoder"](self._remember)

    @property
    def portion(self) -> int:
        on_gpu = self._model is not None and self._model.device.type != "cpu"
        return PORTION_ON_GPU if on_gpu else PORTION

    async def read(self, query: str, passages: Sequence[str]) -> RerankScores:
        if not passages:
            return RerankScores(scores=())
        with self._scheduler.admit(len(passages), "reranker"):
            model = await self._loaded()
            pairs: list[Tokens] = []
            share = 1.0
            try:
                for at in range(0, len(passages), PORTION):
                    work = partial(model.tokens, query, passages[at : at + PORTION])
                    read, read_share = await self._scheduler.tokenize(work)
                    pairs, share = pairs + read, min(share, read_share)
            except Exception as error:  # a tokenizer can raise anything
                raise ModelUnavailable(f"The reranker failed: {error or type(error).__name__}") from error
            log_odds = await self._scheduler.run(model, pairs)
        if not np.isfinite(log_odds).all():
            raise ModelUnavailable("The reranker gives no usable number for a pair.")
        truncated = sum(pair.cut for pair in pairs)
        metrics.RERANK_TRUNCATED.inc(truncated)
        scores = tuple(map(float, model.calibration.probabilities(log_odds[:, None])))
        return RerankScores(
            scores=scores,
            truncated=truncated,
            query_share=share,
            tokens=sum(map(len, pairs)),
            calibration=model.relevance,
        )

    async def warm(self) -> None:
        """Load the model and run a few passes ahead of the first search. A failure shows at that search.

        The first passes claim memory and prepare kernels, and until they ran, passes are small.
        """
        with suppress(ModelUnavailable, Overloaded):
            for words in WARM_WORDS:
                await self.read("how to sort a list", ["word " * words] * self.portion)

    async def _loaded(self) -> "PackedCrossEncoder":
        return self._model or await self._loads.load(self.name, self.name, self._load)

    def _load(self) -> "PackedCrossEncoder":
        from service.embedder.reranker.cross_encoder import PackedCrossEncoder

        return PackedCrossEncoder(self.name, **self._settings)

    def _remember(self, _: str, model: "PackedCrossEncoder") -> None:
        self._model = model
