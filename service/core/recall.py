"""How much of the true answer an approximate search finds: the words and the arithmetic. Pure: no I/O.

recall@k           share of the true first k that were found, by id; what is exactly as near as the true k-th is as good
                   as that: an exact scan chooses among such blindly
distance recall@k  share of the found first k that are as near as the true k-th, give or take `NEAR`: where several
                   documents are equally near, which of them is found does not matter (Aumueller, Bernhardsson and
                   Faithfull, "ANN-Benchmarks", Information Systems 2020)

Both are means over queries. A mean of few queries is uncertain, and says by how much: `RecallStats.interval`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from service.core.ids import VersionNumber
from service.core.search import DensePlan
from service.core.statistics import Z, wilson

K = 10
"""The depth that recall is promised for."""
TIE = 1e-6
"""Difference of scores that are the same, but for the order of sums."""
NEAR = 1e-3
"""Cosine within which two documents are equally near: about the rounding of halfvec."""

SeriesLeg = Literal["dense", "lexical"]
Band = Literal["all", "wide", "medium", "narrow"]
"""How much a filter lets pass: no filter; at least a tenth; at least a hundredth; less."""
BANDS: tuple[Band, ...] = ("all", "wide", "medium", "narrow")
_WIDE, _MEDIUM = 0.1, 0.01


def band_of(selectivity: float | None) -> Band:
    if selectivity is None:
        return "all"
    if selectivity >= _WIDE:
        return "wide"
    return "medium" if selectivity >= _MEDIUM else "narrow"


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallSeries:
    """What is measured together: searches that ran alike. `ef_search` 0: the plan has none."""

    version: VersionNumber
    leg: SeriesLeg
    plan: str
    band: Band
    ef_search: int

    @classmethod
    def of_plan(cls, version: VersionNumber, plan: DensePlan) -> "RecallSeries":
        return cls(
            version=version,
            leg="dense",
            plan=plan.kind,
            band=band_of(plan.selectivity),
            ef_search=plan.ef_search or 0,
        )

    @property
    def key(self) -> tuple[int, str, str, str, int]:
        """What series are put in order by."""
        return self.version, self.leg, self.plan, self.band, self.ef_search


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallStats:
    """Sums over queries: of recall, of its squares, of distance recall, and of seconds that the search took."""

    queries: int = 0
    recall: float = 0.0
    recall_squares: float = 0.0
    distance_recall: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "RecallStats") -> "RecallStats":
        return RecallStats(
            queries=self.queries + other.queries,
            recall=self.recall + other.recall,
            recall_squares=self.recall_squares + other.recall_squares,
            distance_recall=self.distance_recall + other.distance_recall,
            seconds=self.seconds + other.seconds,
        )

    def __sub__(self, other: "RecallStats") -> "RecallStats":
        """Without what was added before."""
        return RecallStats(
            queries=self.queries - other.queries,
            recall=self.recall - other.recall,
            recall_squares=self.recall_squares - other.recall_squares,
            distance_recall=self.distance_recall - other.distance_recall,
            seconds=self.seconds - other.seconds,
        )

    @classmethod
    def of_one(cls, recall: float, distance_recall: float, seconds: float) -> "RecallStats":
        return cls(queries=1, recall=recall, recall_squares=recall**2, distance_recall=distance_recall, seconds=seconds)

    @property
    def mean(self) -> float:
        """NaN of no queries."""
        return self.recall / self.queries if self.queries else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The mean's 95 % interval; all that is possible of no queries."""
        return self.bounds(Z)

    def bounds(self, z: float) -> tuple[float, float]:
        """The mean's interval of so many standard deviations to each side.

        The k neighbours of one query are found or lost together, so they are not k trials: the score interval is taken
        at the number of independent trials whose mean would vary as much as that of these queries does (Kish, "Survey
        Sampling", 1965, the design effect), at most k of each query and at least one.
        """
        if not self.queries:
            return 0.0, 1.0
        mean = min(1.0, max(0.0, self.mean))
        trials = float(K * self.queries)
        if self.queries > 1:
            variance = max(0.0, self.recall_squares / self.queries - mean**2) * self.queries / (self.queries - 1)
            if variance > 0:
                trials = min(trials, max(self.queries, mean * (1 - mean) / (variance / self.queries)))
        return wilson(mean, trials, z)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallMinute:
    """What was found of one series in one minute."""

    series: RecallSeries
    at: datetime
    stats: RecallStats


def merge_minutes(minutes: Iterable[RecallMinute]) -> tuple[RecallMinute, ...]:
    """One for each series and moment, oldest first."""
    sums: dict[tuple[datetime, RecallSeries], RecallStats] = {}
    for minute in minutes:
        key = (minute.at, minute.series)
        sums[key] = sums.get(key, RecallStats()) + minute.stats
    return tuple(
        RecallMinute(series=series, at=at, stats=stats)
        for (at, series), stats in sorted(sums.items(), key=lambda item: (item[0][0], item[0][1].key))
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class EfSetting:
    """How far the index looks for searches of a band, to hold `target`. `missed`: not even the largest effort does."""

    version: VersionNumber
    band: Band
    ef_search: int
    missed: bool
    reason: str
    changed_at: datetime
    target: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """What one `ef_search` finds. `milliseconds`: of the scan alone, the mean over the queries."""

    ef_search: int
    recall: float
    low: float
    high: float
    milliseconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationCurve:
    """Recall and latency of an index by `ef_search`, smallest first; most exact where it meets `target`.

    What it was measured on: `rows` chunks, the index that its `build` tells from others, a share of `dead` rows among
    them, and the count of rows `written` until then.
    """

    points: tuple[CurvePoint, ...]
    queries: int
    rows: int
    measured_at: datetime
    exact_milliseconds: float
    sources: dict[str, int] = field(default_factory=dict)
    target: float = 0.0
    build: int = 0
    written: int = 0
    dead: float = 0.0


def recall_at_k(
    truth: Sequence[tuple[str, float]], found: Sequence[tuple[str, float]], k: int = K, near: float = NEAR
) -> tuple[float, float]:
    """Recall and distance recall at k of one search. Both are best first, ids with scores that grow with nearness.

    Where fewer than k are there at all, of those. 1 where there is nothing to be found.
    """
    true, given = truth[:k], found[:k]
    if not true:
        return 1.0, 1.0
    ids = {name for name, _ in true}
    last = true[-1][1]
    right = sum(name in ids or score >= last - TIE for name, score in given)
    enough = sum(score >= last - near for _, score in given)
    return min(right, len(true)) / len(true), min(enough, len(true)) / len(true)
