"""Embedder versions, as clients send and get them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.api import problems
from service.api.schemas.base import ConfirmedQuery, RequestBody, Text, VersionNumberField, select_fields
from service.api.schemas.collections import ChunkingBody, EmbedderField, IndexBody, VersionSummary
from service.core.collections import ChunkingSettings, Collection, EmbedderSpec, IndexSettings
from service.core.versions import Calibration, EmbedderVersion, Progress, PromotionCheck, SpaceStatus

MAX_NOTE = 1_000

Note = Annotated[Text, Field(max_length=MAX_NOTE, description="Why, for whoever reads the audit trail.")]


class VersionBody(RequestBody):
    """Another embedder, another chunking or another index. What is left out is as in the active version."""

    embedder: EmbedderField | None = None
    chunking: ChunkingBody | None = None
    index: IndexBody | None = None
    note: Note = ""

    def chunking_settings(self, base: ChunkingSettings) -> ChunkingSettings:
        return base if self.chunking is None else self.chunking.apply_to(base)

    def index_settings(self, base: IndexSettings) -> IndexSettings:
        return base if self.index is None else self.index.on(base)


class PromotionBody(RequestBody):
    force: Annotated[bool, Field(description="Promote it against the evidence, which is recorded.")] = False
    note: Note = ""


class RollBackBody(RequestBody):
    """With `from` a request can be repeated safely: without it, a second roll back reverts the first one."""

    leaving: Annotated[
        VersionNumberField | None, Field(alias="from", description="The version that answers now; else 409.")
    ] = None
    note: Note = ""


class RetirementQuery(ConfirmedQuery):
    note: Note = ""


class CalibrationAnswer(TypedDict):
    """What `confidence` of searches was learnt from, and how well it did on texts that it had not seen."""

    learnt_at: datetime
    reason: str | None
    """Why nothing could be learnt."""
    chunks: int
    """As many as there were."""
    sources: Mapping[str, int]
    """Texts that it was learnt from, by kind."""
    auroc: float | None
    expected_calibration_error: float | None


class VersionFields(VersionSummary):
    paused: bool
    reason: str | None
    """Why it failed."""
    chunking: ChunkingSettings
    index: IndexSettings
    dimensions: int
    created_at: datetime


class VersionAnswer(VersionFields):
    active: bool
    previous: bool
    """The version that a roll back would make active again."""
    embedder: EmbedderSpec
    max_tokens: int
    chunks: int
    indexed: bool
    """False: the vectors are scanned exactly."""
    progress: Progress
    checks: list[PromotionCheck]
    """The evidence for promoting it; empty before it was gathered."""
    gathered_at: datetime | None
    confidence: CalibrationAnswer | None
    """Null until it was learnt."""


class VersionsAnswer(TypedDict):
    active_version: int
    previous_version: int | None
    versions: list[VersionAnswer]


class Refusal(problems.Problem):
    """A problem that, where the evidence speaks against a promotion, has all of it; `errors` has what failed."""

    checks: NotRequired[list[PromotionCheck]]


NO_PROGRESS = Progress(done=0, total=0, failed=0)
DROPPED_SPACE = SpaceStatus(rows=0, indexed=False, chunks_per_document=1.0)
"""Of a version whose table was dropped."""


def version_answer(
    collection: Collection, version: EmbedderVersion, status: SpaceStatus, progress: Progress
) -> VersionAnswer:
    evidence, calibration = version.evidence, version.calibration
    return {
        **select_fields(VersionFields, version),
        "active": version.number == collection.active_version,
        "previous": version.number == collection.previous_version,
        "embedder": version.spec,
        "max_tokens": version.identity.max_tokens,
        "chunks": status.rows,
        "indexed": status.indexed,
        "progress": progress,
        "checks": [] if evidence is None else list(evidence.checks),
        "gathered_at": None if evidence is None else evidence.gathered_at,
        "confidence": None if calibration is None else _calibration_answer(calibration),
    }


def _calibration_answer(calibration: Calibration) -> CalibrationAnswer:
    return {
        "learnt_at": calibration.learnt_at,
        "reason": calibration.reason,
        "chunks": calibration.rows,
        "sources": calibration.sources,
        "auroc": calibration.auroc,
        "expected_calibration_error": calibration.error,
    }
