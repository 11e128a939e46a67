"""Entries that expired are not there any more, and take no memory."""

import time

import pytest

from service.core.expiring import ExpiringDict


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_entries_expire(clock: list[float]) -> None:
    known = ExpiringDict[str, int]()
    known.put("a", 1, seconds=1.0)
    clock[0] += 0.9
    assert known.get("a") == 1
    clock[0] += 0.1
    assert known.get("a") is None


def test_what_nobody_asks_for_again_is_removed(clock: list[float]) -> None:
    known = ExpiringDict[int, int]()
    for number in range(10_000):
        known.put(number, number, seconds=1.0)
        clock[0] += 0.1
    assert len(known) <= 11
    assert known.get(9_999) == 9_999


def test_an_entry_that_is_put_again_lives_longer_and_keeps_no_other_alive(clock: list[float]) -> None:
    known = ExpiringDict[str, int]()
    for key in ("a", "b"):
        known.put(key, 1, seconds=1.0)
    clock[0] += 0.5
    known.put("a", 2, seconds=1.0)
    clock[0] += 0.6
    known.put("c", 3, seconds=1.0)
    assert [known.get(key) for key in "abc"] == [2, None, 3]
    assert len(known) == 2


def test_entries_are_forgotten_on_demand() -> None:
    known = ExpiringDict[tuple[str, int], int]()
    for key in (("a", 1), ("a", 2), ("b", 1)):
        known.put(key, 1, seconds=60.0)
    known.forget(lambda key: key[0] == "a")
    assert [known.get(key) for key in (("a", 1), ("a", 2), ("b", 1))] == [None, None, 1]
