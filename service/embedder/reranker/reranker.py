"""`MergedReranker` over a cross-encoder: query and passage are read together, judged as a probability."""

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
"""For so long a failed load is answered from memory: every search would try it again otherwise."""
PORTION, PORTION_ON_GPU = 16, 128
"""About one forward pass of passages as long as an embedder's chunks."""


class CrossEncoderReranker:
    """Loaded at the first use or by `warm`, in the one thread in which it then runs.

    Whatever activation the model's configuration names is left out and the logistic function taken, after the line of
    its calibration where it has one: scores of all models should mean the same.
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
        """`model`: the bundled one, a folder with an adapter, a hub id, `id@revision`, or a folder.

        `batch_tokens`: padded tokens of one pass; 0: by device. `most_waiting`: passages that may wait before
        Overloaded.
        """
        self._name = model
        self._device, self._precision, self._threads = device, precision, threads
        self._batch_tokens = batch_tokens
        self._most_waiting = most_waiting
        self._waiting = 0
        self._per_second = 50.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rerank")
        self._model: PackedCrossEncoder | None = None
        self._failed: tuple[float, ModelUnavailable] | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def portion(self) -> int:
        on_gpu = self._model is not None and self._model.device.type != "cpu"
        return PORTION_ON_GPU if on_gpu else PORTION

    async def read(self, query: str, passages: Sequence[str]) -> RerankScores:
        if not passages:
            return RerankScores(scores=())
        # A request that is larger than the bound by itself is taken when nothing else waits: it could never else.
        if self._waiting and self._waiting + len(passages) > self._most_waiting:
            after = max(1.0, self._waiting / self._per_second)
            raise Overloaded(f"{self._waiting} passages wait for the reranker.", retry_after=after)
        gone = threading.Event()
        self._waiting += len(passages)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._read, query, list(passages), gone
            )
        finally:
            self._waiting -= len(passages)
            gone.set()

    async def warm(self) -> None:
        """Load the model, so that the first search need not wait for it. What goes wrong shows at that search."""
        with suppress(ModelUnavailable):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._loaded)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------ in the thread of the model

    def _read(self, query: str, passages: list[str], gone: threading.Event) -> RerankScores:
        """`gone`: set when nobody waits any more. Between two passes is the time to notice."""
        model = self._loaded()
        scores = [0.0] * len(passages)
        started = time.perf_counter()
        try:
            encodings, truncated = model.tokens(query, passages)
            batches = cheapest_packing(
                list(map(len, encodings)), self._batch_tokens or model.batch_tokens, model.pass_overhead
            )
            for batch in batches:
                if gone.is_set():
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
        except Exception as error:  # whatever a model raises
            raise ModelUnavailable(f"The reranker failed: {error or type(error).__name__}") from error
        metrics.RERANK_TRUNCATED.inc(truncated)
        self._per_second += 0.2 * (len(passages) / max(time.perf_counter() - started, 1e-4) - self._per_second)
        return RerankScores(scores=tuple(scores), truncated=truncated)

    def _loaded(self) -> "PackedCrossEncoder":
        if self._model is None:
            if self._failed and time.monotonic() - self._failed[0] < RETRY_SECONDS:
                raise ModelUnavailable(self._failed[1].detail, retry_after=RETRY_SECONDS) from self._failed[1]
            from service.embedder.reranker.cross_encoder import PackedCrossEncoder

            try:
                self._model = PackedCrossEncoder(
                    self._name, device=self._device, precision=self._precision, threads=self._threads
                )
            except ModelUnavailable as error:
                self._failed = (time.monotonic(), error)
                log.warning("reranker not loaded", extra={"model": self._name, "reason": error.detail})
                raise
        return self._model
