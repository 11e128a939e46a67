"""Which query is probed next: in turns, without favour, and what is remembered is bounded."""

import random
from collections import Counter

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


def filled(*queries: str, seed: int = 1) -> ProbeQueue[str]:
    """All of one kind, asked at second 0."""
    queue = new(seed)
    for query in queries:
        queue.add("kind", query, 1, 0.0)
    return queue


def probed(queue: ProbeQueue[str], now: float) -> str | None:
    logged = queue.next_query(now)
    return None if logged is None else logged.query


def remembered(queue: ProbeQueue[str]) -> int:
    return sum(len(kind.remembered) for kind in queue.values())


def test_without_queries_there_is_nothing_to_probe() -> None:
    assert probed(new(), 0.0) is None


def test_of_all_that_came_each_is_as_likely_to_wait() -> None:
    first = Counter(probed(filled(*"abc", seed=seed), 1.0) for seed in range(600))
    assert set(first) == {"a", "b", "c"}
    assert min(first.values()) > 150  # of 200, with a standard deviation of 12


def test_after_a_probe_only_what_came_since_waits() -> None:
    queue = filled("before")
    assert probed(queue, 1.0) == "before"
    queue.add("kind", "after", 1, 2.0)
    assert probed(queue, 3.0) == "after"


def test_kinds_take_turns_however_often_they_are_asked() -> None:
    queue, probes = new(), []
    for now in range(8):
        for _ in range(50):
            queue.add("frequent", "frequent", 1, now)
        queue.add("rare", "rare", 1, now)
        probes.append(probed(queue, now))
    assert Counter(probes) == {"frequent": 4, "rare": 4}


def test_where_none_waits_remembered_queries_are_probed_once_an_hour() -> None:
    queue = filled(*"abc")
    assert {probed(queue, now) for now in (1.0, 2.0, 3.0)} == {"a", "b", "c"}
    assert probed(queue, 4.0) is None
    assert probed(queue, 1.0 + REPEAT_SECONDS) is not None
    assert probed(queue, 1.5 + REPEAT_SECONDS) is None


def test_the_memory_of_a_kind_is_bounded_and_a_burst_does_not_displace_it() -> None:
    queue = filled(*(f"early {number}" for number in range(MAX_REMEMBERED)))
    for number in range(10 * MAX_REMEMBERED):
        queue.add("kind", f"burst {number}", 1, MEMORY_SECONDS * 1.5)
    assert remembered(queue) == MAX_REMEMBERED
    probes = [probed(queue, MEMORY_SECONDS * 2) for _ in range(MAX_REMEMBERED + 1)]
    assert sum(query is not None and query.startswith("early") for query in probes) == MAX_REMEMBERED - 1
    queue.add("kind", "late", 1, MEMORY_SECONDS * 3)
    assert remembered(queue) == MAX_REMEMBERED
    assert MEMORY_SECONDS * MAX_REMEMBERED >= 600, "memory is spread over minutes"


def test_kinds_are_bounded_and_the_one_asked_longest_ago_is_dropped() -> None:
    queue = new()
    for number in range(MAX_KINDS + 1):
        queue.add(number, str(number), 1, 0.0)
    assert remembered(queue) == MAX_KINDS
    assert {probed(queue, 1.0) for _ in range(MAX_KINDS)} == {str(number) for number in range(1, MAX_KINDS + 1)}


def test_bytes_are_bounded_and_released() -> None:
    queue = new()
    queue.add("large", "too large", MAX_QUERY_BYTES + 1, 0.0)
    assert (remembered(queue), queue.bytes) == (0, 0)
    for number in range(2 * MAX_BYTES // MAX_QUERY_BYTES):
        queue.add(f"kind {number % 32}", "large", MAX_QUERY_BYTES, number * MEMORY_SECONDS)
        assert queue.bytes <= MAX_BYTES
    assert queue.bytes > MAX_BYTES / 2
    queue.clear()
    assert (remembered(queue), queue.bytes, probed(queue, 1e9)) == (0, 0, None)
