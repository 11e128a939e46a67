"""The smallest `ef_search` that holds a recall target, chosen from evidence. Pure: no I/O.

`ef_search` takes the steps of a ladder, each a quarter larger. The first one is read from a calibration curve
(`initial_decision`); from then on probes of live searches move it by a step at a time (`next_decision`). The two
directions need different evidence, so that chance cannot make it oscillate:

up     the current step misses: the upper bound of some window of its last probes is below the target, or the mean of
       very many probes is
down   the step below holds: the lower bound of its own probes is above the target, both since the last change and since
       the calibration; and no window of them ever missed

So a step that missed is not tried again before the next calibration, or before its probes expire. What probes cannot
tell apart lies between the two; there it stays.

Looking at growing evidence again and again makes chance findings likelier than one look does (Armitage, McPherson and
Rowe, "Repeated significance tests on accumulating data", JRSS A 1969). So the bound of the way up is one of three
standard deviations, over windows of a few sizes. The way down keeps to the 95 % that are promised: what it lets through
by chance is so little below the target that thousands of probes are needed to tell.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.core.ids import VersionNumber
from service.core.limits import MAX_EF_SEARCH
from service.core.recall import Band, CalibrationCurve, CurvePoint, K, RecallMinute, RecallStats

STEP_RATIO = 1.25
"""One step changes about 12 % of the time of a scan, and a quarter to a third of the missed neighbours. With finer
steps, the probes of an hour could not tell one from the next."""

MIN_PROBES = 100
"""With fewer probes nothing is decided."""
CERTAIN_PROBES = 2_000
"""The mean of so many probes is taken as it stands: it is right to a few thousandths."""
MISS_WINDOWS = (128, 512, 2_048)
"""Sizes, in probes, of the windows that are tested for a miss: a decay shows in the last probes first."""
MISS_Z = 3.0
"""Standard deviations of the bounds of these windows."""
STEP_MISS_RATIO = 1.4
"""A step down misses at most this many times as many neighbours: miss ~ ef_search^-1.5. Used where the step below
cannot be measured."""


_STEPS = math.ceil(math.log(MAX_EF_SEARCH / K, STEP_RATIO))
EF_STEPS = (*(round(K * STEP_RATIO**step) for step in range(_STEPS)), MAX_EF_SEARCH)
"""From the depth that recall is promised for to the most that pgvector takes."""


def previous_step(ef_search: int) -> int | None:
    """The next smaller step; None at the smallest."""
    return max((step for step in EF_STEPS if step < ef_search), default=None)


def next_step(ef_search: int) -> int | None:
    """The next larger step; None at the largest."""
    return min((step for step in EF_STEPS if step > ef_search), default=None)


def shifted(ef_search: int, before: int, now: int) -> int:
    """The step that is as far from `now` as `ef_search` is from `before`, limited to the ladder."""

    def index(of: int) -> int:
        return min(range(len(EF_STEPS)), key=lambda at: abs(EF_STEPS[at] - of))

    return EF_STEPS[min(len(EF_STEPS) - 1, max(0, index(ef_search) - index(before) + index(now)))]


@dataclass(frozen=True, kw_only=True, slots=True)
class EfDecision:
    """An `ef_search` and why it was chosen. `target_missed`: not even this, the largest, holds the target."""

    ef_search: int
    target_missed: bool = False
    reason: str


@dataclass(frozen=True, slots=True)
class ProbeHistory:
    """What probes measured in one band of one version, by `ef_search`, oldest minutes first."""

    by_ef_search: Mapping[int, Sequence[tuple[datetime, RecallStats]]]

    @classmethod
    def of(cls, minutes: Iterable[RecallMinute], version: VersionNumber, band: Band) -> "ProbeHistory":
        """Of plain index scans only: an iterative scan goes as far as pgvector can anyway."""
        found: dict[int, list[tuple[datetime, RecallStats]]] = {}
        for minute in minutes:
            of = minute.series
            if (of.version, of.leg, of.plan, of.band) == (version, "dense", "hnsw", band):
                found.setdefault(of.ef_search, []).append((minute.at, minute.stats))
        return cls(found)

    def since(self, moment: datetime) -> "ProbeHistory":
        """Of minutes that began at `moment` or later."""
        recent = {ef: [one for one in probes if one[0] >= moment] for ef, probes in self.by_ef_search.items()}
        return ProbeHistory({ef: probes for ef, probes in recent.items() if probes})

    def pooled(self, ef_search: int) -> "ProbeHistory":
        """All probes as if they were of this `ef_search`. Under filters each search has one of its own."""
        merged = sorted(itertools.chain.from_iterable(self.by_ef_search.values()), key=lambda one: one[0])
        return ProbeHistory({ef_search: merged} if merged else {})

    def at(self, ef_search: int) -> RecallStats:
        return sum((stats for _, stats in self.by_ef_search.get(ef_search, ())), RecallStats())

    def last(self, ef_search: int, queries: int) -> RecallStats:
        """Of the newest minutes that together have so many queries, or of all."""
        total = RecallStats()
        for _, stats in reversed(self.by_ef_search.get(ef_search, ())):
            if total.queries >= queries:
                break
            total += stats
        return total


def holds_target(stats: RecallStats, target: float) -> bool:
    """With 95 % confidence."""
    return stats.queries >= MIN_PROBES and stats.interval[0] >= target


def misses_target(stats: RecallStats, target: float) -> bool:
    """With `MISS_Z` standard deviations."""
    return stats.queries >= MIN_PROBES and stats.bounds(MISS_Z)[1] < target


def evidence_of_miss(probes: ProbeHistory, ef_search: int, target: float) -> RecallStats | None:
    """The probes that show that this `ef_search` misses the target, if any do."""
    whole = probes.at(ef_search)
    if whole.queries >= CERTAIN_PROBES and whole.mean < target:
        return whole
    windows = (*(probes.last(ef_search, size) for size in MISS_WINDOWS), whole)
    return next((window for window in windows if misses_target(window, target)), None)


def ever_missed(probes: ProbeHistory, ef_search: int, target: float) -> bool:
    """Did any window of its probes miss the target, at whatever time?"""
    minutes = [stats for _, stats in probes.by_ef_search.get(ef_search, ())]
    for size in MISS_WINDOWS:
        window, first = RecallStats(), 0
        for stats in minutes:
            window += stats
            while window.queries - minutes[first].queries >= size:
                window -= minutes[first]
                first += 1
            if misses_target(window, target):
                return True
    return False


def initial_decision(curve: CalibrationCurve, target: float, probes: ProbeHistory = ProbeHistory({})) -> EfDecision:
    """The smallest `ef_search` of the curve whose lower bound holds the target, unless probes contradict it.

    Where there is none, the largest. Only where its mean is below the target, the target counts as missed.
    """
    missing = max((ef for ef in probes.by_ef_search if evidence_of_miss(probes, ef, target)), default=0)
    for point in curve.points:
        if point.low >= target and point.ef_search > missing:
            reason = f"calibrated: {_describe_point(point)} over the target {target:g}"
            return EfDecision(ef_search=point.ef_search, reason=reason)
    last = curve.points[-1]
    target_missed = missing >= last.ef_search or last.recall < target
    reason = f"calibrated: no smaller one is sure to hold the target {target:g} by {curve.queries} queries"
    if target_missed:
        reason = f"the largest misses the target {target:g}: {_describe_point(last)}"
    return EfDecision(ef_search=last.ef_search, target_missed=target_missed, reason=reason)


def next_decision(
    now: int, target_missed: bool, target: float, known: ProbeHistory, changed_at: datetime, *, filtered: bool = False
) -> EfDecision | None:
    """Where to go from `now`, or None to stay. `known`: all probes since the calibration.

    Where answers need more rows than `now`, searches use a larger `ef_search`: if that misses, `now` misses too.

    `filtered`: each search uses a larger `ef_search` than `now`, by what its filter drops. The step below cannot be
    measured there; it is inferred to hold where even `STEP_MISS_RATIO` times the misses would do.
    """
    fresh = known.since(changed_at)
    if filtered:
        fresh = fresh.pooled(now)
    missing = {ef: found for ef in fresh.by_ef_search if ef >= now and (found := evidence_of_miss(fresh, ef, target))}
    if missing:
        worst = max(missing)
        reason = f"{_describe_probes(worst, missing[worst])}: misses the target {target:g}"
        higher = next_step(worst)
        if higher is not None:
            return EfDecision(ef_search=higher, reason=reason)
        return None if target_missed else EfDecision(ef_search=MAX_EF_SEARCH, target_missed=True, reason=reason)
    found = fresh.at(now)
    if target_missed and holds_target(found, target):
        return EfDecision(ef_search=now, reason=f"{_describe_probes(now, found)}: holds the target {target:g} again")
    lower = previous_step(now)
    if lower is None:
        return None
    if filtered:
        if found.queries >= MIN_PROBES and 1 - STEP_MISS_RATIO * (1 - found.interval[0]) >= target:
            reason = f"{_describe_probes(now, found)}: a step less holds the target {target:g} as well"
            return EfDecision(ef_search=lower, reason=reason)
        return None
    if ever_missed(known, lower, target) or not all(holds_target(one.at(lower), target) for one in (fresh, known)):
        return None
    reason = f"{_describe_probes(lower, fresh.at(lower))}: holds the target {target:g}"
    return EfDecision(ef_search=lower, reason=reason)


def _describe_point(point: CurvePoint) -> str:
    return f"ef_search {point.ef_search} finds {point.recall:.4f} [{point.low:.4f}, {point.high:.4f}]"


def _describe_probes(ef_search: int, stats: RecallStats) -> str:
    low, high = stats.interval
    return f"ef_search {ef_search} found {stats.mean:.4f} [{low:.4f}, {high:.4f}] in {stats.queries} probes"
