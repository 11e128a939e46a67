"""The nouns of the service: frozen values without I/O. `docs/architecture.md` explains the words.

Those of an embedder version are in `version.py`, those of a search in `query.py`.
"""

import hashlib
from collections.abc import Mapping
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
    """How two legs become one ranking. `alpha` weighs the dense leg (convex), as far as it is certain of its finds;
    `k` damps the ranks (RRF). Where the defaults come from: docs/decisions/0024."""

    method: Literal["convex", "rrf"] = "convex"
    alpha: float = 0.5
    k: int = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Reranking:
    """`depth`: hits of the first stage that the cross-encoder reads. `weight`: its share in the final score."""

    depth: int = 50
    weight: float = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """Mean nDCG@10 over held-out queries before and after a change, and the interval of the difference (95 %)."""

    before: float
    after: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """On what the ranking was chosen: judged queries, in so many folds, answered by this embedder version.

    `fusion` is the gain of fusion and candidates, `rerank` that of depth and weight beyond it; None: left as it was.
    """

    version: VersionNumber
    at: datetime
    queries: int
    folds: int
    fusion: Gain | None = None
    rerank: Gain | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionSettings:
    """`candidates`: documents that each leg brings, unless a search says otherwise."""

    embedder: EmbedderSpec = EmbedderSpec()
    language: str = "en"
    recall_target: float = 0.95
    chunking: Chunking = Chunking()
    fusion: Fusion = Fusion()
    candidates: int = 100
    rerank: Reranking = Reranking()
    tuned: Tuned | None = None
    """None where fusion, candidates and reranking are as they come, or were set by hand since."""
    indexed: tuple[str, ...] = ()
    """Fields of the metadata, dotted where they are nested, that filters find by an index of their own."""


class FieldState(StrEnum):
    """Of a declared field. While it is `building`, filters look at the documents instead."""

    BUILDING = "building"
    READY = "ready"


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedField:
    name: str
    state: FieldState


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
    """How the dense leg ran. `underfilled`: fewer candidates came back than asked for although more may exist.

    `max_scan_tuples`: rows after which an iterative scan gives up. `reason`: a code that says why it is this plan.
    """

    kind: Literal["exact", "hnsw", "hnsw_iterative", "none"] = "none"
    ef_search: int | None = None
    selectivity: float | None = None
    underfilled: bool = False
    max_scan_tuples: int | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Passing:
    """The documents that pass a filter; `ids` is None where they are too many to name (`count`: an estimate)."""

    ids: tuple[DocumentId, ...] | None
    count: int
    total: int

    @property
    def selectivity(self) -> float:
        return min(1.0, self.count / self.total) if self.total else 0.0
