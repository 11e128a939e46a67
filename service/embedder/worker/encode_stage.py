"""The encoding stage: batches through the model, and who or what is to blame when one fails."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from service.core import metrics
from service.core.errors import ModelUnavailable, Unavailable, Unembeddable
from service.core.ids import Vectors
from service.core.ports.embedder import Encoder
from service.core.vector_math import finite
from service.core.versions import EmbedderVersion
from service.embedder.models.batch_packing import pack
from service.embedder.worker.failure_bisection import bisect_failures
from service.embedder.worker.failure_policy import FailurePolicy
from service.embedder.worker.in_flight import EncodeBatch, InFlightChunk, InFlightDocument, LaneLimits, WorkerPace
from service.embedder.worker.priority_gate import STREAMS, PriorityGate

log = logging.getLogger(__name__)

KNOWN_GOOD = "The quick brown fox jumps over the lazy dog."
"""Encoded when documents failed: if this fails too, it is the model."""

_FIRST_TOKENS, _LEAST_TOKENS = 512, 256
"""Padded tokens of a pass that is to be short, before anything was measured and at the least."""


class EncodeStage:
    """Fills the rows of pieces, for one lane. `complete` is told of each document that has all of its rows."""

    def __init__(
        self,
        portions: LaneLimits,
        outcomes: FailurePolicy,
        pace: WorkerPace,
        turns: PriorityGate,
        complete: Callable[[InFlightDocument], None],
        batch_tokens: int,
    ) -> None:
        self._portions, self._outcomes, self._pace, self._turns = portions, outcomes, pace, turns
        self._complete = complete
        self._batch_tokens = batch_tokens
        self._budgets: dict[int, int] = {}
        self._rates: dict[int, float] = {}
        # Threads of the lane's own: a live pass must not wait for one that is busy with a backfill.
        self._threads = ThreadPoolExecutor(STREAMS, thread_name_prefix=f"model-{portions.lane}")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def pack(self, encoder: Encoder, version: EmbedderVersion, pieces: Sequence[InFlightChunk]) -> list[EncodeBatch]:
        """Pieces in batches whose padded tokens are within the budget and the time of a pass, longest first."""
        budget = self._budget(encoder)
        if self._portions.pass_seconds is not None:
            in_time = self._portions.pass_seconds * self._rates.get(id(encoder), 0.0)
            budget = min(budget, max(_LEAST_TOKENS, round(in_time)) if in_time else _FIRST_TOKENS)
        return _batches(encoder, version, pieces, budget)

    def _budget(self, encoder: Encoder) -> int:
        """Padded tokens of a pass that the device has room for."""
        return self._budgets.get(id(encoder), self._batch_tokens or encoder.batch_tokens)

    async def encode(self, batch: EncodeBatch) -> None:
        """Encode one batch, whatever becomes of it. Raises only where the model is past hope."""
        alive = [piece for piece in batch.pieces if not piece.work.ended]
        # Once more through packing: the budget may have shrunk since the batch was made.
        for part in _batches(batch.encoder, batch.version, alive, self._budget(batch.encoder)):
            await self._encode(part)

    async def _encode(self, batch: EncodeBatch) -> None:
        encoded: list[tuple[list[InFlightChunk], Vectors]] = []

        async def attempt(works: Sequence[InFlightDocument]) -> None:
            chosen = set(map(id, works))
            pieces = [piece for piece in batch.pieces if id(piece.work) in chosen]
            encoded.append((pieces, await self._forward(batch.encoder, batch.version, pieces)))

        failed: list[tuple[InFlightDocument, Exception]] = []
        exhausted: MemoryError | None = None
        try:
            await attempt(batch.works)
        except MemoryError as error:
            exhausted = error
        except Exception as error:  # whatever a model raises
            log.warning("batch failed", extra={"texts": len(batch.pieces), "reason": repr(error)})
            failed = await bisect_failures(batch.works, attempt)
        if exhausted is not None:
            await self._shrink(batch, exhausted)
        for pieces, vectors in encoded:
            await self._accept(pieces, vectors)
        await self.judge(batch.encoder, batch.version, failed)

    async def _forward(self, encoder: Encoder, version: EmbedderVersion, pieces: Sequence[InFlightChunk]) -> Vectors:
        texts = [piece.chunk.text for piece in pieces]
        async with self._turns.turn(encoder, self._portions.lane):
            started = time.perf_counter()
            vectors = await asyncio.get_running_loop().run_in_executor(self._threads, encoder.encode, texts, "document")
            seconds = time.perf_counter() - started
        if vectors.shape != (len(texts), version.dimensions):
            raise ModelUnavailable(f"The model gave vectors of shape {vectors.shape} for {len(texts)} texts.")
        metrics.EMBED_BATCH_SECONDS.labels("document").observe(seconds)
        metrics.EMBED_BATCH_TEXTS.labels("document").observe(len(texts))
        self._pace.encoded(len(texts), seconds)
        rate = max(_tokens(encoder, piece) for piece in pieces) * len(pieces) / max(seconds, 1e-4)
        known = self._rates.setdefault(id(encoder), rate)
        self._rates[id(encoder)] = known + 0.1 * (rate - known)
        return vectors

    async def _accept(self, pieces: Sequence[InFlightChunk], vectors: Vectors) -> None:
        """Take the usable rows; a document with an unusable one is to blame for it, unless the model always fails."""
        usable = finite(vectors)
        if not usable.all():
            spoiled = {piece.work: None for piece, good in zip(pieces, usable, strict=True) if not good}
            reason = Unembeddable("The model gives no usable vector for this document (NaN, infinite or zero).")
            first = pieces[0].work
            await self.judge(first.encoder, first.version, [(work, reason) for work in spoiled])
        if usable.any():
            self._outcomes.worked()
        metrics.EMBEDDED_TOKENS.labels("document").inc(sum(piece.chunk.tokens for piece in pieces))
        for piece, vector, good in zip(pieces, vectors, usable, strict=True):
            if good and not piece.work.ended:
                piece.work.rows[piece.number] = vector
                if piece.work.complete:
                    self._complete(piece.work)

    async def judge(
        self, encoder: Encoder, version: EmbedderVersion, failed: Sequence[tuple[InFlightDocument, Exception]]
    ) -> None:
        """Charge documents that failed alone, if the model can still do what it always could."""
        if not failed:
            return
        trouble = await self._broken(encoder, version)
        if trouble is None and not any(isinstance(error, MemoryError | Unavailable) for _, error in failed):
            await self._outcomes.record_failure(failed)
        else:
            await self._outcomes.trouble("model", [work for work, _ in failed], trouble or failed[0][1])

    async def _broken(self, encoder: Encoder, version: EmbedderVersion) -> Exception | None:
        """What is wrong with the model, tried on a text that it always could encode; None where it works."""
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(
                self._threads, encoder.encode, [KNOWN_GOOD], "document"
            )
        except Exception as error:  # whatever a model raises
            return error
        if vectors.shape != (1, version.dimensions) or not finite(np.asarray(vectors)).all():
            return ModelUnavailable("The model gives no usable vector for a plain sentence.")
        return None

    async def _shrink(self, batch: EncodeBatch, error: MemoryError) -> None:
        """No room on the device: go on with half as many tokens in a pass. One text alone must fit, or pause."""
        if len(batch.pieces) == 1:
            await self._outcomes.trouble("memory", batch.works, error)
            return
        longest = max(piece.chunk.tokens for piece in batch.pieces)
        budget = max(1, min(longest, batch.encoder.identity.max_tokens) * len(batch.pieces) // 2)
        self._budgets[id(batch.encoder)] = min(budget, self._budgets.get(id(batch.encoder), budget))
        metrics.WORKER_BACKOFF.labels("memory").inc()
        log.warning("out of memory", extra={"batch_tokens": self._budgets[id(batch.encoder)], "reason": str(error)})
        await self.encode(batch)


def _batches(
    encoder: Encoder, version: EmbedderVersion, pieces: Sequence[InFlightChunk], budget: int
) -> list[EncodeBatch]:
    lengths = [_tokens(encoder, piece) for piece in pieces]
    return [EncodeBatch(encoder, version, [pieces[index] for index in batch]) for batch in pack(lengths, budget)]


def _tokens(encoder: Encoder, piece: InFlightChunk) -> int:
    """Of one text as the model reads it."""
    return min(piece.chunk.tokens, encoder.identity.max_tokens)
