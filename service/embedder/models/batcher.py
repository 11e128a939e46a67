"""Texts of concurrent callers share forward passes; a single caller is served without delay."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

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


@dataclass(slots=True)
class _Pass:
    items: list[_Item] = field(default_factory=list)
    vectors: Vectors | None = None
    seconds: float = 0.0


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
        self._encoder = encoder
        self._budget = batch_tokens
        self._most_waiting = most_waiting
        self._window = window_seconds
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
            raise Overloaded(
                f"{len(self._waiting)} texts wait for the embedder.",
                retry_after=max(1.0, len(self._waiting) / self._texts_per_second),
            )
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
            encoded = _Pass()
            try:
                candidates = self._next()
                await loop.run_in_executor(self._thread, self._encode, candidates, encoded)
            except asyncio.CancelledError:
                self._fail(candidates, ModelUnavailable("The embedder is shutting down."))
                raise
            except Exception as error:  # any error of the model must reach the callers
                self._fail(encoded.items or candidates or self._waiting, error)
                continue
            self._answer(encoded)
            several_callers = _callers(encoded.items) > 1

    async def _pause(self) -> None:
        await asyncio.sleep(self._window)

    def _drop_finished(self) -> None:
        """Drop texts whose caller was cancelled or already got an error."""
        if any(item.request.answer.done() for item in self._waiting):
            self._waiting = [item for item in self._waiting if not item.request.answer.done()]

    def _next(self) -> list[_Item]:
        """Candidates for the next pass, in order: of one role, since prompts differ, and no more than could fit."""
        self._waiting.sort(key=lambda item: (item.position, item.arrival))
        role = self._waiting[0].request.role
        most = max(1, self._budget // max(1, self._encoder.overhead(role) + 1))
        return [item for item in self._waiting if item.request.role == role][:most]

    def _encode(self, candidates: Sequence[_Item], encoded: _Pass) -> None:
        """In the model's thread: count tokens, take as many texts as fit the budget, encode them."""
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
            if encoded.items and longest * (len(encoded.items) + 1) > self._budget:
                break
            encoded.items.append(item)
        started = time.perf_counter()
        encoded.vectors = self._encoder.encode([item.text for item in encoded.items], role)
        encoded.seconds = time.perf_counter() - started

    def _answer(self, encoded: _Pass) -> None:
        assert encoded.vectors is not None
        role = encoded.items[0].request.role
        metrics.EMBED_BATCH_SECONDS.labels(role).observe(encoded.seconds)
        metrics.EMBED_BATCH_TEXTS.labels(role).observe(len(encoded.items))
        metrics.EMBEDDED_TOKENS.labels(role).inc(sum(item.length for item in encoded.items))
        self._texts_per_second += 0.2 * (len(encoded.items) / max(encoded.seconds, 1e-4) - self._texts_per_second)
        done = set(map(id, encoded.items))
        self._waiting = [item for item in self._waiting if id(item) not in done]
        for item, vector in zip(encoded.items, encoded.vectors, strict=True):
            request = item.request
            request.vectors[item.position] = vector
            request.missing -= 1
            if not request.missing and not request.answer.done():
                request.answer.set_result(np.stack([vector for vector in request.vectors if vector is not None]))

    def _fail(self, items: Iterable[_Item], cause: BaseException) -> None:
        for answer in [item.request.answer for item in items]:
            if answer.done():
                continue
            if isinstance(cause, AzimuthError):
                answer.set_exception(cause)
                continue
            error = ModelUnavailable(f"The embedder failed: {cause or type(cause).__name__}")
            error.__cause__ = cause
            answer.set_exception(error)


def _callers(items: Iterable[_Item]) -> int:
    return len({id(item.request) for item in items})
