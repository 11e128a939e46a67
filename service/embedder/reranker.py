"""`Reranker` over a cross-encoder: query and passage are read together, scored in [0, 1]."""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from service import metrics
from service.embedder import source
from service.embedder.packing import pack
from service.errors import ModelUnavailable

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""For so long a failed load is answered from memory: every search would try it again otherwise."""


class CrossEncoderReranker:
    """Loaded at the first use, in the one thread in which it then runs.

    The model must give one number a pair. Whatever activation its configuration names is left out and the logistic
    function taken: some published rerankers come with it, some with none, and scores of both should mean the same.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_tokens: int = 8192,
    ) -> None:
        """`model` is a hub id, `id@revision`, or a folder. `batch_tokens`: padded tokens of one pass."""
        self._name = model
        self._device, self._precision = device, precision
        self._batch_tokens = batch_tokens
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rerank")
        self._model: CrossEncoder | None = None
        self._failed: tuple[float, ModelUnavailable] | None = None

    @property
    def name(self) -> str:
        return self._name

    async def score(self, query: str, passages: Sequence[str]) -> list[float]:
        if not passages:
            return []
        scores = await asyncio.get_running_loop().run_in_executor(self._thread, self._score, query, list(passages))
        metrics.RERANKED_PAIRS.inc(len(scores))
        return scores

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _score(self, query: str, passages: list[str]) -> list[float]:
        """In the thread of the model."""
        import torch

        model = self._loaded()
        pairs = [(query, passage) for passage in passages]
        # Counted as the model will see them: cut at its longest input.
        encoded = model.tokenizer([query] * len(pairs), passages, truncation=True)
        scores = [0.0] * len(pairs)
        try:
            for batch in pack([len(ids) for ids in encoded["input_ids"]], self._batch_tokens):
                logits = model.predict(
                    [pairs[index] for index in batch],
                    batch_size=len(batch),
                    activation_fn=torch.nn.Sigmoid(),
                    show_progress_bar=False,
                )
                for index, score in zip(batch, logits, strict=True):
                    scores[index] = float(score)
        except Exception as error:  # whatever a model raises
            raise ModelUnavailable(f"The reranker failed: {error}") from error
        return scores

    def _loaded(self) -> "CrossEncoder":
        if self._model is None:
            if self._failed and time.monotonic() - self._failed[0] < RETRY_SECONDS:
                raise ModelUnavailable(self._failed[1].detail, retry_after=RETRY_SECONDS) from self._failed[1]
            try:
                self._model = self._load()
            except ModelUnavailable as error:
                self._failed = (time.monotonic(), error)
                log.warning("reranker not loaded", extra={"model": self._name, "reason": error.detail})
                raise
        return self._model

    def _load(self) -> "CrossEncoder":
        from sentence_transformers import CrossEncoder

        from service.embedder import device as devices
        from service.embedder import linear, memory
        from service.embedder.model import max_tokens

        folder = source.folder(*source.split(self._name))
        device = devices.choose(self._device)
        dtype = devices.precision(device, self._precision)
        try:
            model = CrossEncoder(
                str(folder),
                device=str(device),
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": dtype, "use_safetensors": True},
            )
        except Exception as error:  # whatever a broken folder makes the library raise
            raise ModelUnavailable(f"{folder.name} cannot be loaded: {error}") from error
        if model.num_labels != 1:
            raise ModelUnavailable(f"{folder.name} gives {model.num_labels} numbers a pair; a reranker gives one.")
        memory.own(model)
        model.eval()
        model.max_seq_length = max_tokens(folder, model)
        if device.type == "cpu":
            linear.pack(model, lambda: model.predict([("query", "passage")], convert_to_tensor=True).float(), 0.05)
        log.info("reranker loaded", extra={"model": self._name, "device": str(device), "precision": str(dtype)})
        return model
