"""Long work in threads leaves the event loop its turns."""

import time

import pytest

from service.core.concurrency import give_way, off_loop


def compute(seconds: float) -> float:
    """Returns how long it took."""
    began, end = time.perf_counter(), time.thread_time() + seconds
    while time.thread_time() < end:
        give_way()
    return time.perf_counter() - began


async def test_long_work_in_a_thread_computes_half_of_the_time() -> None:
    assert await off_loop(0, compute, 0.05) > 0.09


def test_nothing_else_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError(f"paused for {seconds} s")

    monkeypatch.setattr(time, "sleep", sleep)
    compute(0.005)
