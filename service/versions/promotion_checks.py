"""All the evidence for and against a version: what is asked anew at every promotion, and what was measured before.

complete  documents and vectors agree, by count and by checksum
canary    the model gives the vectors that it gave when it was registered
warm      every API process has loaded the query encoder
measured  recall, geometry, judgments, shadow: `evidence.py`
"""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from service.core.collections import Collection
from service.core.errors import ModelUnavailable, SpaceRefused
from service.core.periodic import Clock
from service.core.ports.backfills import Backfills
from service.core.ports.collections import Collections
from service.core.ports.processes import Processes
from service.core.ports.test_sets import TestSets
from service.core.ports.versions import Versions
from service.core.versions import Completeness, EmbedderVersion, PromotionCheck, PromotionEvidence, VersionState
from service.spaces.model_verification import CANARY_COSINE, ModelVerifier

Examine = Callable[[Collection, EmbedderVersion], Awaitable[tuple[PromotionCheck, ...]]]
"""Measures what can only be measured by searching."""

Prepare = Callable[[Collection, EmbedderVersion], Awaitable[None]]
"""What comes before that: how far the version is to be searched is set."""

CURRENT = timedelta(hours=1)
"""So long what was measured is taken as it stands."""
PROCESS_SILENCE = timedelta(seconds=8)
"""An API process without a heartbeat for so long is gone: four beats, and less than a promotion waits for it."""
SETTLE_SECONDS = 10.0
"""Longest wait for the last documents, and for other processes to load the query encoder."""
_LOOK_SECONDS = 0.05


class PromotionChecks:
    """`examine` is None where this process cannot search: then verifying is left to those that can."""

    def __init__(
        self,
        *,
        collections: Collections,
        versions: Versions,
        backfills: Backfills,
        test_sets: TestSets,
        processes: Processes,
        verifier: ModelVerifier,
        examine: Examine | None,
        prepare: Prepare | None = None,
    ) -> None:
        self._collections = collections
        self._versions = versions
        self._backfills = backfills
        self._test_sets = test_sets
        self._processes = processes
        self._verifier = verifier
        self._examine = examine
        self._prepare = prepare

    @property
    def possible(self) -> bool:
        return self._examine is not None

    async def gather(self, version: EmbedderVersion, now: Clock) -> PromotionEvidence:
        """Everything that speaks for or against the version."""
        assert self._examine is not None
        collection = await self._collections.get(version.collection_id)
        judged_at = await self._test_sets.uploaded_at(collection.id)
        checks = await self._own_checks(version, now)
        sound = not any(check.name == "canary" and check.passed is False for check in checks)
        if sound and self._prepare is not None:
            await self._prepare(collection, version)
        status = await self._versions.status(version)
        if sound:
            checks += await self._examine(collection, version)
        return PromotionEvidence(
            checks=checks,
            gathered_at=now(),
            judged_at=judged_at,
            against=collection.active_version,
            indexed=status.indexed,
            effort=status.ef_settings.get("all"),
        )

    async def _own_checks(self, version: EmbedderVersion, now: Clock) -> tuple[PromotionCheck, ...]:
        """What is asked anew at every promotion."""
        return (
            _complete(await self._settled(version)),
            await self._canary(version),
            await self._warm(version, now),
        )

    async def _settled(self, version: EmbedderVersion) -> Completeness:
        """Completeness at a moment in which the active version is not ahead, if there is one soon.

        Under live writes each document is for some milliseconds encoded in one version and not yet in the other.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            completeness = await self._backfills.completeness(version)
            if completeness.behind == 0 or time.monotonic() > deadline:
                return completeness
            await asyncio.sleep(_LOOK_SECONDS)

    async def _canary(self, version: EmbedderVersion) -> PromotionCheck:
        if version.spec.external:
            return PromotionCheck(
                name="canary", passed=None, detail="the client makes these vectors; there is no model to ask"
            )
        try:
            await self._verifier.reverify(version)
        except (SpaceRefused, ModelUnavailable) as error:
            return PromotionCheck(name="canary", passed=False, detail=error.detail)
        lowest = self._verifier.canary_cosines[version.collection_id, version.number]
        return PromotionCheck(
            name="canary",
            passed=True,
            detail=f"lowest cosine to the registered vectors {lowest:.4f}, needed {CANARY_COSINE}",
            figures={"lowest_cosine": lowest, "needed": CANARY_COSINE},
        )

    async def _warm(self, version: EmbedderVersion, now: Clock) -> PromotionCheck:
        """Have all API processes loaded the query encoder? They do it by themselves, soon after a version is seen."""
        deadline = time.monotonic() + SETTLE_SECONDS
        key = (version.collection_id, version.number)
        while True:
            processes = await self._processes.seen_since(now() - PROCESS_SILENCE)
            cold = [process for process in processes if key not in process.proven]
            if not cold or time.monotonic() > deadline:
                break
            await asyncio.sleep(4 * _LOOK_SECONDS)
        hosts = ", ".join(sorted({process.host for process in cold}))
        return PromotionCheck(
            name="warm",
            passed=not cold,
            detail=f"{len(cold)} of {len(processes)} API processes have not loaded its query encoder: {hosts}"
            if cold
            else f"all {len(processes)} API processes have loaded its query encoder",
            figures={"processes": len(processes), "cold": len(cold)},
        )

    async def outdated(self, version: EmbedderVersion, now: datetime) -> bool:
        """Evidence is kept current for a version that waits to be promoted, not for one that was active before."""
        if version.state is not VersionState.READY:
            return False
        collection = await self._collections.get(version.collection_id)
        return version.number != collection.previous_version and not await self._stands(collection, version, now)

    async def _stands(self, collection: Collection, version: EmbedderVersion, now: datetime) -> bool:
        """Is what was measured young enough, and is what it was measured with and against still what there is?"""
        evidence = version.evidence
        if evidence is None or now - evidence.gathered_at > CURRENT:
            return False
        status = await self._versions.status(version)
        return (
            evidence.against == collection.active_version
            and evidence.judged_at == await self._test_sets.uploaded_at(collection.id)
            and (evidence.indexed, evidence.effort) == (status.indexed, status.ef_settings.get("all"))
        )

    async def current(self, version: EmbedderVersion, now: Clock) -> PromotionEvidence:
        """The measured evidence where it still stands, else new; what can change any moment is asked anew."""
        collection = await self._collections.get(version.collection_id)
        if version.evidence is None or not await self._stands(collection, version, now()):
            return await self.gather(version, now)
        own = await self._own_checks(version, now)
        asked = {check.name for check in own}
        measured = [check for check in version.evidence.checks if check.name not in asked]
        return dataclasses.replace(version.evidence, checks=(*own, *measured))


def _complete(found: Completeness) -> PromotionCheck:
    detail = f"{found.stored} of {found.documents} documents, checksums {'agree' if found.agrees else 'differ'}"
    for count, what in (
        (found.waiting, "wait"),
        (found.failed, "were set aside"),
        (found.behind, "are encoded in the active version and not here yet"),
    ):
        detail += f", {count} {what}" if count else ""
    return PromotionCheck(name="complete", passed=found.complete, detail=detail, figures=counted(found))


def counted(found: Completeness) -> dict[str, Any]:
    """The numbers, for figures and logs."""
    return dataclasses.asdict(found)
