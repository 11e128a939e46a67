"""The evidence for and against the promotion of a version.

complete  documents and vectors agree, by count and by checksum
canary    the model gives the vectors that it gave when it was registered
warm      every API process has loaded the query encoder
measured  recall, geometry, judgments, shadow: `search_checks.py`

The first three change at any moment and are repeated at every promotion; measurements stay valid for `VALID_FOR`.
"""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.core.collections import Collection
from service.core.errors import ModelUnavailable, SpaceRefused
from service.core.periodic import Clock
from service.core.ports.backfills import Backfills
from service.core.ports.collections import Collections
from service.core.ports.processes import Processes
from service.core.ports.test_sets import TestSets
from service.core.ports.versions import Versions
from service.core.versions import EmbedderVersion, PromotionCheck, PromotionEvidence, VersionState
from service.spaces.model_verification import CANARY_COSINE, ModelVerifier

Measure = Callable[[Collection, EmbedderVersion], Awaitable[tuple[PromotionCheck, ...]]]
"""Makes the checks that need searches in the version."""

Prepare = Callable[[Collection, EmbedderVersion], Awaitable[None]]
"""Runs before `Measure`: chooses the `ef_search` of the version."""

VALID_FOR = timedelta(hours=1)
"""How long measurements stay valid."""
HEARTBEAT_TIMEOUT = timedelta(seconds=8)
"""Four heartbeats. An API process that is silent for longer is gone; a promotion waits longer than this."""
SETTLE_SECONDS = 10.0
"""Longest wait for the last documents, and for other processes to load the query encoder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionChecks:
    """`measure` is None in a process that cannot search: it leaves verifying to others."""

    collections: Collections
    versions: Versions
    backfills: Backfills
    test_sets: TestSets
    processes: Processes
    verifier: ModelVerifier
    measure: Measure | None
    prepare: Prepare | None = None

    async def collect_evidence(self, version: EmbedderVersion, now: Clock) -> PromotionEvidence:
        """Make all checks. Nothing is measured where the model failed the canary."""
        assert self.measure is not None
        collection = await self.collections.get(version.collection_id)
        judged_at = await self.test_sets.uploaded_at(collection.id)
        checks = await self._repeated_checks(version, now)
        searchable = not any(check.name == "canary" and check.passed is False for check in checks)
        if searchable and self.prepare is not None:
            await self.prepare(collection, version)
        status = await self.versions.status(version)
        if searchable:
            checks += await self.measure(collection, version)
        return PromotionEvidence(
            checks=checks,
            gathered_at=now(),
            judged_at=judged_at,
            against=collection.active_version,
            indexed=status.indexed,
            effort=status.ef_settings.get("all"),
        )

    async def evidence_for_promotion(self, version: EmbedderVersion, now: Clock) -> PromotionEvidence:
        """The measurements of the version where they are still valid, else new ones; the other checks are repeated."""
        collection = await self.collections.get(version.collection_id)
        evidence = await self._valid_evidence(collection, version, now())
        if evidence is None:
            return await self.collect_evidence(version, now)
        repeated = await self._repeated_checks(version, now)
        names = {check.name for check in repeated}
        measured = [check for check in evidence.checks if check.name not in names]
        return dataclasses.replace(evidence, checks=(*repeated, *measured))

    async def needs_evidence(self, version: EmbedderVersion, now: datetime) -> bool:
        """Evidence is kept valid for a version that waits to be promoted, but not for the previously active one."""
        if version.state is not VersionState.READY:
            return False
        collection = await self.collections.get(version.collection_id)
        if version.number == collection.previous_version:
            return False
        return await self._valid_evidence(collection, version, now) is None

    async def _valid_evidence(
        self, collection: Collection, version: EmbedderVersion, now: datetime
    ) -> PromotionEvidence | None:
        """The evidence if it is young, and judgments, index, `ef_search` and active version are still those of then."""
        evidence = version.evidence
        if evidence is None or now - evidence.gathered_at > VALID_FOR:
            return None
        status, judged_at = await self.versions.status(version), await self.test_sets.uploaded_at(collection.id)
        then = (evidence.against, evidence.judged_at, evidence.indexed, evidence.effort)
        current = (collection.active_version, judged_at, status.indexed, status.ef_settings.get("all"))
        return evidence if then == current else None

    async def _repeated_checks(self, version: EmbedderVersion, now: Clock) -> tuple[PromotionCheck, ...]:
        return (
            await self._completeness_check(version),
            await self._canary_check(version),
            await self._warm_check(version, now),
        )

    async def _completeness_check(self, version: EmbedderVersion) -> PromotionCheck:
        """At a moment in which the version is not behind the active one, where there is one within `SETTLE_SECONDS`.

        Under live writes each document is for some milliseconds encoded in one version and not yet in the other.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            found = await self.backfills.completeness(version)
            if found.behind == 0 or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.05)
        detail = f"{found.stored} of {found.documents} documents, checksums {'agree' if found.agrees else 'differ'}"
        for count, what in (
            (found.waiting, "wait"),
            (found.failed, "were set aside"),
            (found.behind, "are encoded in the active version and not here yet"),
        ):
            detail += f", {count} {what}" if count else ""
        figures = dataclasses.asdict(found)
        return PromotionCheck(name="complete", passed=found.complete, detail=detail, figures=figures)

    async def _canary_check(self, version: EmbedderVersion) -> PromotionCheck:
        if version.spec.external:
            detail = "the client makes these vectors; there is no model to check"
            return PromotionCheck(name="canary", passed=None, detail=detail)
        try:
            await self.verifier.reverify(version)
        except (SpaceRefused, ModelUnavailable) as error:
            return PromotionCheck(name="canary", passed=False, detail=error.detail)
        lowest = self.verifier.canary_cosines[version.collection_id, version.number]
        detail = f"lowest cosine to the registered vectors {lowest:.4f}, needed {CANARY_COSINE}"
        figures = {"lowest_cosine": lowest, "needed": CANARY_COSINE}
        return PromotionCheck(name="canary", passed=True, detail=detail, figures=figures)

    async def _warm_check(self, version: EmbedderVersion, now: Clock) -> PromotionCheck:
        """API processes load the query encoder of a new version by themselves within seconds; wait for that."""
        deadline = time.monotonic() + SETTLE_SECONDS
        key = (version.collection_id, version.number)
        while True:
            processes = await self.processes.seen_since(now() - HEARTBEAT_TIMEOUT)
            cold = [process for process in processes if key not in process.proven]
            if not cold or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        detail = f"all {len(processes)} API processes have loaded its query encoder"
        if cold:
            hosts = ", ".join(sorted({process.host for process in cold}))
            detail = f"{len(cold)} of {len(processes)} API processes have not loaded its query encoder: {hosts}"
        figures = {"processes": len(processes), "cold": len(cold)}
        return PromotionCheck(name="warm", passed=not cold, detail=detail, figures=figures)
