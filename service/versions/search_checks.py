"""The promotion checks that search: in the version, and in the active one to compare with.

recall     what the index loses against an exact scan, on queries like those of clients
geometry   whether the vectors are spread out (`service/diagnostics/geometry.py`)
judgments  whether the collection's own test set gets worse answers than from the active version (`judgment_check.py`)
shadow     how differently it answers what clients searched for; for information alone

docs/decisions/0013 says where the limits come from. One search runs at a time, beside live searches.
"""

import asyncio
import dataclasses
import time
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from service.core.collections import Collection
from service.core.errors import VersionNotFound
from service.core.ids import Vectors
from service.core.ports.test_sets import TestSets
from service.core.ports.vectors import VectorQuery, VectorStore
from service.core.ports.versions import Versions
from service.core.recall import TIE
from service.core.search import DensePlan
from service.core.versions import EmbedderVersion, Judgments, PromotionCheck
from service.diagnostics import geometry
from service.evaluation.ranking_metrics import bootstrap
from service.search import filter_planner, retrievers
from service.search.pipeline import SearchPipeline
from service.spaces.model_verification import ModelVerifier
from service.spaces.resolver import Space
from service.spaces.sampling import CollectionSampler
from service.versions.judgment_check import JudgmentCheck
from service.versions.shadow_traffic import ShadowTraffic

RECALL_QUERIES = 200
RECALL_SECONDS = 120.0
"""Longest measurement of recall: exact scans of large spaces are slow. The interval says what few queries are worth."""
GEOMETRY_ROWS = 2_000
SHADOW_QUERIES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchChecks:
    """Makes the promotion checks that search in a version."""

    search: SearchPipeline
    versions: Versions
    vectors: VectorStore
    test_sets: TestSets
    verifier: ModelVerifier
    sampling: CollectionSampler
    shadow: ShadowTraffic

    async def measure(self, collection: Collection, version: EmbedderVersion) -> tuple[PromotionCheck, ...]:
        """All checks, or AzimuthError where one of them cannot be made now."""
        judgments = await self.test_sets.get(collection.id)
        active = await self._active_version(collection, version)
        judgment_check = JudgmentCheck(search=self.search, verifier=self.verifier, sampling=self.sampling)
        return (
            await self._recall_check(collection, version, judgments),
            await self._geometry_check(collection, version, active),
            await judgment_check.compare(collection, version, active, judgments),
            await self._shadow_check(collection, version, active),
        )

    async def _active_version(self, collection: Collection, version: EmbedderVersion) -> EmbedderVersion | None:
        """The version to compare with; None where there is no other."""
        if version.number != collection.active_version:
            with suppress(VersionNotFound):
                return await self.versions.get(collection.id, collection.active_version)
        return None

    async def _recall_check(
        self, collection: Collection, version: EmbedderVersion, judgments: Judgments | None
    ) -> PromotionCheck:
        """Recall@10 of the index when it is searched as live searches do.

        Every chunk that is as near as the tenth counts as found: among equally near ones an exact scan chooses blindly.
        """
        status = await self.versions.status(version)
        if not status.indexed:
            detail = f"{status.rows} vectors are scanned exactly: nothing is lost"
            figures: dict[str, Any] = {"recall_at_10": 1.0, "rows": status.rows}
            return PromotionCheck(name="recall", passed=True, detail=detail, figures=figures)
        live = [request.text for request in self.shadow.recent(collection.name)]
        queries, sources = await self.sampling.query_vectors(collection, version, judgments, live, RECALL_QUERIES)
        space = Space(collection=collection, version=version, status=status)
        limit = retrievers.chunks_for(space, collection.settings.candidates)
        plan = filter_planner.choose_plan(status, None, limit)
        by_distance, by_id = await self._recall_of_queries(version, queries, limit, plan)
        if not by_distance:
            return PromotionCheck(name="recall", passed=None, detail="there is no query to measure the index with")
        interval, target = await asyncio.to_thread(bootstrap, by_distance), collection.settings.recall_target
        passed = interval.mean >= target
        return PromotionCheck(
            name="recall",
            passed=passed,
            detail=f"recall@10 of the index {interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}] over "
            f"{len(by_distance)} queries with ef_search {plan.ef_search}: {'at least' if passed else 'below'} the "
            f"target {target:g}",
            figures={
                "recall_at_10": round(interval.mean, 4),
                "low": round(interval.low, 4),
                "high": round(interval.high, 4),
                "recall_at_10_by_id": round(fmean(by_id), 4),
                "target": target,
                "ef_search": plan.ef_search,
                "queries": len(by_distance),
                "sources": dict(sources),
            },
        )

    async def _recall_of_queries(
        self, version: EmbedderVersion, queries: Vectors, limit: int, plan: DensePlan
    ) -> tuple[list[float], list[float]]:
        """Recall@10 of each query, by distance and by id."""
        by_distance, by_id = [], []
        deadline = time.monotonic() + RECALL_SECONDS
        for query in queries:
            exact = await self.vectors.nearest(VectorQuery(version, query, 10, DensePlan(kind="exact")))
            found = (await self.vectors.nearest(VectorQuery(version, query, limit, plan)))[: len(exact)]
            if exact:
                as_near = sum(one.score >= exact[-1].score - TIE for one in found)
                by_distance.append(as_near / len(exact))
                exact_ids, ids = ({(one.document_id, one.chunk) for one in chunks} for chunks in (exact, found))
                by_id.append(len(exact_ids & ids) / len(exact))
            if time.monotonic() > deadline:
                break
        return by_distance, by_id

    async def _geometry_check(
        self, collection: Collection, version: EmbedderVersion, active: EmbedderVersion | None
    ) -> PromotionCheck:
        """The active version's figures are added for the reader alone."""
        found = await self._measure_geometry(collection, version)
        figures = _rounded(found)
        if active is not None:
            figures["active"] = _rounded(await self._measure_geometry(collection, active))
        if found.rows < geometry.MIN_ROWS:
            detail = f"{found.rows} vectors are too few to tell (at least {geometry.MIN_ROWS})"
            return PromotionCheck(name="geometry", passed=None, detail=detail, figures=figures)
        reasons = geometry.collapse_reasons(found)
        detail = (
            f"collapsed: {'; '.join(reasons)}"
            if reasons
            else f"not collapsed: mean cosine {found.mean_cosine:.2f}, effective rank {found.effective_rank:.0f} of "
            f"{found.dimensions}, over {found.rows} vectors"
        )
        return PromotionCheck(name="geometry", passed=not reasons, detail=detail, figures=figures)

    async def _measure_geometry(self, collection: Collection, version: EmbedderVersion) -> geometry.Geometry:
        """Documents with equal contents have equal vectors, which is no sign of collapse."""
        sample = await self.vectors.sample(version, GEOMETRY_ROWS)
        rows = await asyncio.to_thread(geometry.duplicate_rows, sample.vectors)
        repeated = [sample.chunks[row][0] for row in rows]
        contents = {
            document.id: hash((document.title, document.text))
            async for document in self.sampling.documents(collection, repeated)
        }
        keys = [(contents.get(document_id, document_id), chunk) for document_id, chunk in sample.chunks]
        return await asyncio.to_thread(geometry.measure_geometry, sample.vectors, keys)

    async def _shadow_check(
        self, collection: Collection, version: EmbedderVersion, active: EmbedderVersion | None
    ) -> PromotionCheck:
        report = None if active is None else await self.shadow.compare(collection, version, SHADOW_QUERIES)
        if report is None:
            return PromotionCheck(name="shadow", passed=None, detail="there is no live search to compare answers of")
        details = []
        figures: dict[str, Any] = {"queries": report.queries, "errors": report.errors}
        if report.queries:
            tau = "" if report.kendall_tau is None else f", Kendall tau {report.kendall_tau:.2f}"
            details += [
                f"of the first 10 hits of {report.queries} live searches both versions share "
                f"{report.overlap_at_10:.0%}{tau}",
                f"p95 {report.old_p95_ms:.1f} ms -> {report.new_p95_ms:.1f} ms",
            ]
            figures["overlap_at_10"] = round(report.overlap_at_10, 4)
            figures["kendall_tau"] = None if report.kendall_tau is None else round(report.kendall_tau, 4)
            for name in ("old_p50_ms", "old_p95_ms", "new_p50_ms", "new_p95_ms"):
                figures[name] = round(getattr(report, name), 1)
        if report.errors:
            details.append(f"{report.errors} live searches it could not answer in full")
        return PromotionCheck(name="shadow", passed=None, detail="; ".join(details), figures=figures)


def _rounded(found: geometry.Geometry) -> dict[str, Any]:
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(found).items()
    }
