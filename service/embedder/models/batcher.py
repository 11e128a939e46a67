"""Texts of concurrent callers share forward passes; a lone caller does not wait for company."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from service.core import metrics
from service.core.errors import AzimuthError, ModelUnavailable, Overloaded
from service.core.ids import Role, Vector, Vectors
from service.core.ports.embedder import Encoder


@dataclass(slots=True, eq=False)
class _Request:
    """One caller, and the vectors that it has so far."""

    role: Role
    answer: asyncio.Future[Vectors]
    vectors: list[Vector | None]
    missing: int


@dataclass(slots=True, eq=False)
class _Item:
    """One text of one caller. `length` in tokens, at most what the model takes; counted in the model's thread."""

    request: _Request
    place: int
    text: str
    arrival: int
    length: int = 0


@dataclass(slots=True)
class _Pass:
    items: list[_Item] = field(default_factory=list)
    vectors: Vectors | None = None
    tokens: int = 0
    seconds: float = 0.0


class Batcher:
    """Runs one encoder in a thread of its own. Use it from one event loop; `close` when done.

    The texts that came while the model was busy make the next batch; that is all the waiting there is, but for one
    short window where several callers are at it and more are likely to be on their way. A caller's first texts go
    before another caller's hundredth, so that a query is not held up by a bulk request.
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
        """Does anybody wait for vectors?"""
        return bool(self._waiting) or (self._runner is not None and not self._runner.done())

    async def embed(self, texts: Sequence[str], role: Role) -> Vectors:
        """Vectors of the texts, in order: [n, dimensions].

        Overloaded, with the time after which to come again, where too much waits. What fails a batch fails each
        caller in it: errors of ours as they are, any other as ModelUnavailable with its cause.
        """
        if not texts:
            return np.zeros((0, self._encoder.identity.dimensions), dtype=np.float32)
        # A request that is larger than the bound by itself is taken when nothing else waits: it could never else.
        if self._waiting and len(self._waiting) + len(texts) > self._most_waiting:
            raise Overloaded(
                f"{len(self._waiting)} texts wait for the embedder.",
                retry_after=max(1.0, len(self._waiting) / self._texts_per_second),
            )
        request = _Request(role, asyncio.get_running_loop().create_future(), [None] * len(texts), len(texts))
        self._arrivals += 1
        self._waiting.extend(_Item(request, place, text, self._arrivals) for place, text in enumerate(texts))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await request.answer

    async def close(self) -> None:
        """Fail whoever waits and end the thread, after the pass that runs."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        self._fail([item.request for item in self._waiting], ModelUnavailable("The embedder is shutting down."))
        self._waiting.clear()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    async def _run(self) -> None:
        """Until nothing waits. A failed batch is its callers' trouble, not the end of this."""
        loop = asyncio.get_running_loop()
        crowded = False
        while True:
            self._drop_finished()
            if not self._waiting:
                return
            if crowded or len({id(item.request) for item in self._waiting}) > 1:
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
                self._fail([item.request for item in candidates], ModelUnavailable("The embedder is shutting down."))
                raise
            except Exception as error:  # whatever the model raises must reach those who wait for it
                self._fail([item.request for item in encoded.items or candidates or self._waiting], error)
                continue
            self._answer(encoded)
            crowded = len({id(item.request) for item in encoded.items}) > 1

    async def _pause(self) -> None:
        await asyncio.sleep(self._window)

    def _drop_finished(self) -> None:
        """Forget texts whose caller has left or already got an error."""
        if any(item.request.answer.done() for item in self._waiting):
            self._waiting = [item for item in self._waiting if not item.request.answer.done()]

    def _next(self) -> list[_Item]:
        """What may go into the next pass, in order: one role, as prompts differ; no more than could ever fit."""
        self._waiting.sort(key=lambda item: (item.place, item.arrival))
        role = self._waiting[0].request.role
        most = max(1, self._budget // max(1, self._encoder.overhead(role) + 1))
        return [item for item in self._waiting if item.request.role == role][:most]

    def _encode(self, candidates: Sequence[_Item], encoded: _Pass) -> None:
        """In the model's thread: count tokens, take what fits the budget, encode it."""
        role = candidates[0].request.role
        uncounted = [item for item in candidates if not item.length]
        if len(candidates) > 1:
            most = self._encoder.identity.max_tokens
            for item, length in zip(
                uncounted, self._encoder.lengths([item.text for item in uncounted], role), strict=True
            ):
                item.length = max(1, min(length, most))
        longest = 0
        for item in candidates:
            longest = max(longest, item.length)
            if encoded.items and longest * (len(encoded.items) + 1) > self._budget:
                break
            encoded.items.append(item)
            encoded.tokens += item.length
        started = time.perf_counter()
        encoded.vectors = self._encoder.encode([item.text for item in encoded.items], role)
        encoded.seconds = time.perf_counter() - started

    def _answer(self, encoded: _Pass) -> None:
        assert encoded.vectors is not None
        role = encoded.items[0].request.role
        metrics.EMBED_BATCH_SECONDS.labels(role).observe(encoded.seconds)
        metrics.EMBED_BATCH_TEXTS.labels(role).observe(len(encoded.items))
        metrics.EMBEDDED_TOKENS.labels(role).inc(encoded.tokens)
        self._texts_per_second += 0.2 * (len(encoded.items) / max(encoded.seconds, 1e-4) - self._texts_per_second)
        done = set(map(id, encoded.items))
        self._waiting = [item for item in self._waiting if id(item) not in done]
        for item, vector in zip(encoded.items, encoded.vectors, strict=True):
            request = item.request
            request.vectors[item.place] = vector
            request.missing -= 1
            if not request.missing and not request.answer.done():
                request.answer.set_result(np.stack([vector for vector in request.vectors if vector is not None]))

    def _fail(self, requests: Sequence[_Request], cause: BaseException) -> None:
        for request in requests:
            if request.answer.done():
                continue
            if isinstance(cause, AzimuthError):
                request.answer.set_exception(cause)
                continue
            error = ModelUnavailable(f"The embedder failed: {cause or type(cause).__name__}")
            error.__cause__ = cause
            request.answer.set_exception(error)
