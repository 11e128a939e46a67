"""Embedder versions: identity and state, progress and completeness, evidence, calibration and audit entries."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import numpy as np

from service.core.collections import ChunkingSettings, EmbedderSpec, IndexSettings
from service.core.ids import CollectionId, DocumentId, Fingerprint, Vector, Vectors, VersionNumber
from service.core.logistic import Logistic, sigmoid
from service.core.search import Candidate, Confidence, Interval
from service.core.statistics import Z


class VersionState(StrEnum):
    """`service/versions/state_machine.py` draws the transitions."""

    BACKFILLING = "backfilling"
    INDEXING = "indexing"
    VERIFYING = "verifying"
    READY = "ready"
    ACTIVE = "active"
    RETIRED = "retired"
    FAILED = "failed"


COMPLETE_STATES = frozenset({VersionState.READY, VersionState.ACTIVE})
"""All vectors are there: the version that answers searches, and those that may be promoted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedderIdentity:
    """Everything that the vector of a text depends on, as named digests and values."""

    parts: Mapping[str, str]
    dimensions: int
    max_tokens: int

    @property
    def fingerprint(self) -> Fingerprint:
        """SHA-256 of all parts."""
        return Fingerprint(hashlib.sha256(json.dumps(self._all_parts, sort_keys=True).encode()).hexdigest())

    @property
    def _all_parts(self) -> dict[str, str]:
        return {**self.parts, "dimensions": str(self.dimensions), "max_tokens": str(self.max_tokens)}

    @property
    def takes_images(self) -> bool:
        """Whether it encodes images into the space of its texts."""
        return "image" in self.parts.get("modalities", "")

    def differing(self, other: "EmbedderIdentity") -> tuple[str, ...]:
        """The names of the parts that are not equal."""
        return tuple(sorted({name for name, _ in self._all_parts.items() ^ other._all_parts.items()}))


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
    """Text -> the vector that the embedder gave when it was registered; empty for external vectors."""
    index: IndexSettings = field(default_factory=IndexSettings)
    paused: bool = False
    """The backfill is paused. Live writes continue."""
    reason: str | None = None
    """Why it failed."""
    evidence: "PromotionEvidence | None" = None
    calibration: "Calibration | None" = None
    created_at: datetime

    @property
    def dimensions(self) -> int:
        return self.identity.dimensions

    @property
    def max_chunk_tokens(self) -> int:
        most = self.identity.max_tokens
        return min(self.chunking.max_tokens or most, most)

    @property
    def written(self) -> bool:
        """Do live writes go to this version?"""
        return self.state not in (VersionState.RETIRED, VersionState.FAILED)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceStatus:
    """The table of one version. `indexed`: it has a valid HNSW index; `indexable`: one can be built for its dimensions.

    `ef_settings`: the chosen `ef_search` by selectivity of the filter (`recall.Band`).
    """

    rows: int
    indexed: bool
    chunks_per_document: float
    indexable: bool = True
    ef_settings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillStatus:
    """`waiting`: unfinished jobs of the backfill. `everything`: all documents that the version lacks are enqueued."""

    enqueued: int
    waiting: int
    everything: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Progress of the current phase: in documents during a backfill, in rows during an index build.

    `per_second` and `eta_seconds` are None where unknown, while the version is paused, and when the phase is over.
    """

    done: int
    total: int
    failed: int
    per_second: float | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Completeness:
    """Documents compared with vectors, in one snapshot. Documents that wait in the queue are on neither side.

    A checksum is the sum of hashes of (document id, content revision): equal only where every vector is of its
    document's current content. `waiting`: jobs of the backfill; `failed`: documents set aside here but not in the
    active version; `behind`: documents that the active version has encoded and this one has not.
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
        """Under live writes a few documents are always behind. Are these more than 10 and more than 1 % of all?"""
        return self.behind > max(10, 0.01 * (self.documents + self.behind))

    @property
    def complete(self) -> bool:
        return self.agrees and self.waiting == 0 and self.failed == 0 and not self.lagging


CheckName = Literal["complete", "canary", "warm", "recall", "geometry", "judgments", "shadow"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionCheck:
    """One piece of evidence. `passed` None: it could not be decided, or is for information alone."""

    name: CheckName
    passed: bool | None
    detail: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionEvidence:
    """The checks of a version, and what they were made with.

    `judged_at`: upload of the judgments; `against`: the active version; `indexed`: was the index searched?
    `effort`: the chosen `ef_search`.
    """

    checks: tuple[PromotionCheck, ...] = ()
    gathered_at: datetime
    judged_at: datetime | None = None
    against: VersionNumber | None = None
    indexed: bool = False
    effort: int | None = None

    @property
    def failed(self) -> tuple[PromotionCheck, ...]:
        return tuple(check for check in self.checks if check.passed is False)


UNCORRECTED = 2.0
"""Standard deviation of log-odds that were learnt without real queries, from one collection and kind of foreign queries
to another (docs/decisions/0074)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Predicts from the top scores of a search whether its query can be answered by the collection.

    `dense` uses the highest cosine, `both` also the highest BM25 as a share of its maximum; None where nothing could
    be learnt, with the `reason`. `rows`: chunks at that time; `sources`: numbers of training texts by kind;
    `judged_at`: upload of the judged queries among them. `auroc` and `error` (expected calibration error): of `both`
    on held-out texts. `correction`: of the log-odds together with the query's vector, by real queries. `deviation`:
    standard deviation of the log-odds. `marks`: so many queries were marked then.
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
    correction: Logistic | None = None
    deviation: float = UNCORRECTED
    marks: int = 0

    def estimate(self, cosine: float, bm25: float | None, vector: Vector) -> Confidence:
        """`bm25` None: by `dense` alone. Only where something was learnt."""
        line, features = (self.dense, [cosine]) if self.both is None or bm25 is None else (self.both, [cosine, bm25])
        assert line is not None
        log_odds = line.log_odds(features)
        if self.correction is not None:
            log_odds = self.correction.log_odds([log_odds, *vector])
        value, low, high = map(float, sigmoid(log_odds + Z * self.deviation * np.array([0.0, -1.0, 1.0])))
        return Confidence(in_domain=value, interval=Interval(low=round(low, 4), high=round(high, 4)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgments:
    """A collection's own test set. `queries`: id -> text; `grades`: query id -> document id -> relevance."""

    queries: Mapping[str, str]
    grades: Mapping[str, Mapping[str, int]]
    uploaded_at: datetime

    def relevant(self) -> Mapping[str, frozenset[DocumentId]]:
        """By query. A query without relevant documents is left out: no ranking of it is better than another."""
        return {
            query: ids
            for query, grades in self.grades.items()
            if query in self.queries and (ids := frozenset(DocumentId(id_) for id_ in grades if grades[id_] > 0))
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A query that a client marked. `documents`: those that helped. `tenant`: see `Access.tenant`."""

    id: str
    query: str
    answered: bool
    documents: tuple[DocumentId, ...]
    actor: str
    tenant: str
    at: datetime


MAX_MARKS = 10_000
"""Of one tenant in one collection; the oldest ones are dropped."""


def mark_id(tenant: str, query: str) -> str:
    """A tenant has one mark for each query."""
    return hashlib.sha256(f"{tenant}\n{query}".encode()).hexdigest()[:32]


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
    "renamed",
    "alias_set",
    "alias_deleted",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEntry:
    """Who changed what, when, and on which evidence. `number` increases; 0 in an entry that is not written yet.

    `version`: the one that was changed or became active; `before`: the one that was active until then.
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
    """A running API process. `proven`: the versions whose query encoder it has loaded and verified."""

    id: str
    host: str
    seen_at: datetime
    proven: frozenset[tuple[CollectionId, VersionNumber]]


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorSample:
    """Random chunks of one version: `vectors` has shape [len(chunks), dimensions], rows of length 1.

    `places`: where their texts are, one for each chunk, for `Documents.passages`.
    """

    chunks: tuple[tuple[DocumentId, int], ...]
    vectors: Vectors
    places: tuple[Candidate, ...] = ()
