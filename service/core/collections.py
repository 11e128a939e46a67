"""Collections and their settings: embedder, chunking, index, fusion and reranking."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from service.core.ids import CollectionId, CollectionName, VersionNumber
from service.core.metadata import FieldType, FieldTypes

Storage = Literal["halfvec", "vector", "binary", "scalar"]
IndexKind = Literal["hnsw", "ivfflat", "vchordrq", "diskann"]
INDEXED_STORAGES: Mapping[IndexKind, tuple[Storage, ...]] = {
    "hnsw": ("halfvec", "vector", "binary", "scalar"),
    "ivfflat": ("halfvec", "vector"),
    "vchordrq": ("halfvec", "vector"),
    "diskann": ("vector",),
}
"""The storages that each kind of index is built on."""

EXTERNAL = "external"


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedderSpec:
    """The requested embedder. Everything here changes vectors and is part of the fingerprint.

    `dimensions` keeps the first so many (Matryoshka) and renormalises; None keeps all. `identity` is for the model
    `external` only: the client's name for what makes its vectors.
    """

    model: str = "default"
    revision: str | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    dimensions: int | None = None
    identity: str | None = None

    @property
    def external(self) -> bool:
        """Clients bring the vectors with documents and queries; the service has no model for them."""
        return self.model == EXTERNAL


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkingSettings:
    """How documents are split, in tokens of the embedder. `max_tokens` None: as many as the embedder takes."""

    max_tokens: int | None = None
    overlap_tokens: int = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexSettings:
    """How the vectors of a version are stored and indexed. `m`, `ef_construction`: parameters of HNSW alone.

    `hnsw` and `ivfflat` come with pgvector, `vchordrq` with VectorChord, `diskann` with pgvectorscale.

    `halfvec`: 16 bits per dimension; `vector`: 32; `binary` and `scalar`: halfvec rows with an index of two or of four
    levels per dimension (1 or 3 bits), whose results are scored again with the rows. The space is the same; the recall
    of the index differs, and is measured.
    """

    kind: IndexKind = "hnsw"
    m: int = 16
    ef_construction: int = 64
    storage: Storage = "halfvec"


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionSettings:
    """How the rankings of the two legs are fused. `alpha`: weight of the dense leg (convex), as far as it is certain;
    `k`: the constant of RRF. The defaults are explained in docs/decisions/0024."""

    method: Literal["convex", "rrf"] = "convex"
    alpha: float = 0.5
    k: int = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankSettings:
    """`depth`: hits of the first stage that the cross-encoder scores. `weight`: its share in the final score."""

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
    """The data on which the ranking was tuned: judged queries, in so many folds, answered by this embedder version.

    `fusion` is the gain of fusion and candidates, `rerank` that of depth and weight beyond it; None: unchanged.
    """

    version: VersionNumber
    at: datetime
    queries: int
    folds: int
    fusion: MeasuredGain | None = None
    rerank: MeasuredGain | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredField:
    """A field of the metadata, dotted where it is nested, all of whose values are of this type."""

    field: str
    type: FieldType


@dataclass(frozen=True, kw_only=True, slots=True)
class SynonymRule:
    """Words or phrases that stand for each other or, with `to`, are also searched as those, but not the reverse."""

    words: tuple[str, ...]
    to: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionSettings:
    """`candidates`: documents that each leg retrieves, unless a search sets another number."""

    embedder: EmbedderSpec = EmbedderSpec()
    language: str = "en"
    recall_target: float = 0.95
    chunking: ChunkingSettings = ChunkingSettings()
    fusion: FusionSettings = FusionSettings()
    candidates: int = 100
    rerank: RerankSettings = RerankSettings()
    tuned: TuningRecord | None = None
    """None where fusion, candidates and reranking are the defaults, or were set by hand since."""
    indexed: tuple[str | DeclaredField, ...] = ()
    """Fields of the metadata that have an index for filters; a str is a field with values of any type."""
    synonyms: tuple[SynonymRule, ...] = ()
    """Of the lexical leg, when a query is read: the index knows nothing of them."""

    @property
    def field_types(self) -> FieldTypes:
        """The declared fields in order."""
        return dict((one, None) if isinstance(one, str) else (one.field, one.type) for one in self.indexed)


class FieldState(StrEnum):
    """While a declared field is `building`, filters read the documents instead."""

    BUILDING = "building"
    READY = "ready"


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedField:
    name: str
    state: FieldState
    type: FieldType | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    id: CollectionId
    name: CollectionName
    settings: CollectionSettings
    active_version: VersionNumber
    previous_version: VersionNumber | None = None
    """The version that a roll back makes active again."""
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionCounts:
    """`pending` and `failed` count the documents that the active version has not encoded yet or could not encode."""

    documents: int
    chunks: int | None
    """None for a key that sees only a part of the documents."""
    pending: int
    failed: int
