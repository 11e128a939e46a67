"""The policy of `ef_search`: its ladder, the first decision, the next ones, and a simulated hour of traffic."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from service.core import limits
from service.core.ids import VersionNumber
from service.core.recall import Band, CalibrationCurve, CurvePoint, RecallMinute, RecallSeries, RecallStats
from service.recall import ef_policy
from service.recall.ef_policy import EF_STEPS, ProbeHistory

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE = VersionNumber(1)
TARGETS = (0.90, 0.95, 0.99)


def at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


def stats(recall: float, queries: int, deviation: float = 0.1) -> RecallStats:
    total, squares = queries * recall, queries * (recall**2 + deviation**2)
    return RecallStats(queries=queries, recall=total, recall_squares=squares, distance_recall=total)


def minute(ef_search: int, found: RecallStats, when: float = 0, plan: str = "hnsw", band: Band = "all") -> RecallMinute:
    series = RecallSeries(version=ONE, leg="dense", plan=plan, band=band, ef_search=ef_search)
    return RecallMinute(series=series, at=at(when), stats=found)


def probes(found: Mapping[int, RecallStats], when: float = 0) -> ProbeHistory:
    return ProbeHistory.of((minute(ef_search, one, when) for ef_search, one in found.items()), ONE, "all")


def curve(lows: Mapping[int, float], above: float = 0.01) -> CalibrationCurve:
    points = tuple(
        CurvePoint(ef_search=ef, recall=min(1.0, low + above), low=low, high=1.0, milliseconds=1.0)
        for ef, low in sorted(lows.items())
    )
    return CalibrationCurve(points=points, queries=200, rows=1, measured_at=START, exact_milliseconds=1.0)


def test_the_ladder_goes_from_what_is_promised_to_what_pgvector_takes() -> None:
    assert (EF_STEPS[0], EF_STEPS[-1]) == (10, limits.MAX_EF_SEARCH)
    steps = [upper / lower for lower, upper in itertools.pairwise(EF_STEPS)]
    assert all(1 < step <= 1.34 for step in steps)  # ten is a small number to take a quarter of


def test_steps_below_and_above_are_found_from_anywhere() -> None:
    starts = (EF_STEPS[3], EF_STEPS[3] + 1, 10, 1_000)
    found = [(ef_policy.previous_step(start), ef_policy.next_step(start)) for start in starts]
    assert found == [(EF_STEPS[2], EF_STEPS[4]), (EF_STEPS[3], EF_STEPS[4]), (None, EF_STEPS[1]), (EF_STEPS[-2], None)]


def test_what_is_shifted_keeps_its_distance_as_far_as_the_ladder_goes() -> None:
    assert ef_policy.shifted(EF_STEPS[7], EF_STEPS[5], EF_STEPS[9]) == EF_STEPS[11]
    assert ef_policy.shifted(EF_STEPS[5], EF_STEPS[9], EF_STEPS[2]) == EF_STEPS[0]
    assert ef_policy.shifted(EF_STEPS[-1], EF_STEPS[5], EF_STEPS[9]) == EF_STEPS[-1]


def test_it_begins_with_the_smallest_that_is_sure_to_hold() -> None:
    lows = {10: 0.80, 48: 0.949, 60: 0.951, 1_000: 0.99}
    assert ef_policy.initial_decision(curve(lows), 0.95).ef_search == 60
    assert ef_policy.initial_decision(curve(lows), 0.99).ef_search == 1_000


def test_where_none_is_sure_it_begins_with_the_largest_and_says_so_only_if_that_misses() -> None:
    unsure = ef_policy.initial_decision(curve({10: 0.5, 1_000: 0.94}, above=0.02), 0.95)
    missed = ef_policy.initial_decision(curve({10: 0.5, 1_000: 0.93}), 0.95)
    assert [(one.ef_search, one.target_missed) for one in (unsure, missed)] == [(1_000, False), (1_000, True)]
    assert "misses the target 0.95" in missed.reason


def test_probes_overrule_the_curve() -> None:
    lows = {48: 0.96, 60: 0.97, 75: 0.98}
    assert ef_policy.initial_decision(curve(lows), 0.95, probes({60: stats(0.90, 1_000)})).ef_search == 75
    assert ef_policy.initial_decision(curve(lows), 0.95, probes({60: stats(0.96, 1_000)})).ef_search == 48
    assert ef_policy.initial_decision(curve(lows), 0.95, probes({75: stats(0.90, 1_000)})).target_missed


def step(now: int, found: ProbeHistory, *, changed: float = -1, filtered: bool = False) -> int | None:
    decision = ef_policy.next_decision(now, False, 0.95, found, at(changed), filtered=filtered)
    return None if decision is None else decision.ef_search


FEW, MANY = ef_policy.MIN_PROBES - 1, ef_policy.CERTAIN_PROBES


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param({60: stats(0.5, FEW), 48: stats(1.0, FEW, 0.0)}, None, id="few probes move nothing"),
        pytest.param({60: stats(0.92, 1_000)}, 75, id="it misses"),
        pytest.param({60: stats(0.949, 1_000)}, None, id="it may well hold"),
        pytest.param({60: stats(0.949, MANY)}, 75, id="it most likely misses"),
        pytest.param({100: stats(0.92, 1_000)}, 116, id="a larger one misses, so it does too"),
        pytest.param({40: stats(0.5, 1_000)}, None, id="a smaller one misses"),
        pytest.param({60: stats(0.98, 1_000), 48: stats(0.97, 1_000)}, 48, id="that below holds for sure"),
        pytest.param({60: stats(0.98, 1_000), 48: stats(0.951, 1_000)}, None, id="that below may miss"),
        pytest.param({60: stats(0.98, 1_000), 38: stats(0.99, 1_000)}, None, id="nothing is known of that below"),
    ],
)
def test_probes_move_it_by_a_step(found: Mapping[int, RecallStats], expected: int | None) -> None:
    assert step(60, probes(found)) == expected


def test_what_was_found_before_the_last_change_is_not_enough_to_go_down() -> None:
    known = probes({48: stats(0.97, 1_000)}, when=5)
    assert step(60, known, changed=4) == 48
    assert step(60, known, changed=6) is None


def test_a_step_that_ever_missed_is_not_tried_again() -> None:
    bad = minute(48, stats(0.90, 300), 1)
    good = [minute(48, stats(0.98, 2_000), when) for when in range(10, 40)]
    assert step(60, ProbeHistory.of(good, ONE, "all"), changed=5) == 48
    assert step(60, ProbeHistory.of([bad, *good], ONE, "all"), changed=5) is None


def test_a_decay_shows_in_the_last_probes_first() -> None:
    good = [minute(60, stats(0.97, 1_000), when) for when in range(50)]
    assert step(60, ProbeHistory.of([*good, minute(60, stats(0.88, 300), 51)], ONE, "all")) == 75


def test_that_the_largest_misses_is_decided_once_and_taken_back() -> None:
    def decided(recall: float, target_missed: bool) -> tuple[int, bool] | None:
        found = probes({1_000: stats(recall, 1_000)})
        decision = ef_policy.next_decision(1_000, target_missed, 0.95, found, at(-1))
        return None if decision is None else (decision.ef_search, decision.target_missed)

    assert decided(0.9, False) == (1_000, True)
    assert decided(0.9, True) is None
    assert decided(0.97, True) == (1_000, False)


def test_other_plans_and_bands_do_not_count() -> None:
    others = [minute(60, stats(0.5, 1_000), plan="hnsw_iterative"), minute(60, stats(0.5, 1_000), band="wide")]
    assert step(60, ProbeHistory.of(others, ONE, "all")) is None
    assert not ProbeHistory.of(others, VersionNumber(2), "wide").by_ef_search


def test_under_filters_all_probes_of_the_band_are_taken_together() -> None:
    def under(recall: float, queries: int, now: int = 60) -> int | None:
        found = (minute(ef, stats(recall, queries // 4), band="wide") for ef in (183, 240, 611, 1_000))
        return step(now, ProbeHistory.of(found, ONE, "wide"), filtered=True)

    assert under(0.90, 1_000) == 75
    assert under(0.955, 1_000) is None
    assert under(0.99, 1_000) == 48
    assert under(0.90, 1_000, now=1_000) == 1_000


@dataclass
class Traffic:
    """Searches whose k neighbours are found or lost together, more or less: beta-binomial, correlation 0.15.

    The current step and the one below are probed, as `DenseProbe` does. `misses`: the share that is missed at an
    ef_search of 100; it falls with a power of ef_search, as measured (docs/decisions/0010).
    """

    seed: int
    target: float
    missing: Callable[[float], float] = lambda _: 1.0
    per_minute: int = 60
    path: list[int] = field(default_factory=list)
    missed: bool = False

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.misses = 0.079 * self.rng.uniform(0.75, 1.3)
        self.power = 1.2 * self.rng.uniform(0.85, 1.25)
        self.found: dict[tuple[float, int], RecallStats] = {}
        self.changed_at = START
        self.calibrate(0.0)

    def recall(self, ef_search: int, when: float) -> float:
        missed: float = self.misses * self.missing(when) * (ef_search / 100) ** -self.power
        return 1 - min(0.999, missed)

    def probe(self, ef_search: int, when: float, queries: int) -> RecallStats:
        spread = 1 / 0.15 - 1
        recall = self.recall(ef_search, when)
        found = self.rng.binomial(10, self.rng.beta(recall * spread, (1 - recall) * spread, queries)) / 10
        total, squares = float(found.sum()), float((found**2).sum())
        return RecallStats(queries=queries, recall=total, recall_squares=squares, distance_recall=total)

    def calibrate(self, when: float) -> None:
        points = []
        for ef_step in EF_STEPS:
            one = self.probe(ef_step, when, 300)
            low, high = one.interval
            points.append(CurvePoint(ef_search=ef_step, recall=one.mean, low=low, high=high, milliseconds=1.0))
        drawn = replace(curve({}), points=tuple(points), queries=300, measured_at=at(when))
        self._take(ef_policy.initial_decision(drawn, self.target), when)
        self.found.clear()

    def run(self, begin: int, end: int) -> None:
        for when in range(begin, end):
            now = self.path[-1]
            for ef_step in {now, ef_policy.previous_step(now) or now}:
                self.found[when, ef_step] = self.probe(ef_step, when, self.per_minute)
            known = ProbeHistory.of((minute(ef, one, when) for (when, ef), one in self.found.items()), ONE, "all")
            choice = ef_policy.next_decision(now, self.missed, self.target, known, self.changed_at)
            if choice is not None:
                self._take(choice, when + 0.9)

    def _take(self, choice: ef_policy.EfDecision, when: float) -> None:
        if not self.path or choice.ef_search != self.path[-1]:
            self.path.append(choice.ef_search)
        self.missed, self.changed_at = choice.target_missed, at(when)

    def steps_above_the_cheapest(self, when: float) -> int:
        holding = (at for at, ef_step in enumerate(EF_STEPS) if self.recall(ef_step, when) >= self.target)
        cheapest = next(holding, len(EF_STEPS) - 1)
        return EF_STEPS.index(self.path[-1]) - cheapest

    def reversals(self) -> int:
        ups = [later > earlier for earlier, later in zip(self.path, self.path[1:], strict=False)]
        return sum(one is not other for one, other in itertools.pairwise(ups))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(5))
def test_an_hour_of_traffic_ends_at_the_cheapest_step_that_holds_or_one_above(target: float, seed: int) -> None:
    traffic = Traffic(seed, target)
    traffic.run(0, 60)
    assert traffic.steps_above_the_cheapest(60) in (0, 1), traffic.path
    assert traffic.reversals() <= 1, traffic.path


@pytest.mark.parametrize("target", TARGETS)
def test_a_slow_drift_is_followed_upwards_alone(target: float) -> None:
    """Within an hour the index comes to miss a third more. It may be a step behind meanwhile."""
    traffic = Traffic(1, target, missing=lambda when: 1 + when / 180)
    traffic.run(0, 60)
    assert traffic.steps_above_the_cheapest(60) in (-1, 0, 1), traffic.path
    assert traffic.reversals() <= 1, traffic.path


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("calibrated", [False, True])
def test_an_index_that_loses_much_at_once_is_made_up_for(target: float, calibrated: bool) -> None:
    """As after 30 % of the rows were replaced: with a new calibration at once, and by probes alone within an hour.

    Those cannot tell 0.988 from 0.99 in that time.
    """
    traffic = Traffic(2, target, missing=lambda when: 1.6 if when >= 30 else 1.0)
    traffic.run(0, 30)
    traffic.path = traffic.path[-1:]
    if calibrated:
        traffic.calibrate(30)
    traffic.run(30, 90)
    assert traffic.recall(traffic.path[-1], 90) >= target - (0 if calibrated else 0.003), traffic.path
    assert traffic.steps_above_the_cheapest(90) <= 1, traffic.path
    assert traffic.reversals() <= 1, traffic.path
