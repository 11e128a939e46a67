"""How many requests are admitted at once: those that are worked on, and a few that wait, whatever the machine."""

import heapq
import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.admission import (
    PROBE_EVERY_SECONDS,
    QUIET,
    QUIET_SAMPLES,
    RESERVE,
    WAITING,
    Admission,
    AdmissionLimit,
)
from service.core.errors import Overloaded

MOST = 64


class Machine:
    """Works on `parallel` requests at once, each for about `seconds`, in the order they came; by its own clock."""

    def __init__(self, parallel: int = 2, seconds: float = 0.02, most: int = MOST) -> None:
        self.now, self.seconds = 0.0, seconds
        self.limit = AdmissionLimit(most, clock=lambda: self.now)
        self._free_at = [0.0] * parallel
        self._ends: list[tuple[float, int, Admission]] = []
        self._numbers = itertools.count()

    def ask(self, client: str = "one") -> bool:
        admission = Admission(self.limit, client)
        try:
            admission.start()
        except Overloaded:
            return False
        number = next(self._numbers)
        takes = self.seconds * (0.6 + 0.8 * (number * 0.618 % 1))
        end = max(self.now, heapq.heappop(self._free_at)) + takes
        heapq.heappush(self._free_at, end)
        heapq.heappush(self._ends, (end, number, admission))
        return True

    def answer(self) -> None:
        self.now, _, admission = heapq.heappop(self._ends)
        admission.finish(answered=True)

    def quiet(self, requests: int = QUIET_SAMPLES) -> None:
        for _ in range(requests):
            assert self.ask()
            self.answer()

    def flood(self, answers: int, clients: Callable[[int], str] = lambda _: "one") -> int:
        """So many answers while all that asks is admitted that can be; the most requests under way at once."""
        most = 0
        for number in range(answers):
            while self.ask(clients(number)):
                pass
            most = max(most, self.limit.under_way)
            self.answer()
        return most

    def drain(self) -> None:
        while self._ends:
            self.answer()


@given(parallel=st.integers(1, 40), seconds=st.floats(0.001, 0.05))  # so short that there is no probe
def test_in_an_overload_a_few_wait_and_the_machine_is_busy(parallel: int, seconds: float) -> None:
    machine = Machine(parallel, seconds)
    machine.quiet()
    machine.flood(600)
    assert parallel + WAITING - 3 <= machine.flood(100) <= parallel + WAITING + 3


@given(
    most=st.integers(1, 100),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0001, 100.0), st.booleans()), max_size=120),
)
def test_what_began_ends_and_there_are_never_more_than_the_most_with_the_reserve(
    most: int, steps: list[tuple[str, float, bool]]
) -> None:
    now = 0.0
    limit = AdmissionLimit(most, clock=lambda: now)
    under_way: list[Admission] = []
    for client, seconds, ends in steps:
        admission = Admission(limit, client)
        try:
            admission.start()
            under_way.append(admission)
        except Overloaded:
            assert len(under_way) >= limit.current
        now += seconds
        if ends and under_way:
            done = under_way.pop(0)
            done.finish(answered=seconds < 10)
            done.finish(answered=True)  # only the first counts
        assert limit.under_way == len(under_way) <= math.ceil(most * (1 + RESERVE))  # at least one place
        assert 1 <= limit.current <= most
    for one in under_way:
        one.finish(answered=True)
    assert not limit.under_way


def test_clients_that_ask_in_turns_are_not_refused() -> None:
    machine = Machine(parallel=2)
    machine.quiet()
    for client in range(WAITING):
        assert machine.ask(str(client))
    for client in range(2_000):
        machine.answer()
        assert machine.ask(str(client % WAITING))


def test_a_client_that_has_nothing_under_way_is_admitted_beside_a_flood() -> None:
    machine = Machine()
    machine.quiet()
    machine.flood(200)
    while machine.ask("flood"):
        pass
    assert machine.ask("calm")
    assert not machine.ask("calm")
    assert machine.ask("another")


def test_the_limit_recovers_as_soon_as_the_flood_ends() -> None:
    machine = Machine()
    machine.quiet()
    machine.flood(1_000)
    machine.drain()
    assert all(machine.ask() for _ in range(WAITING))


def test_requests_that_take_longer_than_before_do_not_shrink_the_limit_for_good() -> None:
    """Without quiet moments their own time would look like waiting; after a while the limit is lowered to see it."""
    machine = Machine(parallel=30, seconds=0.01)
    machine.quiet()
    machine.flood(600)
    machine.seconds = 0.2
    machine.flood(600)
    assert machine.limit.current < 20
    while machine.now < 1.5 * PROBE_EVERY_SECONDS:
        machine.flood(100)
    assert machine.limit.current >= 0.8 * (30 + WAITING)


def test_a_probe_ends_also_where_nobody_asks_any_more() -> None:
    machine = Machine()
    machine.quiet()
    machine.flood(50)
    machine.now += PROBE_EVERY_SECONDS + 1
    while machine.ask():
        pass
    assert machine.limit.current == QUIET
    machine.now += 6.0
    assert machine.limit.current >= WAITING


@pytest.mark.parametrize("most", [1, 3, WAITING])
def test_a_setting_below_the_floor_is_kept(most: int) -> None:
    machine = Machine(most=most)
    machine.quiet()
    assert machine.flood(300) == most


def test_failures_teach_nothing() -> None:
    machine = Machine()
    machine.quiet()
    before = machine.limit.current
    for _ in range(100):
        admissions = [Admission(machine.limit, "one") for _ in range(before)]
        for admission in admissions:
            admission.start()
        for admission in admissions:
            machine.now += 1.0
            admission.finish(answered=False)
    assert machine.limit.current == before
