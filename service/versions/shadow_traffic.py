"""Live searches answered again by the versions that are to be promoted, where no client waits for it.

offer    after each live search: it is remembered, and now and then one is kept for answering again
run      answers those again, one at a time, in the active version and in every candidate
report   what came out so far
compare  for the evidence: answers remembered searches again at once, where too few were answered live
"""

import asyncio
import dataclasses
import logging
import math
import random
import statistics
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field

from service.core import metrics
from service.core.collections import Collection
from service.core.errors import AzimuthError, NotFound, Unavailable
from service.core.filters import operands
from service.core.ids import CollectionId, CollectionName, DocumentId, VersionNumber
from service.core.ports.collections import Collections
from service.core.ports.versions import Versions
from service.core.search import SearchRequest
from service.core.versions import EmbedderVersion, VersionState
from service.evaluation.ranking_metrics import kendall_tau, overlap, percentile
from service.search.pipeline import SearchPipeline

log = logging.getLogger(__name__)

DEPTH = 10
"""Hits that are compared."""
REMEMBERED = 256
"""Different searches that are kept of a collection, and comparisons that are kept of a candidate."""
LONGEST_QUERY, LARGEST_FILTER = 2_000, 64
"""Code points, and operands: what is longer is not remembered, so that memory is bounded in bytes too."""
COLLECTIONS = 64
"""Collections of which searches are kept: those searched last."""
WAITING = 32
"""Searches that wait to be answered again; what comes on top is left out."""
COMPARE_SECONDS = 30.0
"""Longest that `compare` searches."""
_LIST_SECONDS = 5.0
_CANDIDATE_STATES = frozenset({VersionState.VERIFYING, VersionState.READY})


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowReport:
    """How a candidate answers what clients asked, beside how the active version does. No judgment of which is better.

    `overlap_at_10`: mean share of the first 10 hits that both give; `kendall_tau`: mean agreement in the order of the
    hits that both give, None where there never were two; latencies of whole searches, in milliseconds. `errors`:
    searches that the candidate could not answer in full, which are not among `queries`.
    """

    queries: int
    errors: int
    overlap_at_10: float
    kendall_tau: float | None
    old_p50_ms: float
    old_p95_ms: float
    new_p50_ms: float
    new_p95_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowComparison:
    """One search answered by both. `tau` is NaN where fewer than two hits are common."""

    overlap: float
    tau: float
    old_ms: float
    new_ms: float


@dataclass(slots=True)
class ShadowWindow:
    """The last comparisons of a candidate with one active version: each search once."""

    comparisons: OrderedDict[SearchRequest, ShadowComparison] = field(default_factory=OrderedDict)
    errors: int = 0

    def add(self, request: SearchRequest, comparison: ShadowComparison) -> None:
        self.comparisons.pop(request, None)
        self.comparisons[request] = comparison
        if len(self.comparisons) > REMEMBERED:
            self.comparisons.popitem(last=False)

    def report(self) -> ShadowReport | None:
        """None where nothing was asked yet."""
        seen = list(self.comparisons.values())
        if not seen and not self.errors:
            return None
        taus = [one.tau for one in seen if not math.isnan(one.tau)]
        old, new = [one.old_ms for one in seen], [one.new_ms for one in seen]
        return ShadowReport(
            queries=len(seen),
            errors=self.errors,
            overlap_at_10=statistics.fmean(one.overlap for one in seen) if seen else 0.0,
            kendall_tau=statistics.fmean(taus) if taus else None,
            old_p50_ms=percentile(old, 0.50),
            old_p95_ms=percentile(old, 0.95),
            new_p50_ms=percentile(new, 0.50),
            new_p95_ms=percentile(new, 0.95),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowTargets:
    """A collection with the version that answers and those that might. `until`: when to look again."""

    collection: Collection
    candidates: tuple[EmbedderVersion, ...]
    until: float


class ShadowTraffic:
    """`share`: of the live searches, which are answered again while there is a candidate."""

    def __init__(self, *, search: SearchPipeline, collections: Collections, versions: Versions, share: float) -> None:
        self._search = search
        self._collections = collections
        self._versions = versions
        self._share = share
        self._remembered: OrderedDict[CollectionName, OrderedDict[SearchRequest, None]] = OrderedDict()
        self._waiting: asyncio.Queue[tuple[CollectionName, SearchRequest]] = asyncio.Queue(WAITING)
        self._scenes: dict[CollectionName, ShadowTargets] = {}
        self._windows: dict[tuple[CollectionId, VersionNumber, VersionNumber], ShadowWindow] = {}
        """By collection, active version and candidate."""

    # ------------------------------------------------------------ what clients ask

    def offer(self, name: CollectionName, request: SearchRequest) -> None:
        """A live search was answered. Costs microseconds, never waits, never fails.

        What brings its own vector or names its version says nothing about how another version would answer. Only what
        asks one question in words is kept: candidates are measured with those words, too.
        """
        if request.vector is not None or request.embedder_version is not None or not request.text:
            return
        if len(request.text) > LONGEST_QUERY or operands(request.where) > LARGEST_FILTER:
            return
        request = _comparable(request)
        known = self._remembered.setdefault(name, OrderedDict())
        self._remembered.move_to_end(name)
        known[request] = None
        known.move_to_end(request)
        if len(known) > REMEMBERED:
            known.popitem(last=False)
        if len(self._remembered) > COLLECTIONS:
            forgotten, _ = self._remembered.popitem(last=False)
            self._scenes.pop(forgotten, None)
        if random.random() < self._share:  # noqa: S311  no secret
            with suppress(asyncio.QueueFull):
                self._waiting.put_nowait((name, request))

    def remembered(self, name: CollectionName) -> tuple[SearchRequest, ...]:
        """Different searches of late, newest first."""
        return tuple(reversed(self._remembered.get(name, ())))

    # ------------------------------------------------------------ answered again

    async def run(self, stop: asyncio.Event) -> None:
        """Answer again what was kept, one search at a time, until `stop`. Trouble is counted and logged, not raised."""
        stopping = asyncio.ensure_future(stop.wait())
        working = asyncio.ensure_future(self._work())
        try:
            await asyncio.wait((stopping, working), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working

    async def _work(self) -> None:
        while True:
            name, request = await self._waiting.get()
            try:
                scene = await self._scene(name)
                for candidate in scene.candidates:
                    await self._compare_one(scene.collection, candidate, request)
            except AzimuthError as error:  # of the active version, or of the database: not the candidate's doing
                self._scenes.pop(name, None)
                log.info("a search is not answered again", extra={"collection": name, "reason": error.detail})
            except Exception:  # one odd search must not be the end of it
                log.exception("a search is not answered again", extra={"collection": name})

    async def _scene(self, name: CollectionName) -> ShadowTargets:
        """Who answers and who might, looked up anew every few seconds."""
        scene = self._scenes.get(name)
        if scene is None or scene.until < time.monotonic():
            collection = await self._collections.by_name(name)
            versions = await self._versions.of(collection.id)
            candidates = tuple(version for version in versions if _is_candidate(collection, version))
            scene = ShadowTargets(collection=collection, candidates=candidates, until=time.monotonic() + _LIST_SECONDS)
            self._forget_others(scene)
            if name in self._remembered:
                self._scenes[name] = scene
        return scene

    def _forget_others(self, scene: ShadowTargets) -> None:
        """Drop what was measured of versions that are candidates no more, or against one that is active no more."""
        collection = scene.collection
        kept = {(collection.id, collection.active_version, version.number) for version in scene.candidates}
        for key in [key for key in self._windows if key[0] == collection.id and key not in kept]:
            del self._windows[key]
            metrics.SHADOW_OVERLAP.remove_by_labels({"collection": collection.name, "version": str(key[2])})

    async def _compare_one(self, collection: Collection, version: EmbedderVersion, request: SearchRequest) -> None:
        """Answer one search in both versions and note how they differ, or that the candidate could not.

        AzimuthError where the active version cannot answer it, NotFound also where the candidate is gone.
        """
        active, answers = collection.active_version, {}
        # In random order, or the second would always find documents and words in memory that the first had to read.
        for number in random.sample((active, version.number), 2):
            try:
                answers[number] = await self._ask(collection.name, number, request)
            except AzimuthError as error:
                if number == active or isinstance(error, NotFound):
                    raise
        window = self._window(collection, version.number)
        metrics.SHADOW_SEARCHES.labels(collection.name, str(version.number)).inc()
        if version.number not in answers:
            window.errors += 1
            return
        (old, old_ms), (new, new_ms) = answers[active], answers[version.number]
        window.add(
            request,
            ShadowComparison(overlap=overlap(old, new, DEPTH), tau=kendall_tau(old, new), old_ms=old_ms, new_ms=new_ms),
        )
        mean = statistics.fmean(one.overlap for one in window.comparisons.values())
        metrics.SHADOW_OVERLAP.labels(collection.name, str(version.number)).set(mean)

    async def _ask(
        self, name: CollectionName, number: VersionNumber, request: SearchRequest
    ) -> tuple[tuple[DocumentId, ...], float]:
        """The hits of one version, best first, and milliseconds. Unavailable where a leg had to be left out."""
        started = time.perf_counter()
        answer = await self._search.run_background(name, dataclasses.replace(request, embedder_version=number))
        milliseconds = (time.perf_counter() - started) * 1000
        if not answer.complete:
            raise Unavailable("; ".join(f"{one.stage}: {one.reason}" for one in answer.degraded))
        return tuple(hit.id for hit in answer.hits), milliseconds

    # ------------------------------------------------------------ what came out

    def report(self, collection: Collection, version: EmbedderVersion) -> ShadowReport | None:
        """None where nothing was answered by this version yet."""
        return self._window(collection, version.number).report()

    async def compare(self, collection: Collection, version: EmbedderVersion, limit: int) -> ShadowReport | None:
        """The report, after answering remembered searches until `limit` different ones are in it or time is up.

        None where there is nothing to compare: no search is remembered, or the version is active itself.
        """
        if version.number == collection.active_version or version.spec.external:
            return None
        known = self._window(collection, version.number).comparisons
        unknown = [request for request in self.remembered(collection.name) if request not in known]
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


def _is_candidate(collection: Collection, version: EmbedderVersion) -> bool:
    """Might it be promoted? The version before the active one is ready too, but nobody waits for evidence of it."""
    kept_back = version.number in (collection.active_version, collection.previous_version)
    return version.state in _CANDIDATE_STATES and not kept_back and not version.spec.external


def _comparable(request: SearchRequest) -> SearchRequest:
    """The same search as the versions answer it: without the cross-encoder, which would even out what they differ in,
    withholding nothing, and without what costs time and says nothing."""
    return dataclasses.replace(request, k=DEPTH, rerank=None, min_confidence=None, budget_ms=None, include=frozenset())
