"""`Reranker` over a cross-encoder, which reads query and passage together and gives a probability of relevance."""

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from service.core import metrics
from service.core.errors import AzimuthError, ModelUnavailable, Overloaded
from service.core.ports.reranker import RerankScores
from service.embedder.models.batch_packing import cheapest_packing

if TYPE_CHECKING:
    from service.embedder.reranker.cross_encoder import PackedCrossEncoder

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""How long the error of a failed load is repeated without another try: otherwise every search would try again."""
PORTION, PORTION_ON_GPU = 16, 128
"""Passages of the length of an embedder's chunks that fill about one forward pass."""


class CrossEncoderReranker:
    """Loaded at the first use or by `warm`, in the one thread in which it then runs.

    An activation in the model's configuration is ignored. The score is the logistic function of the log-odds, after the
    calibration of the model if it has one, so that scores of all models have the same meaning.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        batch_tokens: int = 0,
        most_waiting: int = 4096,
    ) -> None:
        """`model`: the bundled one, a folder (with an adapter or a whole model), a hub id, or `id@revision`.

        `batch_tokens`: padded tokens of one pass; 0: by device. `most_waiting`: passages that may wait before
        Overloaded.
        """
        self.name = model
        self._device, self._precision, self._threads = device, precision, threads
        self._batch_tokens, self._most_waiting = batch_tokens, most_waiting
        self._waiting = 0
        self._passages_per_second = 50.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rerank")
        self._model: PackedCrossEncoder | None = None
        self._failed: tuple[float, ModelUnavailable] | None = None

    @property
    def portion(self) -> int:
        on_gpu = self._model is not None and self._model.device.type != "cpu"
        return PORTION_ON_GPU if on_gpu else PORTION

    async def read(self, query: str, passages: Sequence[str]) -> RerankScores:
        if not passages:
            return RerankScores(scores=())
        # A request larger than the limit is accepted when nothing else waits: it could never be accepted otherwise.
        if self._waiting and self._waiting + len(passages) > self._most_waiting:
            after = max(1.0, self._waiting / self._passages_per_second)
            raise Overloaded(f"{self._waiting} passages wait for the reranker.", retry_after=after)
        cancelled = threading.Event()
        self._waiting += len(passages)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._score, query, list(passages), cancelled)
        finally:
            self._waiting -= len(passages)
            cancelled.set()

    async def warm(self) -> None:
        """Load the model ahead of the first search. A failure shows at that search."""
        with suppress(ModelUnavailable):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._loaded)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _score(self, query: str, passages: list[str], cancelled: threading.Event) -> RerankScores:
        """`cancelled` is set when the caller no longer waits; it is checked between passes."""
        model = self._loaded()
        scores = [0.0] * len(passages)
        started = time.perf_counter()
        try:
            encodings, truncated, query_share = model.tokens(query, passages)
            budget = self._batch_tokens or model.batch_tokens
            for batch in cheapest_packing(list(map(len, encodings)), budget, model.pass_overhead):
                if cancelled.is_set():
                    break
                with metrics.RERANK_PASS_SECONDS.time():
                    log_odds = model.forward([encodings[index] for index in batch])
                if not np.isfinite(log_odds).all():
                    raise ModelUnavailable("The reranker gives no usable number for a pair.")
                metrics.RERANKED_PAIRS.inc(len(batch))
                for index, score in zip(batch, model.calibration.probabilities(log_odds[:, None]), strict=True):
                    scores[index] = float(score)
        except AzimuthError:
            raise
        except Exception as error:  # a model can raise anything
            raise ModelUnavailable(f"The reranker failed: {error or type(error).__name__}") from error
        metrics.RERANK_TRUNCATED.inc(truncated)
        rate = len(passages) / max(time.perf_counter() - started, 1e-4)
        self._passages_per_second += 0.2 * (rate - self._passages_per_second)
        return RerankScores(
            scores=tuple(scores), truncated=truncated, query_share=query_share, calibration=model.relevance
        )

    def _loaded(self) -> "PackedCrossEncoder":
        if self._model is None:
            if self._failed and time.monotonic() - self._failed[0] < RETRY_SECONDS:
                raise ModelUnavailable(self._failed[1].detail, retry_after=RETRY_SECONDS) from self._failed[1]
            from service.embedder.reranker.cross_encoder import PackedCrossEncoder

            try:
                self._model = PackedCrossEncoder(
                    self.name, device=self._device, precision=self._precision, threads=self._threads
                )
            except Exception as error:  # damaged files can raise anything
                reason = error if isinstance(error, ModelUnavailable) else ModelUnavailable(f"{self.name}: {error!r}")
                self._failed = (time.monotonic(), reason)
                log.warning("reranker not loaded", extra={"model": self.name, "reason": reason.detail})
                raise reason from error
        return self._model
