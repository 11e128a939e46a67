"""Collections and their settings: embedder, chunking, index, fusion and reranking."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from service.core.ids import CollectionId, CollectionName, VersionNumber

Storage = Literal["halfvec", "vector", "binary"]


EXTERNAL = "external"


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
class ChunkingSettings:
    """How documents are cut, in tokens of the embedder. `max_tokens` None: as much as the embedder takes."""

    max_tokens: int | None = None
    overlap_tokens: int = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexSettings:
    """How the vectors of a version are stored and indexed. `m`, `ef_construction`: links and effort of HNSW.

    `halfvec`: 16 bits a dimension; `vector`: 32; `binary`: halfvec rows under an index of one bit a dimension, whose
    finds are scored again with the rows. The space is the same; what the index loses differs, and is measured.
    """

    m: int = 16
    ef_construction: int = 64
    storage: Storage = "halfvec"


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionSettings:
    """How two legs become one ranking. `alpha` weighs the dense leg (convex), as far as it is certain of its finds;
    `k` damps the ranks (RRF). Where the defaults come from: docs/decisions/0024."""

    method: Literal["convex", "rrf"] = "convex"
    alpha: float = 0.5
    k: int = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankSettings:
    """`depth`: hits of the first stage that the cross-encoder reads. `weight`: its share in the final score."""

    depth: int = 50
    weight: float = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredGain:
    """Mean nDCG@10 over held-out queries before and after a change, and the interval of the difference (95 %)."""

    before: float
    after: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningRecord:
    """On what the ranking was chosen: judged queries, in so many folds, answered by this embedder version.

    `fusion` is the gain of fusion and candidates, `rerank` that of depth and weight beyond it; None: left as it was.
    """

    version: VersionNumber
    at: datetime
    queries: int
    folds: int
    fusion: MeasuredGain | None = None
    rerank: MeasuredGain | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionSettings:
    """`candidates`: documents that each leg brings, unless a search says otherwise."""

    embedder: EmbedderSpec = EmbedderSpec()
    language: str = "en"
    recall_target: float = 0.95
    chunking: ChunkingSettings = ChunkingSettings()
    fusion: FusionSettings = FusionSettings()
    candidates: int = 100
    rerank: RerankSettings = RerankSettings()
    tuned: TuningRecord | None = None
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
class CollectionCounts:
    """Of one collection. `pending` and `failed` count documents that the active version waits for or has set aside."""

    documents: int
    chunks: int
    pending: int
    failed: int
