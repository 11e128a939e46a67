"""Live searches answered again by the versions that are candidates for promotion, where no client waits for it.

add      after each live search: it is remembered, and some are queued to be answered again
run      answers the queued ones, one at a time, by the active version and by every candidate
compare  for the promotion checks: answers remembered searches at once, where too few were answered live
"""

import asyncio
import logging
import math
import random
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from service.core import metrics
from service.core.collections import Collection
from service.core.errors import AzimuthError, NotFound, Unavailable
from service.core.filters import operands
from service.core.ids import CollectionId, CollectionName, DocumentId, VersionNumber
from service.core.lru import LruDict
from service.core.periodic import in_background
from service.core.ports.collections import Collections
from service.core.ports.versions import Versions
from service.core.search import SearchRequest
from service.core.versions import EmbedderVersion, VersionState
from service.evaluation.ranking_metrics import kendall_tau, overlap_at_k, percentile
from service.search.pipeline import SearchPipeline
from service.search.query_log import QueryLog
from service.spaces.sample_cache import SampleCache

log = logging.getLogger(__name__)

DEPTH = 10
"""Hits that are compared."""
MAX_REMEMBERED = 256
"""Distinct searches that are kept of a collection, and comparisons that are kept of a candidate."""
MAX_TEXT_LENGTH, MAX_OPERANDS = 2_000, 64
"""Code points of the query, and operands of the filter, of a search that is remembered: this bounds its bytes."""
MAX_COLLECTIONS = 64
MAX_QUEUED = 32
"""Searches that wait to be answered again; further ones are left out."""
COMPARE_SECONDS = 30.0
_TARGETS_SECONDS = 5.0
_CANDIDATE_STATES = frozenset({VersionState.VERIFYING, VersionState.READY})


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowReport:
    """How a candidate answers live searches, compared with the active version. It does not say which is better.

    `overlap_at_10`: mean share of the first 10 hits that both have. `kendall_tau`: mean agreement in the order of the
    common hits, None where there never were two. `errors`: searches that the candidate could not answer in full, which
    are not among `queries`. Latencies are those of whole searches.
    """

    queries: int
    errors: int
    overlap_at_10: float
    kendall_tau: float | None
    old_p50_ms: float
    old_p95_ms: float
    new_p50_ms: float
    new_p95_ms: float


class ShadowComparison(NamedTuple):
    """One search answered by both. `tau` is NaN where fewer than two hits are common."""

    overlap: float
    tau: float
    old_ms: float
    new_ms: float


@dataclass(slots=True)
class ShadowWindow:
    """The last comparisons of a candidate with one active version: each search once."""

    comparisons: LruDict[SearchRequest, ShadowComparison] = field(default_factory=lambda: LruDict(MAX_REMEMBERED))
    errors: int = 0

    def report(self) -> ShadowReport | None:
        compared = self.comparisons.values()
        if not compared and not self.errors:
            return None
        taus = [one.tau for one in compared if not math.isnan(one.tau)]
        old, new = [one.old_ms for one in compared], [one.new_ms for one in compared]
        return ShadowReport(
            queries=len(compared),
            errors=self.errors,
            overlap_at_10=statistics.fmean(one.overlap for one in compared) if compared else 0.0,
            kendall_tau=statistics.fmean(taus) if taus else None,
            old_p50_ms=percentile(old, 0.50),
            old_p95_ms=percentile(old, 0.95),
            new_p50_ms=percentile(new, 0.50),
            new_p95_ms=percentile(new, 0.95),
        )


class ShadowTargets(NamedTuple):
    """A collection with the versions that might be promoted."""

    collection: Collection
    candidates: tuple[EmbedderVersion, ...]


@dataclass(kw_only=True, eq=False)
class ShadowTraffic:
    """`share`: of the live searches, that are answered again while there is a candidate."""

    search: SearchPipeline
    collections: Collections
    versions: Versions
    share: float

    def __post_init__(self) -> None:
        self._requests: QueryLog[CollectionName, LruDict[SearchRequest, None]] = QueryLog(
            lambda: LruDict(MAX_REMEMBERED), max_keys=MAX_COLLECTIONS
        )
        self._queue: asyncio.Queue[tuple[CollectionName, SearchRequest]] = asyncio.Queue(MAX_QUEUED)
        self._targets = SampleCache[CollectionName, ShadowTargets](seconds=_TARGETS_SECONDS, capacity=MAX_COLLECTIONS)
        # By collection, active version and candidate.
        self._windows: dict[tuple[CollectionId, VersionNumber, VersionNumber], ShadowWindow] = {}

    def add(self, name: CollectionName, request: SearchRequest) -> None:
        """Remember a live search that was answered. Costs microseconds, never waits, never fails.

        A search that brings its own vector or names its version does not show how another version would answer it.
        Only a single query in words is kept, because candidates are measured with these words too.
        """
        if request.vector is not None or request.embedder_version is not None or not request.text:
            return
        if len(request.text) > MAX_TEXT_LENGTH or operands(request.where) > MAX_OPERANDS:
            return
        # Without the cross-encoder, which would even out the difference, and without what only costs time.
        request = replace(request, k=DEPTH, rerank=None, min_confidence=None, budget_ms=None, include=frozenset())
        self._requests.touch(name)[request] = None
        if random.random() < self.share and not self._queue.full():  # noqa: S311  no secret
            self._queue.put_nowait((name, request))

    def recent(self, name: CollectionName) -> tuple[SearchRequest, ...]:
        """Distinct remembered searches, newest first."""
        return tuple(reversed(self._requests.get(name, ())))

    async def run(self, stop: asyncio.Event) -> None:
        """Answer queued searches again, one at a time, until `stop`. Errors are counted and logged, not raised."""
        async with in_background(self._answer_queued()):
            await stop.wait()

    async def _answer_queued(self) -> None:
        while True:
            name, request = await self._queue.get()
            try:
                targets = await self._targets.get_or_compute(name, partial(self._current_targets, name))
                for candidate in targets.candidates:
                    await self._compare_one(targets.collection, candidate, request)
            except AzimuthError as error:  # of the active version or the database: not the candidate's fault
                self._targets.forget(name)
                log.info("search not answered again", extra={"collection": name, "reason": error.detail})
            except Exception:  # one odd search must not end the loop
                log.exception("search not answered again", extra={"collection": name})

    async def _current_targets(self, name: CollectionName) -> ShadowTargets:
        """Results of or against versions that are not concerned any more are dropped."""
        collection = await self.collections.by_name(name)
        # The previous version is ready too, but needs no evidence.
        others = (collection.active_version, collection.previous_version)
        candidates = tuple(
            version
            for version in await self.versions.of(collection.id)
            if version.state in _CANDIDATE_STATES and version.number not in others and not version.spec.external
        )
        kept = {(collection.id, collection.active_version, version.number) for version in candidates}
        for key in [key for key in self._windows if key[0] == collection.id and key not in kept]:
            del self._windows[key]
            metrics.SHADOW_OVERLAP.remove_by_labels({"collection": collection.name, "version": str(key[2])})
        return ShadowTargets(collection, candidates)

    async def _compare_one(self, collection: Collection, version: EmbedderVersion, request: SearchRequest) -> None:
        """Answer one search by both versions and record how they differ, or that the candidate could not answer.

        AzimuthError where the active version cannot answer it in full, NotFound also where the candidate is gone.
        """
        active = collection.active_version
        answers: dict[VersionNumber, tuple[tuple[DocumentId, ...], float]] = {}
        # In random order, or the second would always find in memory what the first had to read.
        for number in random.sample((active, version.number), 2):
            started = time.perf_counter()
            try:
                pinned = replace(request, embedder_version=number)
                answer = await self.search.run_background(collection.name, pinned)
                if not answer.complete:
                    raise Unavailable("; ".join(f"{one.stage}: {one.reason}" for one in answer.degraded))
            except AzimuthError as error:
                if number == active or isinstance(error, NotFound):
                    raise
                continue
            answers[number] = tuple(hit.id for hit in answer.hits), 1_000 * (time.perf_counter() - started)
        window = self._window(collection, version.number)
        metrics.SHADOW_SEARCHES.labels(collection.name, str(version.number)).inc()
        if version.number not in answers:
            window.errors += 1
            return
        (old, old_ms), (new, new_ms) = answers[active], answers[version.number]
        overlap, tau = overlap_at_k(old, new, DEPTH), kendall_tau(old, new)
        window.comparisons[request] = ShadowComparison(overlap, tau, old_ms, new_ms)
        mean = statistics.fmean(one.overlap for one in window.comparisons.values())
        metrics.SHADOW_OVERLAP.labels(collection.name, str(version.number)).set(mean)

    def report(self, collection: Collection, version: EmbedderVersion) -> ShadowReport | None:
        """None where this version has answered nothing yet."""
        return self._window(collection, version.number).report()

    async def compare(self, collection: Collection, version: EmbedderVersion, limit: int) -> ShadowReport | None:
        """The report, after answering remembered searches until it has `limit` of them or `COMPARE_SECONDS` are over.

        None where there is nothing to compare: no search is remembered, or the version is active itself.
        """
        if version.number == collection.active_version or version.spec.external:
            return None
        known = self._window(collection, version.number).comparisons
        unknown = [request for request in self.recent(collection.name) if request not in known]
        deadline = time.monotonic() + COMPARE_SECONDS
        for request in unknown[: max(0, limit - len(known))]:
            if time.monotonic() > deadline:
                break
            with suppress(AzimuthError):  # of the active version: nothing to compare with
                await self._compare_one(collection, version, request)
            await asyncio.sleep(0)
        return self.report(collection, version)

    def _window(self, collection: Collection, number: VersionNumber) -> ShadowWindow:
        return self._windows.setdefault((collection.id, collection.active_version, number), ShadowWindow())
