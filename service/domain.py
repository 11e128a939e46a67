"""The nouns of the service: frozen values without I/O. `docs/architecture.md` explains the words."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, NewType

import numpy as np
import numpy.typing as npt

CollectionId = NewType("CollectionId", int)
CollectionName = NewType("CollectionName", str)
DocumentId = NewType("DocumentId", str)
VersionNumber = NewType("VersionNumber", int)
Fingerprint = NewType("Fingerprint", str)

Vectors = npt.NDArray[np.float32]
"""Shape [n, dimensions], each row of length 1."""

Vector = npt.NDArray[np.float32]
"""Shape [dimensions], length 1."""

Role = Literal["query", "document"]
Storage = Literal["halfvec", "vector", "binary"]
EXTERNAL = "external"
WriteStatus = Literal["created", "updated", "unchanged"]


# ---------------------------------------------------------------- collections and their settings


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedderSpec:
    """What an operator asks for. Everything here moves vectors and is part of the fingerprint.

    `dimensions` keeps the first so many (Matryoshka) and renormalises; None keeps all. `identity` is of the model
    `external` alone: the client's own name for whatever made the vectors that it brings.
    """

    model: str = "default"
    revision: str | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    dimensions: int | None = None
    identity: str | None = None

    @property
    def external(self) -> bool:
        """The vectors come with the documents and the queries: no model of ours makes them."""
        return self.model == EXTERNAL


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunking:
    """How documents are cut, in tokens of the embedder. `max_tokens` None: as much as the embedder takes."""

    max_tokens: int | None = None
    overlap_tokens: int = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """How the vectors of a version are stored and indexed. `m`, `ef_construction`: links and effort of HNSW.

    `halfvec`: 16 bits a dimension; `vector`: 32; `binary`: halfvec rows under an index of one bit a dimension, whose
    finds are scored again with the rows. The space is the same; what the index loses differs, and is measured.
    """

    m: int = 16
    ef_construction: int = 64
    storage: Storage = "halfvec"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fusion:
    """How two legs become one ranking. `alpha` weighs the dense leg (convex); `k` damps the ranks (RRF)."""

    method: Literal["convex", "rrf"] = "convex"
    alpha: float = 0.55
    k: int = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionSettings:
    embedder: EmbedderSpec = EmbedderSpec()
    language: str = "en"
    recall_target: float = 0.95
    chunking: Chunking = Chunking()
    fusion: Fusion = Fusion()


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    id: CollectionId
    name: CollectionName
    settings: CollectionSettings
    active_version: VersionNumber
    previous_version: VersionNumber | None = None
    """The version that a roll back would make active again."""
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Of one collection. `pending` and `failed` count documents that the active version waits for or has set aside."""

    documents: int
    chunks: int
    pending: int
    failed: int


# ---------------------------------------------------------------- embedder versions


class VersionState(StrEnum):
    """What becomes of what: the picture stands in `lifecycle.py`."""

    BACKFILLING = "backfilling"
    INDEXING = "indexing"
    VERIFYING = "verifying"
    READY = "ready"
    ACTIVE = "active"
    RETIRED = "retired"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Everything that decides where a text lands, as named digests and values; its digest is the fingerprint."""

    parts: Mapping[str, str]
    dimensions: int
    max_tokens: int

    @property
    def fingerprint(self) -> Fingerprint:
        parts = {**self.parts, "dimensions": str(self.dimensions), "max_tokens": str(self.max_tokens)}
        text = json.dumps(parts, sort_keys=True)
        return Fingerprint(hashlib.sha256(text.encode()).hexdigest())

    def differing(self, other: "Identity") -> tuple[str, ...]:
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
    chunking: Chunking
    identity: Identity
    fingerprint: Fingerprint
    canary: Mapping[str, tuple[float, ...]]
    """Text -> the vector that the embedder gave for it when it was registered; empty for external vectors."""
    index: Index = Index()
    paused: bool = False
    """The backfill rests. Live writes go on."""
    reason: str | None = None
    """Why it failed."""
    evidence: "Evidence | None" = None
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
    """How the vectors of one version stand. `indexed`: a valid HNSW index covers them; `indexable`: one could."""

    rows: int
    indexed: bool
    chunks_per_document: float
    indexable: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Backfill:
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
class Check:
    """One piece of evidence. `passed` None: nothing to judge by, or told for information alone."""

    name: CheckName
    passed: bool | None
    detail: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What speaks for and against promoting a version.

    `judged_at`: the upload of the judgments that were used; `against`: the version that was active, and compared with;
    `indexed`: was it searched along its index?
    """

    checks: tuple[Check, ...]
    gathered_at: datetime
    judged_at: datetime | None = None
    against: VersionNumber | None = None
    indexed: bool = False

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is False)


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
class Process:
    """A running API process, and the versions whose query encoder it has loaded and proven."""

    id: str
    host: str
    seen_at: datetime
    proven: frozenset[tuple[CollectionId, VersionNumber]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Random chunks of one version: `vectors` has shape [len(chunks), dimensions], rows of length 1."""

    chunks: tuple[tuple[DocumentId, int], ...]
    vectors: Vectors


# ---------------------------------------------------------------- documents


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """What a client sends. `vector`: for a version whose embedder is `external`; no part of the content."""

    id: DocumentId
    title: str = ""
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    vector: tuple[float, ...] | None = None

    @property
    def content_hash(self) -> bytes:
        """Decides whether the vectors and the lexical entry must be made again."""
        return hashlib.blake2b(f"{len(self.title)}:{self.title}{self.text}".encode(), digest_size=16).digest()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredDocument:
    """A document as committed.

    `revision` grows with every change, also through deletion and re-creation; `content_revision` is the revision
    at which title or text last changed: what vectors and lexical entries are made from and checked against.
    """

    id: DocumentId
    title: str
    text: str
    metadata: Mapping[str, Any]
    revision: int
    content_revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The committed outcome of writing one document."""

    id: DocumentId
    status: WriteStatus
    revision: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A passage: `text[start:end]` of its document, in code points. Its own `text` is what the embedder reads."""

    number: int
    start: int
    end: int
    text: str
    tokens: int
    """What the embedder will see, special tokens and prompt included."""
    truncated: bool = False
    """True where one indivisible piece is longer than the embedder takes: counted and visible, never silent."""


# ---------------------------------------------------------------- the queue

Lane = Literal["live", "backfill"]
"""What clients have just written, or what fills a new version: never before the former."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One document to encode for one version. `lease` fences the write: whoever lost it cannot store."""

    collection_id: CollectionId
    document_id: DocumentId
    version: VersionNumber
    content_revision: int
    attempts: int
    lease: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """The finished work of one job: chunks and their vectors (shape [len(chunks), dimensions])."""

    job: Job
    chunks: tuple[Chunk, ...]
    vectors: Vectors


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedDocument:
    """A document that was set aside, and why."""

    id: DocumentId
    version: VersionNumber
    attempts: int
    reason: str
    failed_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueStatus:
    pending: int
    failed: int
    oldest_seconds: float


# ---------------------------------------------------------------- the change feed


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Position:
    """A place in the change feed: everything up to here has been followed.

    `purged` is how far tombstones had been forgotten when this place was reached; it plays no part in the order.
    """

    xid: int = 0
    document_id: str = ""
    purged: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """The present state of a document that changed; `document` is None where it was deleted."""

    position: Position
    document_id: DocumentId
    document: StoredDocument | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangePage:
    """Consecutive changes. `lag_seconds` is the age of the oldest change not yet followed (0: caught up).

    `rebuild` is True where the position asked for is older than what the feed still knows: start again from zero.
    """

    changes: tuple[Change, ...]
    lag_seconds: float
    rebuild: bool = False


# ---------------------------------------------------------------- filters (parsed by `filters.py`)

Operator = Literal["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$contains"]
Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Condition:
    """One field against one operand. `path` is the dotted field name, split."""

    path: tuple[str, ...]
    operator: Operator
    operand: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: "Filter"


Filter = Condition | And | Or | Not


# ---------------------------------------------------------------- search


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """What one leg says of one document: its score there, and the best chunk where the leg knows chunks."""

    document_id: DocumentId
    content_revision: int
    score: float
    chunk: int | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DensePlan:
    """How the dense leg ran. `underfilled`: fewer candidates came back than asked for although more may exist."""

    kind: Literal["exact", "hnsw", "hnsw_iterative", "none"] = "none"
    ef_search: int | None = None
    selectivity: float | None = None
    underfilled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Passing:
    """The documents that pass a filter; `ids` is None where they are too many to name (`count`: a lower bound)."""

    ids: tuple[DocumentId, ...] | None
    count: int
    total: int

    @property
    def selectivity(self) -> float:
        return min(1.0, self.count / self.total) if self.total else 0.0


def finite(values: Vectors) -> npt.NDArray[np.bool_]:
    """For each row of [n, d]: can it be stored? NaN, infinity and zero length cannot (cosine is undefined there)."""
    norms = np.linalg.norm(values.astype(np.float64), axis=1)
    usable: npt.NDArray[np.bool_] = np.isfinite(values).all(axis=1) & np.isfinite(norms) & (norms > 0.0)
    return usable


def unit(values: Sequence[float]) -> Vector | None:
    """The vector of length 1 in the direction of these numbers; None where it has none (zero, NaN, infinite)."""
    wide = np.asarray(values, dtype=np.float64)
    largest = float(np.abs(wide).max(initial=0.0))
    if not math.isfinite(largest) or largest == 0.0:
        return None
    wide = wide / largest  # or the squares of very large or small numbers would overflow or vanish
    return (wide / np.linalg.norm(wide)).astype(np.float32)


def cosine(a: Vector, b: Vector) -> float:
    """Cosine of the angle between two vectors of one space; NaN where either has no direction."""
    product = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.dot(a, b)) / product if product else math.nan
