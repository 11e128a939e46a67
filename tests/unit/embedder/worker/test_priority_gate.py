"""Whose pass comes next, and how fast a backfill may go."""

import asyncio
from contextlib import suppress

import pytest

from service.core.jobs import Lane
from service.core.ports.embedder import Encoder
from service.embedder.worker.priority_gate import PriorityGate
from service.embedder.worker.rate_limit import RateLimit
from tests.encoders import ScriptedEncoder


def streaming(streams: int) -> ScriptedEncoder:
    encoder = ScriptedEncoder()
    encoder.streams = streams
    return encoder


class Passes:
    """Passes that end when they are told to; notes the order in which they began."""

    def __init__(self, gate: PriorityGate) -> None:
        self._gate = gate
        self.began: list[str] = []
        self.at_once = self.most = 0
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def wants(self, name: str, encoder: Encoder, lane: Lane) -> None:
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._run(name, encoder, lane))
        await self.settle()

    async def _run(self, name: str, encoder: Encoder, lane: Lane) -> None:
        async with self._gate.slot(encoder, lane):
            self.began.append(name)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            try:
                await self._ends[name].wait()
            finally:
                self.at_once -= 1

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await self.tasks[name]
            await self.settle()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        with suppress(asyncio.CancelledError):
            await self.tasks[name]
        await self.settle()

    async def settle(self) -> None:
        """Nothing here waits for anything outside, so some rounds of the loop are as far as it goes."""
        for _ in range(10):
            await asyncio.sleep(0)


async def test_a_live_pass_waits_for_one_pass_at_most() -> None:
    encoder, passes = streaming(1), Passes(PriorityGate())
    for name in ("b1", "b2", "b3"):
        await passes.wants(name, encoder, "backfill")
    await passes.wants("l1", encoder, "live")
    await passes.wants("l2", encoder, "live")
    assert passes.began == ["b1"]
    await passes.end("b1", "l1", "l2", "b2", "b3")
    assert passes.began == ["b1", "l1", "l2", "b2", "b3"]
    assert passes.most == 1


async def test_as_many_at_once_as_the_encoder_says_and_two_at_most() -> None:
    passes, encoder = Passes(PriorityGate()), streaming(5)
    for name in ("b1", "b2", "b3"):
        await passes.wants(name, encoder, "backfill")
    assert passes.began == ["b1", "b2"]
    await passes.end("b2", "b1", "b3")


async def test_encoders_do_not_wait_for_each_other() -> None:
    passes, first, second = Passes(PriorityGate()), streaming(1), streaming(1)
    await passes.wants("b", first, "backfill")
    await passes.wants("l", second, "live")
    assert passes.began == ["b", "l"]
    await passes.end("b", "l")


async def test_whoever_leaves_makes_room() -> None:
    encoder, passes = streaming(1), Passes(PriorityGate())
    await passes.wants("b1", encoder, "backfill")
    await passes.wants("l1", encoder, "live")
    await passes.wants("b2", encoder, "backfill")
    await passes.cancel("l1")
    await passes.cancel("b1")
    assert passes.began == ["b1", "b2"]
    await passes.end("b2")


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize("rate", [0.5, 3.0, 40.0, 900.0])
def test_over_time_the_rate_is_kept_and_used_up(rate: float) -> None:
    clock = Clock()
    limit = RateLimit(rate, clock)
    taken = 0
    for _ in range(6_000):  # ten minutes, looked at every 100 ms
        clock.seconds += 0.1
        count = limit.available(64)
        while count:
            limit.consume(count)
            taken += count
            count = limit.available(64)
    assert 0.98 * 600 * rate <= taken <= 600 * rate


@pytest.mark.parametrize(
    ("rate", "steps"),
    [
        pytest.param(0, [(0, 500, 500, 500), (0, 500, 500, 0)], id="without a rate all is allowed"),
        pytest.param(20, [(3600, 1_000, 20, 20), (0, 1_000, 0, 0)], id="what is saved up is a second at most"),
        pytest.param(40, [(0.125, 64, 0, 0), (0, 5, 5, 0), (0.125, 64, 10, 0)], id="a portion is worth the way"),
        pytest.param(10, [(1, 8, 8, 2), (0, 64, 8, 0)], id="what is not taken stays"),
    ],
)
def test_what_may_be_taken(rate: float, steps: list[tuple[float, int, int, int]]) -> None:
    clock = Clock()
    limit = RateLimit(rate, clock)
    for seconds, wanted, available, taken in steps:
        clock.seconds += seconds
        assert limit.available(wanted) == available
        limit.consume(taken)
