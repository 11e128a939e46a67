"""Long work in threads leaves the event loop its turns."""

import time

import pytest

from service.core.concurrency import give_way, off_loop, release, requests_under_way


def sleep(seconds: float) -> None:
    raise AssertionError(f"paused for {seconds} s")


def compute(seconds: float) -> float:
    """Returns how long it took."""
    began, end = time.perf_counter(), time.thread_time() + seconds
    while time.thread_time() < end:
        give_way()
    return time.perf_counter() - began


async def test_beside_other_requests_long_work_in_a_thread_computes_half_of_the_time() -> None:
    with requests_under_way, requests_under_way:
        assert await off_loop(0, compute, 0.05) > 0.09


async def test_the_work_of_a_single_request_leaves_its_core_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with requests_under_way:
        await off_loop(0, compute, 0.02)
    assert pauses
    assert sum(pauses) < 0.02 / 5


def test_nothing_else_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", sleep)
    with requests_under_way, requests_under_way:
        compute(0.005)


def test_a_long_list_is_released_in_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    elements = list(range(1_700))
    monkeypatch.setattr("service.core.concurrency.give_way", lambda: sizes.append(len(elements)))
    release(elements)
    assert sizes == [1_200, 700, 200, 0]
