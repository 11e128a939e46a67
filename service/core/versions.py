"""The nouns of an embedder version: what it is, how it stands, how far it is, and what speaks for or against it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from service.core.collections import ChunkingSettings, EmbedderSpec, IndexSettings
from service.core.ids import CollectionId, DocumentId, Fingerprint, Vectors, VersionNumber
from service.core.logistic import Logistic
from service.core.search import Candidate


class VersionState(StrEnum):
    """What becomes of what: the picture stands in `lifecycle.py`."""

    BACKFILLING = "backfilling"
    INDEXING = "indexing"
    VERIFYING = "verifying"
    READY = "ready"
    ACTIVE = "active"
    RETIRED = "retired"
    FAILED = "failed"


COMPLETE_STATES = frozenset({VersionState.READY, VersionState.ACTIVE})
"""Complete and looked after: the one that answers, and those that may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedderIdentity:
    """Everything that decides where a text lands, as named digests and values; its digest is the fingerprint."""

    parts: Mapping[str, str]
    dimensions: int
    max_tokens: int

    @property
    def fingerprint(self) -> Fingerprint:
        parts = {**self.parts, "dimensions": str(self.dimensions), "max_tokens": str(self.max_tokens)}
        text = json.dumps(parts, sort_keys=True)
        return Fingerprint(hashlib.sha256(text.encode()).hexdigest())

    def differing(self, other: "EmbedderIdentity") -> tuple[str, ...]:
        """The names of what is not the same in both."""
        own, others = (
            {**one.parts, "dimensions": one.dimensions, "max_tokens": one.max_tokens} for one in (self, other)
        )
        return tuple(sorted(part for part in own.keys() | others.keys() if own.get(part) != others.get(part)))


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedderVersion:
    """One embedder in one collection. Its vectors live in a table of their own."""

    collection_id: CollectionId
    number: VersionNumber
    state: VersionState
    spec: EmbedderSpec
    chunking: ChunkingSettings
    identity: EmbedderIdentity
    fingerprint: Fingerprint
    canary: Mapping[str, tuple[float, ...]]
    """Text -> the vector that the embedder gave for it when it was registered; empty for external vectors."""
    index: IndexSettings = field(default_factory=IndexSettings)
    paused: bool = False
    """The backfill rests. Live writes go on."""
    reason: str | None = None
    """Why it failed."""
    evidence: "PromotionEvidence | None" = None
    calibration: "Calibration | None" = None
    created_at: datetime

    @property
    def dimensions(self) -> int:
        return self.identity.dimensions

    @property
    def written(self) -> bool:
        """Do live writes go to it?"""
        return self.state not in (VersionState.RETIRED, VersionState.FAILED)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceStatus:
    """How the vectors of one version stand. `indexed`: a valid HNSW index covers them; `indexable`: one could.

    `efforts`: how far the index is to look, by how much a filter lets pass (`recall.Band`), where that was chosen.
    """

    rows: int
    indexed: bool
    chunks_per_document: float
    indexable: bool = True
    ef_settings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillStatus:
    """How the queue stands for a version that is filled. `waiting`: jobs of the backfill that are not done yet.

    `everything`: no document is left that would have to be enqueued.
    """

    enqueued: int
    waiting: int
    everything: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Of the phase that a version is in: in documents while it is filled, in rows while its index is built.

    `per_second` and `eta_seconds` are None where nothing is known yet, the version rests, or nothing is left to do.
    """

    done: int
    total: int
    failed: int
    per_second: float | None = None
    eta_seconds: float | None = None


_FLOWING, _FLOWING_SHARE = 10, 0.01
"""Documents under way through the live lane that are no gap, and their share of all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completeness:
    """Documents against vectors, in one snapshot. Documents that wait in the queue are on neither side.

    A checksum is the sum of hashes of (document id, content revision): equal only where every vector is of the content
    that its document has now. `waiting`: jobs of the backfill; `failed`: documents set aside here but not in the active
    version; `behind`: documents that the active version has encoded and this one has not yet.
    """

    documents: int
    stored: int
    documents_checksum: str
    stored_checksum: str
    waiting: int
    failed: int
    behind: int

    @property
    def agrees(self) -> bool:
        return self.documents == self.stored and self.documents_checksum == self.stored_checksum

    @property
    def lagging(self) -> bool:
        """Under live writes a few documents are always encoded there and not yet here. Are these more than that?"""
        return self.behind > max(_FLOWING, _FLOWING_SHARE * (self.documents + self.behind))

    @property
    def complete(self) -> bool:
        return self.agrees and self.waiting == 0 and self.failed == 0 and not self.lagging


CheckName = Literal["complete", "canary", "warm", "recall", "geometry", "judgments", "shadow"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionCheck:
    """One piece of evidence. `passed` None: nothing to judge by, or told for information alone."""

    name: CheckName
    passed: bool | None
    detail: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionEvidence:
    """What speaks for and against promoting a version.

    `judged_at`: the upload of the judgments that were used; `against`: the version that was active, and compared with;
    `indexed`: was it searched along its index? `effort`: with which `ef_search`, where that was chosen.
    """

    checks: tuple[PromotionCheck, ...]
    gathered_at: datetime
    judged_at: datetime | None = None
    against: VersionNumber | None = None
    indexed: bool = False
    effort: int | None = None

    @property
    def failed(self) -> tuple[PromotionCheck, ...]:
        return tuple(check for check in self.checks if check.passed is False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What the top scores of a search in a version say of its question: is it one for this collection?

    `dense` reads the highest cosine, `both` that and the highest BM25 as a share of what is possible; both None where
    nothing could be learnt, for this `reason`. `rows`: chunks that there were; `sources`: how many texts of which kind
    it was learnt from; `judged_at`: the upload of the judged queries among them. `auroc` and `error` (expected
    calibration error): of `both` on texts that were left out of the fit.
    """

    dense: Logistic | None = None
    both: Logistic | None = None
    reason: str | None = None
    rows: int
    sources: Mapping[str, int] = field(default_factory=dict)
    auroc: float | None = None
    error: float | None = None
    learnt_at: datetime
    judged_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgments:
    """A collection's own test set. `queries`: id -> text; `grades`: query id -> document id -> relevance."""

    queries: Mapping[str, str]
    grades: Mapping[str, Mapping[str, int]]
    uploaded_at: datetime


Action = Literal[
    "created",
    "registered",
    "indexing",
    "verifying",
    "ready",
    "failed",
    "paused",
    "resumed",
    "promoted",
    "rolled_back",
    "retired",
    "judgments",
    "settings",
    "tuned",
    "effort",
    "reindexed",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEntry:
    """Who changed what, when, and on which evidence. `number` grows; 0 in an entry that is still to be written.

    `version` is what it became or was about, `before` the version that was active until then (promotions, roll backs).
    """

    number: int = 0
    at: datetime
    actor: str
    action: Action
    version: VersionNumber | None = None
    before: VersionNumber | None = None
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiProcess:
    """A running API process, and the versions whose query encoder it has loaded and proven."""

    id: str
    host: str
    seen_at: datetime
    proven: frozenset[tuple[CollectionId, VersionNumber]]


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorSample:
    """Random chunks of one version: `vectors` has shape [len(chunks), dimensions], rows of length 1.

    `places`: where their texts are, aligned with the chunks, for `Documents.passages`.
    """

    chunks: tuple[tuple[DocumentId, int], ...]
    vectors: Vectors
    places: tuple[Candidate, ...] = ()
