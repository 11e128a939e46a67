"""What speaks for and against promoting a version, measured by searching in it and in the active one.

recall     what the index loses against an exact scan, on queries like those that it will be asked
geometry   whether there is room between its vectors (`geometry.py`)
judgments  whether it answers the collection's own test set worse than the active version does (`trial.py`)
shadow     how differently it answers what clients asked; for information alone

docs/decisions/0013 says where the limits come from. All of it runs beside live searches, one search at a time.
"""

import asyncio
import dataclasses
import time
from collections.abc import Hashable, Sequence
from statistics import fmean
from typing import Any, Protocol

from service.core.collections import Collection
from service.core.errors import VersionNotFound
from service.core.ids import CollectionName, DocumentId, Vectors
from service.core.ports.documents import Documents
from service.core.ports.embedder import Embedders
from service.core.ports.test_sets import TestSets
from service.core.ports.vectors import VectorQuery
from service.core.ports.vectors import VectorStore as VectorTables
from service.core.ports.versions import Versions
from service.core.recall import TIE
from service.core.search import Candidate, DensePlan, SearchRequest
from service.core.versions import EmbedderVersion, Judgments, PromotionCheck, VectorSample
from service.diagnostics import geometry
from service.evaluation.ranking_metrics import bootstrap
from service.search import filter_planner, retrievers
from service.search.pipeline import SearchPipeline
from service.spaces.model_verification import ModelVerifier
from service.spaces.resolver import Space
from service.spaces.sampling import CollectionSampler
from service.versions.judgment_check import JudgmentCheck

RECALL_QUERIES = 200
RECALL_SECONDS = 120.0
"""Longest that recall is measured: exact scans of large spaces are slow. The interval tells what so few are worth."""
GEOMETRY_ROWS = 2_000
SHADOW_QUERIES = 100


class Comparison(Protocol):
    """How a version answers live searches beside the active one (`shadow.ShadowReport`)."""

    @property
    def queries(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def overlap_at_10(self) -> float: ...
    @property
    def kendall_tau(self) -> float | None: ...
    @property
    def old_p50_ms(self) -> float: ...
    @property
    def old_p95_ms(self) -> float: ...
    @property
    def new_p50_ms(self) -> float: ...
    @property
    def new_p95_ms(self) -> float: ...


class Watched(Protocol):
    """What is known of live searches (`shadow.Shadow`)."""

    def remembered(self, name: CollectionName) -> tuple[SearchRequest, ...]: ...

    async def compare(self, collection: Collection, version: EmbedderVersion, limit: int) -> Comparison | None: ...


class SearchChecks:
    def __init__(
        self,
        *,
        search: SearchPipeline,
        versions: Versions,
        vectors: VectorTables,
        documents: Documents,
        test_sets: TestSets,
        embedders: Embedders,
        verifier: ModelVerifier,
        shadow: Watched,
    ) -> None:
        self._versions = versions
        self._vectors = vectors
        self._test_sets = test_sets
        self._shadow = shadow
        self._sampling = CollectionSampler(vectors=vectors, documents=documents, embedders=embedders, verifier=verifier)
        self._trial = JudgmentCheck(search=search, verifier=verifier, sampling=self._sampling)

    async def __call__(self, collection: Collection, version: EmbedderVersion) -> tuple[PromotionCheck, ...]:
        """Recall, geometry, judgments, shadow. AzimuthError where it cannot be measured now; nothing is half said."""
        judgments = await self._test_sets.get(collection.id)
        active = await self._active(collection, version)
        return (
            await self._recall(collection, version, judgments),
            await self._geometry(collection, version, active),
            await self._trial.judge(collection, version, active, judgments),
            await self._compared(collection, version, active),
        )

    async def _active(self, collection: Collection, version: EmbedderVersion) -> EmbedderVersion | None:
        """The version to compare with; None where there is no other."""
        if version.number == collection.active_version:
            return None
        try:
            return await self._versions.get(collection.id, collection.active_version)
        except VersionNotFound:
            return None

    # ------------------------------------------------------------ recall

    async def _recall(
        self, collection: Collection, version: EmbedderVersion, judgments: Judgments | None
    ) -> PromotionCheck:
        """Of the 10 nearest chunks, how many the index gives when it is searched as live searches do.

        A chunk that is as near as the tenth counts as found, whichever of those equally near it is: to tell ties apart
        would blame the index for a choice that an exact scan makes as blindly.
        """
        status = await self._versions.status(version)
        if not status.indexed:
            detail = f"{status.rows} vectors are scanned exactly: nothing is lost"
            return PromotionCheck(
                name="recall", passed=True, detail=detail, figures={"recall_at_10": 1.0, "rows": status.rows}
            )
        live = [request.text for request in self._shadow.remembered(collection.name)]
        queries, sources = await self._sampling.queries(collection, version, judgments, live, RECALL_QUERIES)
        space = Space(collection=collection, version=version, status=status)
        limit = retrievers.chunks_for(space, collection.settings.candidates)
        plan = filter_planner.choose_plan(status, None, limit)
        by_distance, by_id = await self._lost(version, queries, limit, plan)
        if not by_distance:
            return PromotionCheck(name="recall", passed=None, detail="there is nothing to ask the index for")
        mean, target = await asyncio.to_thread(bootstrap, by_distance), collection.settings.recall_target
        passed = mean.mean >= target
        return PromotionCheck(
            name="recall",
            passed=passed,
            detail=f"recall@10 of the index {mean.mean:.4f} [{mean.low:.4f}, {mean.high:.4f}] over {len(by_distance)} "
            f"queries with ef_search {plan.ef_search}: {'at least' if passed else 'below'} the target {target:g}",
            figures={
                "recall_at_10": round(mean.mean, 4),
                "low": round(mean.low, 4),
                "high": round(mean.high, 4),
                "recall_at_10_by_id": round(fmean(by_id), 4),
                "target": target,
                "ef_search": plan.ef_search,
                "queries": len(by_distance),
                "sources": dict(sources),
            },
        )

    async def _lost(
        self, version: EmbedderVersion, queries: Vectors, limit: int, plan: DensePlan
    ) -> tuple[list[float], list[float]]:
        """Recall@10 of each query, by distance and by id."""
        by_distance, by_id = [], []
        deadline = time.monotonic() + RECALL_SECONDS
        for query in queries:
            exact = await self._vectors.nearest(VectorQuery(version, query, 10, DensePlan(kind="exact")))
            found = (await self._vectors.nearest(VectorQuery(version, query, limit, plan)))[: len(exact)]
            if exact:
                as_near = sum(one.score >= exact[-1].score - TIE for one in found)
                by_distance.append(as_near / len(exact))
                by_id.append(len(_chunks(exact) & _chunks(found)) / len(exact))
            if time.monotonic() > deadline:
                break
        return by_distance, by_id

    # ------------------------------------------------------------ geometry

    async def _geometry(
        self, collection: Collection, version: EmbedderVersion, active: EmbedderVersion | None
    ) -> PromotionCheck:
        """Of a sample. The active version's figures stand beside, for a reader; they decide nothing."""
        found = await self._shape(collection, version)
        figures = _rounded(found)
        if active is not None:
            figures["active"] = _rounded(await self._shape(collection, active))
        if found.rows < geometry.LEAST_ROWS:
            detail = f"{found.rows} vectors are too few to tell (at least {geometry.LEAST_ROWS})"
            return PromotionCheck(name="geometry", passed=None, detail=detail, figures=figures)
        reasons = geometry.collapsed(found)
        detail = (
            f"collapsed: {'; '.join(reasons)}"
            if reasons
            else f"not collapsed: mean cosine {found.mean_cosine:.2f}, effective rank {found.effective_rank:.0f} of "
            f"{found.dimensions}, over {found.rows} vectors"
        )
        return PromotionCheck(name="geometry", passed=not reasons, detail=detail, figures=figures)

    async def _shape(self, collection: Collection, version: EmbedderVersion) -> geometry.Geometry:
        sample = await self._vectors.sample(version, GEOMETRY_ROWS)
        texts = await self._texts(collection, sample)
        return await asyncio.to_thread(geometry.measure, sample.vectors, texts)

    async def _texts(self, collection: Collection, sample: VectorSample) -> list[Hashable]:
        """What stands for the text of each row: documents of equal content have equal vectors, and rightly so."""
        rows = await asyncio.to_thread(geometry.repeated, sample.vectors)
        repeated = [sample.chunks[row][0] for row in rows]
        contents = {
            document.id: hash((document.title, document.text))
            async for document in self._sampling.documents(collection, repeated)
        }
        return [(contents.get(document_id, document_id), chunk) for document_id, chunk in sample.chunks]

    # ------------------------------------------------------------ shadow

    async def _compared(
        self, collection: Collection, version: EmbedderVersion, active: EmbedderVersion | None
    ) -> PromotionCheck:
        found = None if active is None else await self._shadow.compare(collection, version, SHADOW_QUERIES)
        if found is None:
            return PromotionCheck(
                name="shadow", passed=None, detail="no live search was there to be answered by both versions"
            )
        said = []
        figures: dict[str, Any] = {"queries": found.queries, "errors": found.errors}
        if found.queries:
            tau = "" if found.kendall_tau is None else f", Kendall tau {found.kendall_tau:.2f}"
            said += [
                f"of the first 10 hits of {found.queries} live searches both versions share "
                f"{found.overlap_at_10:.0%}{tau}",
                f"p95 {found.old_p95_ms:.1f} ms -> {found.new_p95_ms:.1f} ms",
            ]
            figures |= {
                "overlap_at_10": round(found.overlap_at_10, 4),
                "kendall_tau": None if found.kendall_tau is None else round(found.kendall_tau, 4),
                "old_p50_ms": round(found.old_p50_ms, 1),
                "old_p95_ms": round(found.old_p95_ms, 1),
                "new_p50_ms": round(found.new_p50_ms, 1),
                "new_p95_ms": round(found.new_p95_ms, 1),
            }
        if found.errors:
            said.append(f"{found.errors} live searches it could not answer in full")
        return PromotionCheck(name="shadow", passed=None, detail="; ".join(said), figures=figures)


def _chunks(found: Sequence[Candidate]) -> set[tuple[DocumentId, int | None]]:
    return {(one.document_id, one.chunk) for one in found}


def _rounded(found: geometry.Geometry) -> dict[str, Any]:
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(found).items()
    }
