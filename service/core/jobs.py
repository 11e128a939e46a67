"""Jobs of the queue: documents that wait for an embedder."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from service.core.documents import Chunk, StoredDocument
from service.core.ids import CollectionId, DocumentId, Vectors, VersionNumber

Lane = Literal["live", "backfill"]
"""`live`: what clients have just written; `backfill`: what fills a new version, and waits for live jobs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One document to encode for one version. `lease` fences the write: a worker that lost it cannot store."""

    collection_id: CollectionId
    document_id: DocumentId
    version: VersionNumber
    content_revision: int
    attempts: int
    lease: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedDocument:
    """The result of one job: chunks and their vectors (shape [len(chunks), dimensions])."""

    job: Job
    chunks: tuple[Chunk, ...]
    vectors: Vectors


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedDocument:
    """A document that could not be encoded, and why."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedJob:
    """A leased job with its document. `lost_leases`: how many leases expired with their workers. `image`: a preview."""

    job: Job
    document: StoredDocument
    lost_leases: int
    image: bytes | None = None
