"""`Reranker` over a cross-encoder, which reads query and passage together and gives a probability of relevance."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from service.core import metrics
from service.core.errors import ModelUnavailable, Overloaded
from service.core.ports.reranker import RerankScores
from service.embedder.models.loader import tries_onnx
from service.embedder.models.loading import SharedLoads
from service.embedder.models.scheduler import PassScheduler
from service.embedder.reranker.pair_model import PORTION, PairModel

if TYPE_CHECKING:
    from service.embedder.models.text_tokenizer import Tokens

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
        backend: str = "torch",
        exports: Path | None = None,
    ) -> None:
        """`model`: the bundled one, a folder (with an adapter or a whole model), a hub id, or `id@revision`.

        `scheduler`: of all models of the process. `batch_tokens`: padded tokens of one pass; 0: by device. `backend`,
        `exports`: see `ModelLoader`.
        """
        self.name = model
        self._scheduler = scheduler
        settings = {"device": device, "precision": precision, "threads": threads, "batch_tokens": batch_tokens}
        self._settings: Mapping[str, Any] = settings
        self._backend, self._exports = backend, exports
        self._model: PairModel | None = None
        self._loads = SharedLoads[str, PairModel](self._remember)

    @property
    def portion(self) -> int:
        return PORTION if self._model is None else self._model.portion

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

    async def _loaded(self) -> PairModel:
        return self._model or await self._loads.load(self.name, self.name, self._load)

    def _load(self) -> PairModel:
        precision, threads = self._settings["precision"], self._settings["threads"]
        if self._exports is not None and tries_onnx(self._backend, precision, self._settings["device"]):
            from service.embedder.models.onnx_choice import OnnxOptions
            from service.embedder.reranker import onnx_cross_encoder

            options = OnnxOptions(
                name=self.name,
                folder=self.name,
                root=str(self._exports),
                digest=onnx_cross_encoder.digest(self.name),
                backend=self._backend,
                precision=precision,
                threads=threads,
            )
            model = onnx_cross_encoder.load(options, self._settings["batch_tokens"])
            if model is not None:
                return model
        from service.embedder.reranker.cross_encoder import PackedCrossEncoder

        return PackedCrossEncoder(self.name, **self._settings)

    def _remember(self, _: str, model: PairModel) -> None:
        self._model = model
