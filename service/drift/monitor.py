"""Measures drift of live queries, for each collection that has new ones: do clients still ask for what it holds?

count      how many words of the new queries are in no document
compare    with the collection and with earlier queries (`assess.py`), in a thread
record     the result, by the minute, and export it

Searches are not slowed down: `QueryWindows` keeps what they leave behind. All of it lives in this process alone.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.core import metrics
from service.core.collections import Collection
from service.core.errors import AzimuthError, NotFound
from service.core.periodic import Clock, failures_logged
from service.core.ports.collections import Collections
from service.core.ports.lexicon import Lexicon
from service.core.ports.vectors import VectorStore
from service.core.ports.versions import Versions
from service.core.query_syntax import parse_query
from service.core.verdict import VERDICTS
from service.core.versions import EmbedderVersion
from service.drift.assess import DRIFT_MEASURES, CollectionReference, DriftAssessment, DriftMeasureName, assess_drift
from service.drift.query_window import MAX_COLLECTIONS, MIN_LATEST, Key, QueryWindow, QueryWindows, WindowedQuery
from service.spaces.sample_cache import SampleCache
from service.spaces.sampling import CollectionSampler

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 30.0
HISTORY_MINUTES = 1_440
"""A day of uninterrupted traffic."""
REFERENCE_CHUNKS, REFERENCE_SENTENCES = 500, 150
REFERENCE_SECONDS, REFERENCE_GROWTH = 3_600.0, 1.25
"""The reference is sampled again after an hour, and when the collection has grown or shrunk by a quarter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftMinute:
    """`queries`: the new ones of that minute. `values`: of each measure; None where it could not be measured."""

    at: datetime
    queries: int
    values: Mapping[DriftMeasureName, float | None]
    best_cosine: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftReport:
    """`queries`, `earlier`: sizes of the two samples. `seen`: all queries that there were."""

    queries: int = 0
    earlier: int = 0
    seen: int = 0
    assessment: DriftAssessment | None = None
    measured_at: datetime | None = None
    history: Sequence[DriftMinute] = ()


@dataclass(kw_only=True, eq=False)
class DriftMonitor:
    """`interval`: seconds between two measurements of one collection."""

    traffic: QueryWindows
    collections: Collections
    versions: Versions
    vectors: VectorStore
    lexicon: Lexicon
    sampling: CollectionSampler
    interval: float = INTERVAL_SECONDS

    def __post_init__(self) -> None:
        self._reports: dict[Key, DriftReport] = {}
        self._due: dict[Key, float] = {}
        """When each version may be measured again, on the monotonic clock."""
        self._references = SampleCache[Key, CollectionReference](
            seconds=REFERENCE_SECONDS, growth=REFERENCE_GROWTH, capacity=MAX_COLLECTIONS
        )

    def report(self, collection: Collection) -> DriftReport:
        """The latest measurement of the active version."""
        return self._reports.get((collection.id, collection.active_version), DriftReport())

    async def measure_due(self, now: Clock) -> None:
        """Measure each version that has new queries. A failure is logged, and does not hold up other collections."""
        windows = dict(self.traffic.items())
        self._reports = {key: report for key, report in self._reports.items() if key in windows}
        self._due = {key: self._due.get(key, 0.0) for key in windows}
        for key, window in windows.items():
            known = self._reports.get(key, DriftReport())
            if window.seen == known.seen or len(window.latest) < MIN_LATEST or time.monotonic() < self._due[key]:
                continue
            self._due[key] = time.monotonic() + self.interval
            with failures_logged("drift is not measured", collection_id=key[0]):
                try:
                    await self._measure(key, window, known, now)
                except NotFound:
                    self.traffic.pop(key, None)  # deleted meanwhile

    async def _measure(self, key: Key, window: QueryWindow, known: DriftReport, now: Clock) -> None:
        collection = await self.collections.get(key[0])
        if collection.active_version != key[1]:
            self.traffic.pop(key, None)
            return
        version = await self.versions.get(*key)
        seen, latest, earlier = window.seen, tuple(window.latest), tuple(window.earlier)
        await self._count_unknown_words(collection, latest)
        reference = await self._reference(collection, version)
        assessment = await asyncio.to_thread(assess_drift, latest, earlier, reference)
        moment = now()
        self._reports[key] = DriftReport(
            queries=len(latest),
            earlier=len(earlier),
            seen=seen,
            assessment=assessment,
            measured_at=moment,
            history=_recorded(known.history, assessment, seen - known.seen, moment),
        )
        _export(collection, assessment)

    async def _count_unknown_words(self, collection: Collection, queries: Sequence[WindowedQuery]) -> None:
        """Of the queries that were not counted yet. Their texts are no longer kept then."""
        for query in queries:
            if query.words is None:
                text = parse_query(query.text, query.syntax).text
                if (counts := await self._document_frequencies(collection, text)) is None:
                    return
                query.words, query.text = (sum(count == 0 for count in counts), len(counts)), ""

    async def _document_frequencies(self, collection: Collection, text: str) -> tuple[int, ...] | None:
        """How many documents have each word; None where the lexical index is not available now."""
        if not text:
            return ()
        try:
            return await self.lexicon.document_frequencies(collection, parse_query(text, "plain"))
        except AzimuthError as error:
            log.info("words are not looked up", extra={"collection": collection.name, "reason": error.detail})
            return None

    async def _reference(self, collection: Collection, version: EmbedderVersion) -> CollectionReference | None:
        """What the collection itself is like; an outdated one while the lexical index is not available."""
        key = (collection.id, version.number)
        rows = (await self.versions.status(version)).rows
        if (known := self._references.get(key, rows)) is not None:
            return known
        sample = await self.vectors.sample(version, REFERENCE_CHUNKS)
        rare_words, words = [], []
        chosen = [document_id for document_id, _ in sample.chunks[:REFERENCE_SENTENCES]]
        for _, sentence in await self.sampling.random_sentences(collection, version, chosen):
            if (counts := await self._document_frequencies(collection, sentence)) is None:
                outdated = self._references.entry(key)
                return None if outdated is None else outdated.value
            rare_words.append(sum(count <= 1 for count in counts))  # only in the document that it is from
            words.append(len(counts))
        reference = CollectionReference(vectors=sample.vectors, rare_words=rare_words, words=words)
        return self._references.put(key, reference, rows)


def _recorded(
    history: Sequence[DriftMinute], assessment: DriftAssessment, queries: int, moment: datetime
) -> Sequence[DriftMinute]:
    """The history with what was measured now, which replaces an earlier measurement of the same minute."""
    minute = moment.replace(second=0, microsecond=0)
    if history and history[-1].at == minute:
        *history, replaced = history
        queries += replaced.queries
    values: dict[DriftMeasureName, float | None] = dict.fromkeys(DRIFT_MEASURES)
    values |= {one.name: one.estimate.value for one in assessment.measures if one.estimate is not None}
    newest = DriftMinute(at=minute, queries=queries, values=values, best_cosine=assessment.best_cosine)
    return (*history, newest)[-HISTORY_MINUTES:]


def _export(collection: Collection, assessment: DriftAssessment) -> None:
    labels: dict[str, str] = {"collection": collection.name}
    for measure in assessment.measures:
        if measure.estimate is None:
            metrics.DRIFT.remove_by_labels({**labels, "measure": measure.name})
        else:
            metrics.DRIFT.labels(collection.name, measure.name).set(measure.estimate.value)
    if assessment.verdict is None:
        metrics.DRIFT_VERDICT.remove_by_labels(labels)
    else:
        metrics.DRIFT_VERDICT.labels(collection.name).set(VERDICTS.index(assessment.verdict))
