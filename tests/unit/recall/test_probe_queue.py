"""What waits to be looked at and what is remembered: in turns, without favour, and bounded."""

import random
from collections import Counter

from service.recall import probe_queue
from service.recall.probe_queue import (
    MAX_BYTES,
    MAX_KINDS,
    MAX_QUERY_BYTES,
    MAX_REMEMBERED,
    MEMORY_SECONDS,
    REPEAT_SECONDS,
    ProbeQueue,
)


def new(seed: int = 1) -> ProbeQueue[str]:
    return ProbeQueue(random.Random(seed))


def taken(of: ProbeQueue[str], now: float) -> str | None:
    kept = of.next_query(now)
    return None if kept is None else kept.query


def test_where_nothing_was_asked_there_is_nothing_to_look_at() -> None:
    assert taken(new(), 0.0) is None


def test_of_all_that_came_each_is_as_likely_to_wait() -> None:
    seen: Counter[str] = Counter()
    for seed in range(600):
        of = new(seed)
        for name in "abc":
            of.add("kind", name, 1, 0.0)
        first = taken(of, 1.0)
        assert first is not None
        seen[first] += 1
    assert set(seen) == {"a", "b", "c"}
    assert min(seen.values()) > 150  # of 200, with a standard deviation of 12


def test_after_a_look_only_what_came_since_waits() -> None:
    of = new()
    of.add("kind", "before", 1, 0.0)
    assert taken(of, 1.0) == "before"
    of.add("kind", "after", 1, 2.0)
    assert taken(of, 3.0) == "after"


def test_kinds_take_turns_however_often_they_are_asked() -> None:
    of, looks = new(), []
    for now in range(8):
        for _ in range(50):
            of.add("frequent", "frequent", 1, now)
        of.add("rare", "rare", 1, now)
        looks.append(taken(of, now))
    assert Counter(looks) == {"frequent": 4, "rare": 4}


def test_where_nothing_waits_what_is_remembered_is_looked_at_once_an_hour() -> None:
    of = new()
    for name in "abc":
        of.add("kind", name, 1, 0.0)
    assert {taken(of, now) for now in (1.0, 2.0, 3.0)} == {"a", "b", "c"}
    assert taken(of, 4.0) is None
    assert taken(of, 1.0 + REPEAT_SECONDS) is not None
    assert taken(of, 1.5 + REPEAT_SECONDS) is None


def test_one_kind_remembers_so_many_and_a_burst_does_not_push_out_all_others() -> None:
    of = new()
    for number in range(MAX_REMEMBERED):
        of.add("kind", f"early {number}", 1, 0.0)
    for number in range(10 * MAX_REMEMBERED):
        of.add("kind", f"burst {number}", 1, MEMORY_SECONDS * 1.5)
    assert len(of) == MAX_REMEMBERED
    remembered = [of.next_query(MEMORY_SECONDS * 2) for _ in range(MAX_REMEMBERED + 1)]
    assert sum(one is not None and one.query.startswith("early") for one in remembered) == MAX_REMEMBERED - 1
    of.add("kind", "late", 1, MEMORY_SECONDS * 3)
    assert len(of) == MAX_REMEMBERED


def test_kinds_are_bounded_and_the_one_seen_longest_ago_goes() -> None:
    of = new()
    for number in range(MAX_KINDS + 1):
        of.add(number, str(number), 1, 0.0)
    assert len(of) == MAX_KINDS
    assert {taken(of, 1.0) for _ in range(MAX_KINDS)} == {str(number) for number in range(1, MAX_KINDS + 1)}


def test_bytes_are_bounded_and_given_back() -> None:
    of = new()
    of.add("large", "too large", MAX_QUERY_BYTES + 1, 0.0)
    assert (len(of), of.bytes) == (0, 0)
    most = MAX_BYTES // MAX_QUERY_BYTES
    for number in range(2 * most):
        of.add(f"kind {number % 32}", "large", MAX_QUERY_BYTES, number * MEMORY_SECONDS)
        assert of.bytes <= MAX_BYTES
    assert of.bytes > MAX_BYTES / 2
    for number in range(32):
        of.forget(f"kind {number}")
    assert (len(of), of.bytes) == (0, 0)


def test_what_is_forgotten_is_not_looked_at() -> None:
    of = new()
    of.add("kind", "a", 1, 0.0)
    of.forget("kind")
    of.forget("never known")
    assert taken(of, 1.0) is None


def test_memory_is_spread_over_minutes() -> None:
    assert probe_queue.MEMORY_SECONDS * MAX_REMEMBERED >= 600
