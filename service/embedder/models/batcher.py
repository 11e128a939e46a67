"""Texts of concurrent callers share forward passes; a single caller is served without delay."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from service.core import metrics
from service.core.errors import AzimuthError, ModelUnavailable, Overloaded
from service.core.ids import Role, Vector, Vectors
from service.core.ports.embedder import Encoder


@dataclass(slots=True, eq=False)
class _Request:
    """One caller with the vectors that are ready so far; `missing` counts the others."""

    role: Role
    answer: asyncio.Future[Vectors]
    vectors: list[Vector | None]
    missing: int


@dataclass(slots=True, eq=False)
class _Item:
    """One text of one caller. `length` in tokens, at most what the model takes; counted in the model's thread."""

    request: _Request
    position: int
    text: str
    arrival: int
    length: int = 0


class Batcher:
    """Runs one encoder in a thread of its own. Use it from one event loop and `close` it at the end.

    Texts that arrive while the model is busy form the next batch. Nothing else waits, except for one short window while
    several callers are active and more are likely to arrive. The first texts of every caller come before the hundredth
    of any, so a bulk request does not delay a query.
    """

    def __init__(
        self, encoder: Encoder, *, batch_tokens: int = 8192, most_waiting: int = 4096, window_seconds: float = 0.001
    ) -> None:
        """`batch_tokens`: padded tokens of one pass. `most_waiting`: texts that may wait before Overloaded."""
        self._encoder, self._budget = encoder, batch_tokens
        self._most_waiting, self._window = most_waiting, window_seconds
        self._waiting: list[_Item] = []
        self._arrivals = 0
        self._texts_per_second = 100.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._runner: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether any caller waits for vectors."""
        return bool(self._waiting) or (self._runner is not None and not self._runner.done())

    async def embed(self, texts: Sequence[str], role: Role) -> Vectors:
        """Vectors of the texts, in order: [n, dimensions].

        Overloaded, with a time to retry after, if too many texts wait. A failed batch fails each caller in it: errors
        of the service as they are, any other as ModelUnavailable with its cause.
        """
        if not texts:
            return np.zeros((0, self._encoder.identity.dimensions), dtype=np.float32)
        # A request larger than the limit is accepted when nothing else waits: it could never be accepted otherwise.
        if self._waiting and len(self._waiting) + len(texts) > self._most_waiting:
            after = max(1.0, len(self._waiting) / self._texts_per_second)
            raise Overloaded(f"{len(self._waiting)} texts wait for the embedder.", retry_after=after)
        request = _Request(role, asyncio.get_running_loop().create_future(), [None] * len(texts), len(texts))
        self._arrivals += 1
        self._waiting.extend(_Item(request, position, text, self._arrivals) for position, text in enumerate(texts))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await request.answer

    async def close(self) -> None:
        """Fail all waiting callers and end the thread, after the pass that runs."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        self._fail(self._waiting, ModelUnavailable("The embedder is shutting down."))
        self._waiting.clear()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    async def _run(self) -> None:
        """Encode until nothing waits. A failed batch fails its callers and nothing else."""
        loop = asyncio.get_running_loop()
        several_callers = False
        while True:
            self._drop_finished()
            if self._waiting and (several_callers or _callers(self._waiting) > 1):
                await self._pause()
                self._drop_finished()
            if not self._waiting:
                return
            candidates: list[_Item] = []
            batch: list[_Item] = []
            try:
                candidates = self._next()
                vectors, seconds = await loop.run_in_executor(self._thread, self._encode, candidates, batch)
            except asyncio.CancelledError:
                self._fail(candidates, ModelUnavailable("The embedder is shutting down."))
                raise
            except Exception as error:  # any error of the model must reach the callers
                self._fail(batch or candidates or self._waiting, error)
                continue
            self._answer(batch, vectors, seconds)
            several_callers = _callers(batch) > 1

    async def _pause(self) -> None:
        await asyncio.sleep(self._window)

    def _drop_finished(self) -> None:
        """Drop texts whose caller was cancelled or already got an error."""
        self._waiting = [item for item in self._waiting if not item.request.answer.done()]

    def _next(self) -> list[_Item]:
        """Candidates for the next pass, in order: of one role, since prompts differ, and no more than could fit."""
        self._waiting.sort(key=lambda item: (item.position, item.arrival))
        role = self._waiting[0].request.role
        most = max(1, self._budget // max(1, self._encoder.overhead(role) + 1))
        return [item for item in self._waiting if item.request.role == role][:most]

    def _encode(self, candidates: Sequence[_Item], batch: list[_Item]) -> tuple[Vectors, float]:
        """In the model's thread: count tokens, add as many texts to `batch` as fit the budget, encode them.

        Vectors and the seconds that they took. If the model fails, `batch` says whose texts it failed on.
        """
        role = candidates[0].request.role
        if len(candidates) > 1:
            most = self._encoder.identity.max_tokens
            uncounted = [item for item in candidates if not item.length]
            lengths = self._encoder.lengths([item.text for item in uncounted], role)
            for item, length in zip(uncounted, lengths, strict=True):
                item.length = max(1, min(length, most))
        longest = 0
        for item in candidates:
            longest = max(longest, item.length)
            if batch and longest * (len(batch) + 1) > self._budget:
                break
            batch.append(item)
        started = time.perf_counter()
        vectors = self._encoder.encode([item.text for item in batch], role)
        return vectors, time.perf_counter() - started

    def _answer(self, batch: Sequence[_Item], vectors: Vectors, seconds: float) -> None:
        role = batch[0].request.role
        metrics.EMBED_BATCH_SECONDS.labels(role).observe(seconds)
        metrics.EMBED_BATCH_TEXTS.labels(role).observe(len(batch))
        metrics.EMBEDDED_TOKENS.labels(role).inc(sum(item.length for item in batch))
        self._texts_per_second += 0.2 * (len(batch) / max(seconds, 1e-4) - self._texts_per_second)
        done = set(batch)
        self._waiting = [item for item in self._waiting if item not in done]
        for item, vector in zip(batch, vectors, strict=True):
            request = item.request
            request.vectors[item.position] = vector
            request.missing -= 1
            if not request.missing and not request.answer.done():
                request.answer.set_result(np.stack([vector for vector in request.vectors if vector is not None]))

    def _fail(self, items: Iterable[_Item], cause: BaseException) -> None:
        for answer in [item.request.answer for item in items]:
            error = cause
            if not isinstance(cause, AzimuthError):
                error = ModelUnavailable(f"The embedder failed: {cause or type(cause).__name__}")
                error.__cause__ = cause
            if not answer.done():
                answer.set_exception(error)


def _callers(items: Iterable[_Item]) -> int:
    return len({item.request for item in items})
