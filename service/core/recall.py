"""How much of the true answer an approximate search finds: domain objects and arithmetic. Pure: no I/O.

recall@k           share of the true first k that were found, by id. A hit exactly as near as the true k-th counts too,
                   because an exact scan chooses among such hits arbitrarily
distance recall@k  share of the found first k that are as near as the true k-th, within `NEAR`: which of several equally
                   near documents is found does not matter (Aumueller, Bernhardsson and Faithfull, "ANN-Benchmarks",
                   Information Systems 2020)

Both are means over queries. `RecallStats.interval` says how uncertain a mean is.
"""

import math
import operator
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from service.core.ids import VersionNumber
from service.core.search import DensePlan
from service.core.statistics import Z, wilson

K = 10
"""The depth that recall is promised for."""
TIE = 1e-6
"""Scores that differ by less are equal: the order of a sum may change it by as much."""
NEAR = 1e-3
"""Cosine difference within which two documents are equally near: about the rounding of halfvec."""

SeriesLeg = Literal["dense", "lexical"]
Band = Literal["all", "wide", "medium", "narrow"]
"""Share of the documents that pass the filter: no filter; at least a tenth; at least a hundredth; less."""
BANDS: tuple[Band, ...] = ("all", "wide", "medium", "narrow")


def band_of(selectivity: float | None) -> Band:
    if selectivity is None:
        return "all"
    if selectivity >= 0.1:
        return "wide"
    return "medium" if selectivity >= 0.01 else "narrow"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class RecallSeries:
    """Searches that ran alike and are measured together. `ef_search` is 0 where the plan has none."""

    version: VersionNumber
    leg: SeriesLeg
    plan: str
    band: Band
    ef_search: int

    @classmethod
    def of_plan(cls, version: VersionNumber, plan: DensePlan) -> "RecallSeries":
        band = band_of(plan.selectivity)
        return cls(version=version, leg="dense", plan=plan.kind, band=band, ef_search=plan.ef_search or 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallStats:
    """Sums over queries: of recall, of its squares, of distance recall, and of the seconds that the searches took."""

    queries: int = 0
    recall: float = 0.0
    recall_squares: float = 0.0
    distance_recall: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "RecallStats") -> "RecallStats":
        return self._combined(other, operator.add)

    def __sub__(self, other: "RecallStats") -> "RecallStats":
        """Without `other`, which was added before."""
        return self._combined(other, operator.sub)

    def _combined(self, other: "RecallStats", combine: Callable[[Any, Any], Any]) -> "RecallStats":
        return RecallStats(**{name: combine(getattr(self, name), getattr(other, name)) for name in self.__slots__})

    @classmethod
    def of_one(cls, recall: float, distance_recall: float, seconds: float) -> "RecallStats":
        return cls(queries=1, recall=recall, recall_squares=recall**2, distance_recall=distance_recall, seconds=seconds)

    @property
    def mean(self) -> float:
        """NaN where there is no query."""
        return self.recall / self.queries if self.queries else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean; [0, 1] where there is no query."""
        return self.bounds(Z)

    def bounds(self, z: float) -> tuple[float, float]:
        """The interval of the mean, `z` standard deviations to each side.

        The k neighbours of one query are found or lost together, so they are not k trials. The score interval is taken
        at the number of independent trials whose mean would vary as much as that of these queries (the design effect:
        Kish, "Survey Sampling", 1965), at least one and at most k for each query.
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
    """What was measured of one series in one minute."""

    series: RecallSeries
    at: datetime
    stats: RecallStats


def merge_minutes(minutes: Iterable[RecallMinute]) -> tuple[RecallMinute, ...]:
    """The sum of each series and moment, oldest first."""
    sums: dict[tuple[datetime, RecallSeries], RecallStats] = {}
    for minute in minutes:
        key = (minute.at, minute.series)
        sums[key] = sums.get(key, RecallStats()) + minute.stats
    return tuple(RecallMinute(series=series, at=at, stats=sums[at, series]) for at, series in sorted(sums))


@dataclass(frozen=True, kw_only=True, slots=True)
class EfSetting:
    """The `ef_search` of a band, chosen to hold `target`. `missed`: not even the largest `ef_search` holds it."""

    version: VersionNumber
    band: Band
    ef_search: int
    missed: bool
    reason: str
    changed_at: datetime
    target: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """What one `ef_search` finds. `milliseconds`: mean latency of the scan alone."""

    ef_search: int
    recall: float
    low: float
    high: float
    milliseconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationCurve:
    """Recall and latency of an index by `ef_search`, smallest first; most precise around `target`.

    It was measured on `rows` chunks and a share of `dead` rows, in the index identified by `build`, when `written` rows
    had been written.
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
    truth: Sequence[tuple[Hashable, float]], found: Sequence[tuple[Hashable, float]], k: int = K, near: float = NEAR
) -> tuple[float, float]:
    """Recall and distance recall at k of one search. Both lists are best first: ids with scores.

    Where fewer than k documents exist, of those. 1 where there is nothing to be found.
    """
    true, given = truth[:k], found[:k]
    if not true:
        return 1.0, 1.0
    ids, last = {name for name, _ in true}, true[-1][1]
    by_id = sum(name in ids or score >= last - TIE for name, score in given)
    by_distance = sum(score >= last - near for _, score in given)
    return min(by_id, len(true)) / len(true), min(by_distance, len(true)) / len(true)
