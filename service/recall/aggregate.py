"""What looks at live searches found: added up by the minute for all processes, and shown as metrics by this one."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.core import metrics
from service.core.errors import NotFound
from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.ports.recall import RecallStore
from service.core.recall import Band, RecallMinute, RecallSeries, RecallStats

WINDOW = timedelta(minutes=30)
"""What the metrics are means over."""
KEPT = timedelta(days=7)
MOST_MINUTES = 10_000
"""Sums that wait for a database that does not answer; the oldest go."""
LEXICAL = "bm25"
"""The only plan of the lexical leg."""

_Shown = tuple[CollectionId, CollectionName, VersionNumber, str, Band]
"""A collection and the labels of its metrics. Efforts are taken together: what clients meet is their mixture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """What one look found. `live`: it ran as searches run now; else with another `ef_search`, to learn of that."""

    series: RecallSeries
    stats: RecallStats
    live: bool


class RecallAggregator:
    def __init__(self, recalls: RecallStore, now: Callable[[], datetime]) -> None:
        self._recalls = recalls
        self._now = now
        self._tallies: OrderedDict[tuple[CollectionId, RecallSeries, datetime], RecallStats] = OrderedDict()
        self._windows: dict[_Shown, deque[tuple[datetime, RecallStats]]] = {}
        self._changed: set[_Shown] = set()

    def found(self, name: CollectionName, collection_id: CollectionId, findings: Iterable[ProbeResult]) -> None:
        """Add to the present minute, and to the metrics what runs live. Costs microseconds."""
        minute = self._now().replace(second=0, microsecond=0)
        for finding in findings:
            key = (collection_id, finding.series, minute)
            self._tallies[key] = self._tallies.get(key, RecallStats()) + finding.stats
            if finding.live:
                of = finding.series
                self._add((collection_id, name, of.version, of.plan, of.band), minute, finding.stats)
        while len(self._tallies) > MOST_MINUTES:
            self._tallies.popitem(last=False)

    async def write(self) -> None:
        """What was found since the last time. What cannot be written now is kept for the next time."""
        self._show()
        for collection_id in dict.fromkeys(key[0] for key in self._tallies):
            keys = [key for key in self._tallies if key[0] == collection_id]
            taken = {key: self._tallies.pop(key) for key in keys}
            minutes = [RecallMinute(series=series, at=at, stats=stats) for (_, series, at), stats in taken.items()]
            try:
                await self._recalls.add(collection_id, minutes)
            except NotFound:  # deleted meanwhile
                continue
            except Exception:
                for key, stats in taken.items():
                    self._tallies[key] = self._tallies.get(key, RecallStats()) + stats
                raise

    async def forget(self) -> None:
        """Drop what is old, of every process."""
        await self._recalls.forget(self._now() - KEPT)

    def _add(self, shown: _Shown, minute: datetime, stats: RecallStats) -> None:
        window = self._windows.setdefault(shown, deque())
        if window and window[-1][0] == minute:
            window[-1] = (minute, window[-1][1] + stats)
        else:
            window.append((minute, stats))
        self._changed.add(shown)
        _, name, version, plan, band = shown
        if plan != LEXICAL:
            metrics.RECALL_SAMPLES.labels(name, str(version), plan, band).inc(stats.queries)

    def _show(self) -> None:
        """Means over the window; of what was not looked at for so long nothing is said."""
        for shown, window in list(self._windows.items()):
            while window and window[0][0] < self._now() - WINDOW:
                window.popleft()
            if not window:
                del self._windows[shown]
                _hide(shown)
            elif shown in self._changed:  # what did not change may be of a collection that is gone
                _show(shown, sum((one for _, one in window), RecallStats()))
        self._changed.clear()


def _show(shown: _Shown, stats: RecallStats) -> None:
    _, name, version, plan, band = shown
    if plan == LEXICAL:
        metrics.LEXICAL_RECALL.labels(name).set(stats.mean)
    else:
        labels = (name, str(version), plan, band)
        metrics.RECALL.labels(*labels).set(stats.mean)
        metrics.DISTANCE_RECALL.labels(*labels).set(stats.distance_recall / stats.queries)


def _hide(shown: _Shown) -> None:
    _, name, version, plan, band = shown
    if plan == LEXICAL:
        metrics.LEXICAL_RECALL.remove_by_labels({"collection": name})
        return
    labels = {"collection": name, "version": str(version), "plan": plan, "band": band}
    for gauge in (metrics.RECALL, metrics.DISTANCE_RECALL):
        gauge.remove_by_labels(labels)
