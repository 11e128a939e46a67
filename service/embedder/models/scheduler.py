"""Forward passes of all models of a process, in turns, so that no caller silences another one.

One pass computes for about `PASS_SECONDS`, so nobody waits longer for a pass of somebody else that has begun. Work of
one pass comes before work of several and, where two passes may run at once, does not even wait for one of them. In
either class clients take turns, and so do the requests of one client: next is who waits longest since the last turn or,
before the first one, since arrival (round robin). While work of one pass keeps coming, work of several gets a turn
every `AGING_SECONDS`, so that none starves.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from service.core.caller import CALLER, Caller
from service.core.errors import AzimuthError, ModelUnavailable, Overloaded
from service.embedder.models.batch_packing import cheapest_packing
from service.embedder.models.pass_budget import PassBudget

PASS_SECONDS = 0.04
AGING_SECONDS = 0.25

T = TypeVar("T")


class PassModel(Protocol):
    """What runs a pass. Requests of equal ones may share it."""

    @property
    def kind(self) -> str:
        """What the model is, for whoever reads an error."""

    @property
    def budget(self) -> PassBudget: ...

    @property
    def pass_overhead(self) -> int:
        """Fixed cost of one more pass, in tokens."""

    def forward(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        """One row for each input. Called in a thread."""

    def record(self, inputs: Sequence[Any], seconds: float) -> None:
        """Count a pass that succeeded."""


@dataclass(slots=True, eq=False)
class _Work:
    """What one caller wants: rows for inputs, by index. `batches`: passes that are left to do, as indices.

    `short`: one pass is enough. `alone`: shares no pass any more, since one that it shared failed.
    """

    model: PassModel
    inputs: Sequence[Any]
    batches: deque[list[int]]
    short: bool
    answer: asyncio.Future[npt.NDArray[np.float32]]
    caller: Caller = field(default_factory=CALLER.get)
    alone: bool = False
    rows: dict[int, Any] = field(default_factory=dict)

    @property
    def next_lengths(self) -> list[int]:
        """Tokens of what the next pass reads."""
        return [len(self.inputs[at]) for at in self.batches[0]]


class _Turns:
    """Work that waits, in the order of its turns: by client, by request, and by arrival."""

    def __init__(self) -> None:
        self._waiting: list[_Work] = []
        self._since: dict[Caller | str, int] = {}
        """When a client or a request that waits had its last turn, or else came: the number of that event."""
        self._events = count()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, work: _Work) -> None:
        self._waiting.append(work)
        for key in (work.caller.client, work.caller):
            self._since.setdefault(key, next(self._events))

    def in_order(self) -> list[_Work]:
        return sorted(self._waiting, key=lambda work: (self._since[work.caller.client], self._since[work.caller]))

    def take(self, work: _Work) -> None:
        """Remove it where it waits. Its client, and its request, go behind the others."""
        if work not in self._waiting:
            return
        self._waiting.remove(work)
        waiting = {key for other in self._waiting for key in (other.caller.client, other.caller)}
        for key in (work.caller.client, work.caller):
            if key in waiting:
                self._since[key] = next(self._events)
            else:
                self._since.pop(key, None)


class PassScheduler:
    """Gives callers their turns. Use it from one event loop and `close` it at the end.

    `streams`: passes at once, each in a thread, of which neither class takes the last one. `pass_seconds`: how long a
    pass may take; None: as long as its tokens fit the device. `most_waiting`: texts that all clients together may have
    waiting, in equal shares. `window_seconds`: while several callers are active, a pass waits so long for more to share
    it; a lone caller is served without delay.
    """

    def __init__(
        self,
        *,
        streams: int = 1,
        pass_seconds: float | None = PASS_SECONDS,
        most_waiting: int = 4096,
        window_seconds: float = 0.001,
    ) -> None:
        self._streams, self._pass_seconds = streams, pass_seconds
        self._most_waiting, self._window = most_waiting, window_seconds
        self._short, self._long = _Turns(), _Turns()
        self._running = Counter[bool]()
        """Passes of short work (True) and of long work."""
        self._long_turn = 0.0
        self._waiting: dict[str, int] = {}
        self._texts_per_second = 100.0
        self._sharing = False
        self._runners: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(streams, thread_name_prefix="model")
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenize")

    @contextmanager
    def admit(self, texts: int, kind: str) -> Iterator[None]:
        """Count so many texts of the caller as waiting while the block runs.

        Overloaded, with a time to retry after, where the client has more than its share waiting. A request alone is
        always admitted: a large one could never be otherwise.
        """
        client = CALLER.get().client
        own = self._waiting.get(client, 0)
        if own and own + texts > self._most_waiting // len(self._waiting):
            after = max(1.0, own / self._texts_per_second)
            raise Overloaded(f"{own} texts of yours wait for the {kind}.", retry_after=after)
        self._waiting[client] = own + texts
        try:
            yield
        finally:
            self._waiting[client] -= texts
            if not self._waiting[client]:
                del self._waiting[client]

    async def tokenize(self, work: Callable[[], T]) -> T:
        """Run a small part of somebody's tokenizing in the thread for it: parts of several callers take turns."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    async def run(self, model: PassModel, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        """The rows of the inputs, in order.

        A failed pass fails its caller: errors of the service as they are, any other as ModelUnavailable with its cause.
        A caller that is cancelled takes the passes along that have not begun.
        """
        lengths, budget = list(map(len, inputs)), self._budget(model)
        batches = cheapest_packing(lengths, budget, model.pass_overhead)
        answer: asyncio.Future[npt.NDArray[np.float32]] = asyncio.get_running_loop().create_future()
        work = _Work(model, inputs, deque(batches), len(batches) == 1, answer)
        self._enqueue(work)
        if len(self._runners) < self._streams:
            self._runners.add(asyncio.create_task(self._serve()))
        try:
            return await answer
        finally:
            self._short.take(work)
            self._long.take(work)

    async def close(self) -> None:
        """Fail all waiting callers and end the threads, after the passes that run."""
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        for work in [*self._short.in_order(), *self._long.in_order()]:
            _fail(work, ModelUnavailable("The models are shutting down."))
        for threads in (self._threads, self._tokenizing):
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)

    def _budget(self, model: PassModel) -> int:
        return model.budget.tokens(self._pass_seconds)

    def _enqueue(self, work: _Work) -> None:
        if not work.short and not self._long:
            self._long_turn = time.monotonic()
        (self._short if work.short else self._long).add(work)

    async def _serve(self) -> None:
        """Run passes until nothing waits that may run."""
        runner = asyncio.current_task()
        assert runner is not None
        try:
            while True:
                if len(self._short) > (not self._sharing):  # more callers are likely to come
                    await self._pause()
                works = self._next()
                if not works:
                    return
                self._running[works[0].short] += 1
                try:
                    await self._pass(works)
                finally:
                    self._running[works[0].short] -= 1
        finally:
            self._runners.discard(runner)  # at once, so that what comes next finds no runner that is about to end

    async def _pause(self) -> None:
        await asyncio.sleep(self._window)

    def _next(self) -> list[_Work]:
        """Whose turn it is; several, where they fit into one pass."""
        due = not self._short or time.monotonic() - self._long_turn > AGING_SECONDS
        most = max(1, self._streams - 1)
        works: list[_Work] = []
        if self._long and due and self._running[False] < most:
            works = self._long.in_order()[:1]
            self._long_turn = time.monotonic()
        elif self._running[True] < most:
            works = self._fitting(self._short.in_order())
            self._sharing = len(works) > 1
        for work in works:
            (self._short if work.short else self._long).take(work)
        return works

    def _fitting(self, waiting: Sequence[_Work]) -> list[_Work]:
        """The first, and those of the others that may share its pass."""
        works = list(waiting[:1])
        if not works or works[0].alone:
            return works
        model = works[0].model
        budget, lengths = self._budget(model), works[0].next_lengths
        for work in waiting[1:]:
            together = [*lengths, *work.next_lengths]
            if work.model == model and not work.alone and max(together) * len(together) <= budget:
                works.append(work)
                lengths = together
        return works

    async def _pass(self, works: Sequence[_Work]) -> None:
        """Run the next batch of each as one pass."""
        model = works[0].model
        inputs = [work.inputs[at] for work in works for at in work.batches[0]]
        started = time.perf_counter()
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._threads, model.forward, inputs)
        except asyncio.CancelledError:
            for work in works:
                _fail(work, ModelUnavailable("The models are shutting down."))
            raise
        except Exception as error:  # a model can raise anything
            if isinstance(error, MemoryError):
                model.budget.shrink(_padded(inputs))
            for work in works:
                self._retry(work, error, shared=len(works) > 1)
            return
        seconds = time.perf_counter() - started
        model.budget.record(_padded(inputs), seconds)
        model.record(inputs, seconds)
        self._texts_per_second += 0.2 * (len(inputs) / max(seconds, 1e-4) - self._texts_per_second)
        results = iter(rows)
        for work in works:
            work.rows.update((at, next(results)) for at in work.batches.popleft())
            if work.answer.done():  # its caller has left
                continue
            if work.batches:
                self._enqueue(work)
            else:
                work.answer.set_result(np.array([work.rows[at] for at in range(len(work.inputs))]))

    def _retry(self, work: _Work, error: Exception, *, shared: bool) -> None:
        """Work whose pass failed goes on alone, to spare others its fault; in halves, where memory was short."""
        batch = work.batches[0]
        if isinstance(error, MemoryError) and len(batch) > 1:
            half = len(batch) // 2
            work.batches[0] = batch[:half]
            work.batches.insert(1, batch[half:])
        elif isinstance(error, AzimuthError) or not shared:
            _fail(work, error)
        if not work.answer.done():
            work.alone = True
            self._enqueue(work)


def _padded(inputs: Sequence[Any]) -> int:
    return max(map(len, inputs)) * len(inputs)


def _fail(work: _Work, cause: Exception) -> None:
    error = cause
    if not isinstance(cause, AzimuthError):
        error = ModelUnavailable(f"The {work.model.kind} failed: {cause or type(cause).__name__}")
        error.__cause__ = cause
    if not work.answer.done():
        work.answer.set_exception(error)
