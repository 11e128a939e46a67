"""The encode stage: batches through the model, and what happens when one fails."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

from service.core import metrics
from service.core.errors import ModelUnavailable, Unavailable, Unembeddable
from service.core.ids import Vectors
from service.core.ports.embedder import Encoder
from service.core.vector_math import finite
from service.core.versions import EmbedderVersion
from service.embedder.models.batch_packing import cheapest_packing, pack
from service.embedder.models.pass_budget import PassBudget, pass_overhead
from service.embedder.worker.failure_bisection import bisect_failures
from service.embedder.worker.failure_policy import FailurePolicy
from service.embedder.worker.in_flight import EncodingThroughput, InFlightChunk, InFlightDocument, LaneLimits
from service.embedder.worker.priority_gate import MAX_STREAMS, PriorityGate

log = logging.getLogger(__name__)

PROBE_TEXT = "The quick brown fox jumps over the lazy dog."
"""Encoded after documents failed: if this fails too, the model is at fault."""


class EncodeStage:
    """Fills the rows of chunks, for one lane. Calls `complete` with each document that has all of its rows."""

    def __init__(
        self,
        limits: LaneLimits,
        failures: FailurePolicy,
        throughput: EncodingThroughput,
        gate: PriorityGate,
        complete: Callable[[InFlightDocument], None],
        batch_tokens: int,
    ) -> None:
        self._limits, self._failures, self._throughput, self._gate = limits, failures, throughput, gate
        self._complete, self._batch_tokens = complete, batch_tokens
        self._budgets: WeakKeyDictionary[Encoder, PassBudget] = WeakKeyDictionary()
        # Threads of the lane's own: a live pass must not wait for a thread that is busy with a backfill.
        self._threads = ThreadPoolExecutor(MAX_STREAMS, thread_name_prefix=f"model-{limits.lane}")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def pack(self, chunks: Sequence[InFlightChunk]) -> list[list[InFlightChunk]]:
        """Batches of the chunks of one version, within the memory and the time of a pass, longest chunks first.

        Full passes of some hundred short texts would be padded by up to a half: smaller ones of like lengths cost less.
        """
        if not chunks:
            return []
        encoder = chunks[0].document.encoder
        budget, overhead = self._budget(encoder).tokens(self._limits.pass_seconds), pass_overhead(encoder.batch_tokens)
        packed = cheapest_packing(list(map(_tokens, chunks)), budget, overhead)
        return [[chunks[index] for index in batch] for batch in packed]

    def _budget(self, encoder: Encoder) -> PassBudget:
        return self._budgets.setdefault(encoder, PassBudget(self._batch_tokens or encoder.batch_tokens))

    async def encode(self, batch: Sequence[InFlightChunk]) -> None:
        """Encode one batch and handle its failures. Raises only if the model keeps failing."""
        chunks = [chunk for chunk in batch if not chunk.document.is_settled]
        # Packed again, since the budget may have shrunk after the batch was made.
        for part in _batches(chunks, self._budget(batch[0].document.encoder).tokens()):
            await self._encode(part)

    async def _encode(self, batch: Sequence[InFlightChunk]) -> None:
        encoded: list[tuple[list[InFlightChunk], Vectors]] = []

        async def attempt(documents: Sequence[InFlightDocument]) -> None:
            chosen = set(documents)
            chunks = [chunk for chunk in batch if chunk.document in chosen]
            encoded.append((chunks, await self._forward(chunks)))

        documents = list(dict.fromkeys(chunk.document for chunk in batch if not chunk.document.is_settled))
        failed: list[tuple[InFlightDocument, Exception]] = []
        try:
            await attempt(documents)
        except MemoryError as error:
            await self._shrink_budget(batch, error)
        except Exception as error:  # a model can raise anything
            log.warning("batch failed", extra={"texts": len(batch), "reason": repr(error)})
            failed = await bisect_failures(documents, attempt)
        for chunks, vectors in encoded:
            await self._accept(chunks, vectors)
        await self.handle_failures(failed)

    async def _forward(self, chunks: Sequence[InFlightChunk]) -> Vectors:
        encoder, version = chunks[0].document.encoder, chunks[0].document.version
        texts = [chunk.chunk.image or chunk.chunk.text for chunk in chunks]
        async with self._gate.slot(encoder, self._limits.lane):
            started = time.perf_counter()
            vectors = await self._in_thread(encoder, texts)
            seconds = time.perf_counter() - started
        if vectors.shape != (len(texts), version.dimensions):
            raise ModelUnavailable(f"The model gave vectors of shape {vectors.shape} for {len(texts)} texts.")
        metrics.EMBED_BATCH_SECONDS.labels("document").observe(seconds)
        metrics.EMBED_BATCH_TEXTS.labels("document").observe(len(texts))
        self._throughput.record_encoding(len(texts), seconds)
        self._budget(encoder).record(_padded(chunks), seconds)
        return vectors

    async def _in_thread(self, encoder: Encoder, texts: Sequence[Any]) -> Vectors:
        return await asyncio.get_running_loop().run_in_executor(self._threads, encoder.encode, texts, "document")

    async def _accept(self, chunks: Sequence[InFlightChunk], vectors: Vectors) -> None:
        """Take the usable rows. Documents with an unusable row have failed, unless the model always fails."""
        usable = finite(vectors)
        if not usable.all():
            reason = Unembeddable("The model gives no usable vector for this document (NaN, infinite or zero).")
            failed = dict.fromkeys(chunk.document for chunk, good in zip(chunks, usable, strict=True) if not good)
            await self.handle_failures([(document, reason) for document in failed])
        if usable.any():
            self._failures.model_succeeded()
        metrics.EMBEDDED_TOKENS.labels("document").inc(sum(chunk.chunk.tokens for chunk in chunks))
        for chunk, vector, good in zip(chunks, vectors, usable, strict=True):
            document = chunk.document
            if good and not document.is_settled:
                document.rows[chunk.chunk.number] = vector
                if document.is_complete:
                    self._complete(document)

    async def handle_failures(self, failed: Sequence[tuple[InFlightDocument, Exception]]) -> None:
        """Record failures of documents that failed alone, if the model still encodes a plain sentence."""
        if not failed:
            return
        fault = await self._model_fault(failed[0][0].encoder, failed[0][0].version)
        if fault is None and not any(isinstance(error, MemoryError | Unavailable) for _, error in failed):
            await self._failures.record_failures(failed)
        else:
            await self._failures.back_off("model", [document for document, _ in failed], fault or failed[0][1])

    async def _model_fault(self, encoder: Encoder, version: EmbedderVersion) -> Exception | None:
        """The error of the model on `PROBE_TEXT`; None if it works."""
        try:
            vectors = await self._in_thread(encoder, [PROBE_TEXT])
        except Exception as error:  # a model can raise anything
            return error
        if vectors.shape != (1, version.dimensions) or not finite(vectors).all():
            return ModelUnavailable("The model gives no usable vector for a plain sentence.")
        return None

    async def _shrink_budget(self, batch: Sequence[InFlightChunk], error: MemoryError) -> None:
        """Out of memory: continue with half as many tokens in a pass, or back off if a single text does not fit."""
        if len(batch) == 1:
            await self._failures.back_off("memory", [batch[0].document], error)
            return
        budget = self._budget(batch[0].document.encoder)
        budget.shrink(_padded(batch))
        metrics.WORKER_BACKOFF.labels("memory").inc()
        log.warning("out of memory", extra={"batch_tokens": budget.tokens(), "reason": str(error)})
        await self.encode(batch)


def _batches(chunks: Sequence[InFlightChunk], budget: int) -> list[list[InFlightChunk]]:
    return [[chunks[index] for index in batch] for batch in pack(list(map(_tokens, chunks)), budget)]


def _padded(chunks: Sequence[InFlightChunk]) -> int:
    return max(map(_tokens, chunks)) * len(chunks)


def _tokens(chunk: InFlightChunk) -> int:
    """Tokens of a chunk as the model reads them."""
    most = chunk.document.encoder.identity.max_tokens
    return chunk.chunk.tokens if chunk.chunk.image else min(chunk.chunk.tokens, most)
