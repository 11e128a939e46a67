"""How far the index has to look: the smallest `ef_search` that holds a recall target. Pure: no I/O.

`ef_search` stands on a ladder, a quarter more each rung. Where it starts is read from a calibration curve (`begin`);
from then on it moves a rung at a time, by what probes of live searches found (`step`). Both directions ask for other
evidence, so that chance cannot drive it to and fro:

up     the present rung misses: the upper bound of some window of its last probes is below the target, or the mean of
       very many is
down   the rung below holds: the lower bound of its own probes is above the target, of those since the last change and
       of all since the index was calibrated; and no window of these ever missed

So a rung that missed is not tried again before the index is calibrated anew, or its probes are forgotten. Between the
two lies what probes cannot tell apart, and there it rests.

Looking at growing evidence again and again makes chance finds likelier than one look does (Armitage, McPherson and
Rowe, "Repeated significance tests on accumulating data", JRSS A 1969). So the bound of the way up is one of three
standard deviations, of windows of a few sizes. The way down keeps to the 95 % that are promised: what it lets through
by chance lies so near below the target that thousands of probes are needed to tell.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.core.ids import VersionNumber
from service.core.recall import Band, CalibrationCurve, CurvePoint, RecallMinute, RecallStats

SMALLEST, LARGEST = 10, 1_000
"""As many as recall is promised for; the most that pgvector takes."""
EF_STEP = 1.25
"""What one rung is worth: about 12 % of the time of a scan, and a quarter to a third of the neighbours that are missed.
With finer rungs, probes of an hour could not tell one from the next."""

LEAST = 100
"""ProbeHistory below which nothing is decided."""
SURE = 2_000
"""Probes whose mean is believed as it stands: it is right to a few thousandths."""
WINDOWS = (128, 512, 2_048)
"""Probes of the windows that are looked at for a miss: a decay shows in the last ones first."""
ALARM = 3.0
"""Standard deviations of their bounds."""
WORSE = 1.4
"""A rung less misses at most so many times as many neighbours: MISS ~ ef_search^-1.5. Used where the rung below cannot
be measured."""


def _ladder() -> tuple[int, ...]:
    rungs, at = [], float(SMALLEST)
    while at < LARGEST:
        rungs.append(round(at))
        at *= EF_STEP
    return (*rungs, LARGEST)


EF_STEPS = _ladder()


def previous_step(ef_search: int) -> int | None:
    """The next smaller rung; None at the lowest."""
    return max((ef_step for ef_step in EF_STEPS if ef_step < ef_search), default=None)


def next_step(ef_search: int) -> int | None:
    """The next larger rung; None at the highest."""
    return min((ef_step for ef_step in EF_STEPS if ef_step > ef_search), default=None)


def shifted(ef_search: int, before: int, now: int) -> int:
    """As many rungs from `now` as it was from `before`, as far as the ladder goes."""

    def ef_step(of: int) -> int:
        return min(range(len(EF_STEPS)), key=lambda at: abs(EF_STEPS[at] - of))

    return EF_STEPS[min(len(EF_STEPS) - 1, max(0, ef_step(ef_search) - ef_step(before) + ef_step(now)))]


@dataclass(frozen=True, kw_only=True, slots=True)
class EfDecision:
    """An `ef_search` and why. `missed`: not even this, the largest, holds the target."""

    ef_search: int
    missed: bool = False
    reason: str


# ---------------------------------------------------------------- evidence


@dataclass(frozen=True, slots=True)
class ProbeHistory:
    """What probes found in one band of one version, by `ef_search`, oldest minutes first."""

    by_effort: Mapping[int, Sequence[tuple[datetime, RecallStats]]]

    @classmethod
    def of(cls, minutes: Iterable[RecallMinute], version: VersionNumber, band: Band) -> "ProbeHistory":
        """Of plain looks along the index alone: an iterative scan is as wide as pgvector can make it anyway."""
        found: dict[int, list[tuple[datetime, RecallStats]]] = {}
        for minute in minutes:
            of = minute.series
            if (of.version, of.leg, of.plan, of.band) == (version, "dense", "hnsw", band):
                found.setdefault(of.ef_search, []).append((minute.at, minute.stats))
        return cls(found)

    def since(self, moment: datetime) -> "ProbeHistory":
        """Of minutes that began at `moment` or later."""
        kept = {
            ef: [one for one in stats_by_ef_search if one[0] >= moment]
            for ef, stats_by_ef_search in self.by_effort.items()
        }
        return ProbeHistory({ef: stats_by_ef_search for ef, stats_by_ef_search in kept.items() if stats_by_ef_search})

    def pooled(self, ef_search: int) -> "ProbeHistory":
        """All of them as if they were of this one. Under filters each search has an `ef_search` of its own."""
        merged = sorted(itertools.chain.from_iterable(self.by_effort.values()), key=lambda one: one[0])
        return ProbeHistory({ef_search: merged} if merged else {})

    def at(self, ef_search: int) -> RecallStats:
        return sum((stats for _, stats in self.by_effort.get(ef_search, ())), RecallStats())

    def last(self, ef_search: int, queries: int) -> RecallStats:
        """Of the newest minutes that have so many together, or of all."""
        total = RecallStats()
        for _, stats in reversed(self.by_effort.get(ef_search, ())):
            if total.queries >= queries:
                break
            total += stats
        return total


def holds(stats: RecallStats, target: float) -> bool:
    """With 95 % confidence."""
    return stats.queries >= LEAST and stats.interval[0] >= target


def miss(probes: ProbeHistory, ef_search: int, target: float) -> RecallStats | None:
    """The probes that show that this `ef_search` misses the target, if any do."""
    whole = probes.at(ef_search)
    if whole.queries >= SURE and whole.mean < target:
        return whole
    windows = (*(probes.last(ef_search, size) for size in WINDOWS), whole)
    return next((one for one in windows if one.queries >= LEAST and one.bounds(ALARM)[1] < target), None)


def ever_missed(probes: ProbeHistory, ef_search: int, target: float) -> bool:
    """Did any window of its probes miss the target, whenever that was?"""
    stats_by_ef_search = [stats for _, stats in probes.by_effort.get(ef_search, ())]
    for size in WINDOWS:
        window, first = RecallStats(), 0
        for stats in stats_by_ef_search:
            window += stats
            while window.queries - stats_by_ef_search[first].queries >= size:
                window -= stats_by_ef_search[first]
                first += 1
            if window.queries >= min(size, LEAST) and window.bounds(ALARM)[1] < target:
                return True
    return False


# ---------------------------------------------------------------- begin


def begin(curve: CalibrationCurve, target: float, probes: ProbeHistory = ProbeHistory({})) -> EfDecision:
    """The smallest `ef_search` of the curve whose lower bound holds the target, unless probes speak against it.

    Where there is none, the largest. That it misses is said only of what its mean says.
    """
    missing = max((ef for ef in probes.by_effort if miss(probes, ef, target)), default=0)
    for point in curve.points:
        if point.low >= target and point.ef_search > missing:
            return EfDecision(ef_search=point.ef_search, reason=f"calibrated: {_told(point)} over {_target(target)}")
    last = curve.points[-1]
    if missing >= last.ef_search or last.recall < target:
        return EfDecision(
            ef_search=last.ef_search, missed=True, reason=f"the largest misses {_target(target)}: {_told(last)}"
        )
    return EfDecision(
        ef_search=last.ef_search,
        reason=f"calibrated: no smaller one is sure to hold {_target(target)} by {curve.queries} queries",
    )


# ---------------------------------------------------------------- step


def step(now: int, missed: bool, target: float, known: ProbeHistory, changed_at: datetime) -> EfDecision | None:
    """Where to go from `now`, or None to stay.

    `known`: all probes since the index was calibrated. Where answers need more rows than `now`, searches look farther:
    what ran with more and misses all the same speaks against `now` too.
    """
    fresh = known.since(changed_at)
    missing = {ef: found for ef in fresh.by_effort if ef >= now and (found := miss(fresh, ef, target))}
    if missing:
        worst = max(missing)
        return _up(worst, missing[worst], missed, target)
    if missed and holds(fresh.at(now), target):
        return EfDecision(ef_search=now, reason=f"{_found(now, fresh.at(now))}: holds {_target(target)} again")
    lower = previous_step(now)
    if lower is None or not holds(fresh.at(lower), target):
        return None
    if holds(known.at(lower), target) and not ever_missed(known, lower, target):
        return EfDecision(ef_search=lower, reason=f"{_found(lower, fresh.at(lower))}: holds {_target(target)}")
    return None


def step_under_filter(
    now: int, missed: bool, target: float, known: ProbeHistory, changed_at: datetime
) -> EfDecision | None:
    """As `step`, where searches look farther than `now` by what their filters drop, each by another factor.

    The rung below is not to be measured there; it is inferred to hold where even `WORSE` times the misses would do.
    """
    fresh = known.since(changed_at).pooled(now)
    missing = miss(fresh, now, target)
    if missing:
        return _up(now, missing, missed, target)
    found = fresh.at(now)
    if missed and holds(found, target):
        return EfDecision(ef_search=now, reason=f"{_found(now, found)}: holds {_target(target)} again")
    lower = previous_step(now)
    if lower is not None and found.queries >= LEAST and 1 - WORSE * (1 - found.interval[0]) >= target:
        return EfDecision(ef_search=lower, reason=f"{_found(now, found)}: a rung less holds {_target(target)} as well")
    return None


def _up(ef_search: int, found: RecallStats, missed: bool, target: float) -> EfDecision | None:
    """A rung above `ef_search`. At the end of the ladder it is said, once, that the target is missed."""
    reason = f"{_found(ef_search, found)}: misses {_target(target)}"
    higher = next_step(ef_search)
    if higher is not None:
        return EfDecision(ef_search=higher, reason=reason)
    return None if missed else EfDecision(ef_search=LARGEST, missed=True, reason=reason)


def _target(target: float) -> str:
    return f"the target {target:g}"


def _told(point: CurvePoint) -> str:
    return f"ef_search {point.ef_search} finds {point.recall:.4f} [{point.low:.4f}, {point.high:.4f}]"


def _found(ef_search: int, stats: RecallStats) -> str:
    low, high = stats.interval
    return f"ef_search {ef_search} found {stats.mean:.4f} [{low:.4f}, {high:.4f}] in {stats.queries} probes"
