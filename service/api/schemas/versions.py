"""Embedder versions on the wire: what clients ask of them, and what they are told."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from service.api import problems
from service.api.schemas import answers, requests
from service.api.schemas.requests import ChunkingBody, EmbedderBody, QueryParameters, Text, Wire, embedder_input
from service.core.collections import ChunkingSettings, Collection, IndexSettings, Storage
from service.core.errors import Invalid
from service.core.versions import Calibration, CheckName, EmbedderVersion, Progress, PromotionCheck, SpaceStatus

MAX_NOTE = 1_000

Note = Annotated[Text, Field(max_length=MAX_NOTE, description="Why, for whoever reads the audit trail.")]


# ---------------------------------------------------------------- what clients send


class IndexBody(Wire):
    """How the vectors are stored and indexed. What is left out is as in the active version.

    `halfvec` has 16 bits a dimension, `vector` 32; `binary` indexes one bit a dimension and scores the finds again.
    """

    m: Annotated[int, Field(ge=2, le=100, description="Links of each node of the HNSW graph.")] = IndexSettings().m
    ef_construction: Annotated[int, Field(ge=4, le=1_000, description="Effort of building it; at least twice `m`.")] = (
        IndexSettings().ef_construction
    )
    storage: Storage = IndexSettings().storage

    def over(self, base: IndexSettings) -> IndexSettings:
        """`base` with what the client named changed. Invalid where pgvector could not build it."""
        index = replace(base, **self.model_dump(exclude_unset=True))
        if index.ef_construction < 2 * index.m:
            raise Invalid.at("index.ef_construction", f"must be at least twice m, which is {index.m}")
        return index


class VersionBody(Wire):
    """Another embedder, another chunking or another index. What is left out is as in the active version."""

    embedder: Annotated[
        EmbedderBody | None,
        BeforeValidator(embedder_input, json_schema_input_type=Annotated[str, Field(max_length=300)] | EmbedderBody),
    ] = None
    chunking: ChunkingBody | None = None
    index: IndexBody | None = None
    note: Note = ""

    def chunking_over(self, base: ChunkingSettings) -> ChunkingSettings:
        return base if self.chunking is None else self.chunking.over(base)

    def index_over(self, base: IndexSettings) -> IndexSettings:
        return base if self.index is None else self.index.over(base)


class PromotionBody(Wire):
    force: Annotated[bool, Field(description="Promote it against the evidence, which is recorded.")] = False
    note: Note = ""


class RollBackBody(Wire):
    """`from` makes a request bear repetition: without it, a second roll back takes the first one back."""

    leaving: Annotated[
        requests.Number | None, Field(alias="from", description="The version that answers now; 409 where another does.")
    ] = None
    note: Note = ""


class NoteQuery(QueryParameters):
    note: Note = ""


# ---------------------------------------------------------------- what clients get


class IndexAnswer(TypedDict):
    m: int
    ef_construction: int
    storage: Storage


class ProgressAnswer(TypedDict):
    """Of the phase that the version is in: in documents while it is filled, in rows while its index is built."""

    done: int
    total: int
    failed: int
    per_second: float | None
    eta_seconds: float | None
    """Null where nothing is known yet, the version rests, or nothing is left to do."""


class CheckAnswer(TypedDict):
    name: CheckName
    passed: bool | None
    """Null: there is nothing to judge by, or it is told for information alone."""
    detail: str
    figures: dict[str, Any]


class CalibrationAnswer(TypedDict):
    """What `confidence` of searches was learnt from, and how well it did on texts that it had not seen."""

    learnt_at: str
    reason: str | None
    """Why nothing could be learnt."""
    chunks: int
    """As many as there were."""
    sources: dict[str, int]
    """Texts that it was learnt from, by kind."""
    auroc: float | None
    expected_calibration_error: float | None


class VersionAnswer(answers.VersionSummary):
    active: bool
    previous: bool
    """The version that a roll back would make active again."""
    paused: bool
    reason: str | None
    """Why it failed."""
    embedder: answers.EmbedderAnswer
    chunking: answers.ChunkingAnswer
    index: IndexAnswer
    dimensions: int
    max_tokens: int
    chunks: int
    indexed: bool
    """False: the vectors are scanned exactly."""
    progress: ProgressAnswer
    checks: list[CheckAnswer]
    """The evidence for promoting it; empty before it was gathered."""
    gathered_at: str | None
    confidence: CalibrationAnswer | None
    """Null until it was learnt."""
    created_at: str


class VersionsAnswer(TypedDict):
    active_version: int
    previous_version: int | None
    versions: list[VersionAnswer]


class Refusal(problems.Problem):
    """A problem that, where the evidence speaks against a promotion, carries all of it; `errors` has what failed."""

    checks: NotRequired[list[CheckAnswer]]


NO_PROGRESS = Progress(done=0, total=0, failed=0)
GONE = SpaceStatus(rows=0, indexed=False, chunks_per_document=1.0)
"""A version whose table was dropped."""


def version(collection: Collection, one: EmbedderVersion, status: SpaceStatus, progress: Progress) -> VersionAnswer:
    embedder: Any = asdict(one.spec)
    chunking: Any = asdict(one.chunking)
    index: Any = asdict(one.index)
    shown_progress: Any = asdict(progress)
    return {
        **answers.summary(one),
        "active": one.number == collection.active_version,
        "previous": one.number == collection.previous_version,
        "paused": one.paused,
        "reason": one.reason,
        "embedder": embedder,
        "chunking": chunking,
        "index": index,
        "dimensions": one.dimensions,
        "max_tokens": one.identity.max_tokens,
        "chunks": status.rows,
        "indexed": status.indexed,
        "progress": shown_progress,
        "checks": checks(() if one.evidence is None else one.evidence.checks),
        "gathered_at": None if one.evidence is None else one.evidence.gathered_at.isoformat(),
        "confidence": None if one.calibration is None else _calibration(one.calibration),
        "created_at": one.created_at.isoformat(),
    }


def _calibration(learnt: Calibration) -> CalibrationAnswer:
    return {
        "learnt_at": learnt.learnt_at.isoformat(),
        "reason": learnt.reason,
        "chunks": learnt.rows,
        "sources": dict(learnt.sources),
        "auroc": learnt.auroc,
        "expected_calibration_error": learnt.error,
    }


def checks(found: Sequence[PromotionCheck]) -> list[CheckAnswer]:
    return [
        {"name": one.name, "passed": one.passed, "detail": one.detail, "figures": dict(one.figures)} for one in found
    ]
