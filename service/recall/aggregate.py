"""What probes measured: summed by the minute for all processes in the database, and exported as metrics by this one."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.core import metrics
from service.core.errors import NotFound
from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.lru import LruDict
from service.core.ports.recall import RecallStore
from service.core.recall import Band, RecallMinute, RecallSeries, RecallStats

WINDOW = timedelta(minutes=30)
"""What the metrics are means over."""
RETENTION = timedelta(days=7)
MAX_PENDING = 10_000
"""Sums that wait for a database that does not answer; the oldest are dropped."""
LEXICAL_PLAN = "bm25"
"""The only plan of the lexical leg."""

_Exported = tuple[CollectionId, CollectionName, VersionNumber, str, Band]
"""A collection and the labels of its metrics. Values of `ef_search` are taken together: clients meet their mixture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallSample:
    """What one probe measured. `live`: it ran as live searches do; else with another `ef_search`, to learn of that."""

    series: RecallSeries
    stats: RecallStats
    live: bool


class RecallAggregator:
    """Collects the samples of this process until they are written and exported."""

    def __init__(self, recalls: RecallStore, now: Callable[[], datetime]) -> None:
        self._recalls = recalls
        self._now = now
        self._pending: LruDict[tuple[CollectionId, RecallSeries, datetime], RecallStats] = LruDict(MAX_PENDING)
        self._windows: defaultdict[_Exported, dict[datetime, RecallStats]] = defaultdict(dict)
        self._changed: set[_Exported] = set()

    def record(self, name: CollectionName, collection_id: CollectionId, samples: Iterable[RecallSample]) -> None:
        """Add samples to the current minute, and live ones to the metrics. Costs microseconds."""
        minute = self._now().replace(second=0, microsecond=0)
        for sample in samples:
            series = sample.series
            self._add_pending((collection_id, series, minute), sample.stats)
            if sample.live:
                exported = (collection_id, name, series.version, series.plan, series.band)
                window = self._windows[exported]
                window[minute] = window.get(minute, RecallStats()) + sample.stats
                self._changed.add(exported)
                if series.plan != LEXICAL_PLAN:
                    labels = (name, str(series.version), series.plan, series.band)
                    metrics.RECALL_SAMPLES.labels(*labels).inc(sample.stats.queries)

    async def flush(self) -> None:
        """Update the metrics and write the pending sums to the database. What cannot be written stays pending."""
        self._export()
        for collection_id in dict.fromkeys(key[0] for key in self._pending):
            taken = {key: self._pending.pop(key) for key in list(self._pending) if key[0] == collection_id}
            minutes = [RecallMinute(series=series, at=at, stats=stats) for (_, series, at), stats in taken.items()]
            try:
                await self._recalls.add(collection_id, minutes)
            except NotFound:  # deleted meanwhile
                continue
            except Exception:
                for key, stats in taken.items():
                    self._add_pending(key, stats)
                raise

    async def delete_expired(self) -> None:
        """Delete minutes older than `RETENTION`, of every process."""
        await self._recalls.delete_before(self._now() - RETENTION)

    def _add_pending(self, key: tuple[CollectionId, RecallSeries, datetime], stats: RecallStats) -> None:
        self._pending[key] = self._pending.get(key, RecallStats()) + stats

    def _export(self) -> None:
        """Set each gauge to the mean over the window, and remove it where there was no probe for so long."""
        for exported, window in list(self._windows.items()):
            for minute in [minute for minute in window if minute < self._now() - WINDOW]:
                del window[minute]
            if not window:
                del self._windows[exported]
                _set_gauges(exported, None)
            elif exported in self._changed:  # what did not change may be of a collection that is gone
                _set_gauges(exported, sum(window.values(), RecallStats()))
        self._changed.clear()


def _set_gauges(exported: _Exported, stats: RecallStats | None) -> None:
    """None removes the gauges."""
    _, name, version, plan, band = exported
    labels: dict[str, str] = {"collection": name}
    gauges = [(metrics.LEXICAL_RECALL, "recall")]
    if plan != LEXICAL_PLAN:
        labels |= {"version": str(version), "plan": plan, "band": band}
        gauges = [(metrics.RECALL, "recall"), (metrics.DISTANCE_RECALL, "distance_recall")]
    for gauge, total in gauges:
        if stats is None:
            gauge.remove_by_labels(labels)
        else:
            gauge.labels(**labels).set(getattr(stats, total) / stats.queries)
