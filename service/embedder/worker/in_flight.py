"""Claimed documents on their way through the worker, and their leases."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from service.core.documents import Chunk
from service.core.ids import Vectors
from service.core.jobs import ClaimedJob, EncodedDocument, Job, Lane
from service.core.ports.embedder import Encoder
from service.core.versions import EmbedderVersion


@dataclass(slots=True, eq=False)
class InFlightDocument:
    """One claimed document: first its chunks, then their vectors as they arrive, in any order.

    `failure_recorded`: an attempt was counted before it was made. `settled`: the document was stored, given back or
    given up, so work that is still under way for it is dropped.
    """

    claimed: ClaimedJob
    version: EmbedderVersion
    encoder: Encoder
    failure_recorded: bool = False
    chunks: tuple[Chunk, ...] = ()
    rows: dict[int, Vectors] = field(default_factory=dict)
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_settled(self) -> bool:
        return self.settled.is_set()

    @property
    def job(self) -> Job:
        return self.claimed.job

    @property
    def is_complete(self) -> bool:
        return not self.is_settled and len(self.rows) == len(self.chunks) > 0

    def encoded(self) -> EncodedDocument:
        vectors = np.stack([self.rows[chunk.number] for chunk in self.chunks])
        return EncodedDocument(job=self.job, chunks=self.chunks, vectors=vectors)


@dataclass(frozen=True, slots=True)
class InFlightChunk:
    """One chunk of one document."""

    document: InFlightDocument
    chunk: Chunk


class Leases:
    """All documents that are claimed and not settled."""

    def __init__(self) -> None:
        self._held: dict[InFlightDocument, None] = {}
        self.empty = asyncio.Event()
        self.empty.set()

    def hold(self, documents: Iterable[InFlightDocument]) -> None:
        self._held |= dict.fromkeys(documents)
        if self._held:
            self.empty.clear()

    def settle(self, documents: Iterable[InFlightDocument]) -> None:
        for document in documents:
            document.settled.set()
            self._held.pop(document, None)
        if not self._held:
            self.empty.set()

    @property
    def jobs(self) -> list[Job]:
        return [document.job for document in self._held]


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneLimits:
    """How much of a lane each stage takes at once.

    `claim_seconds`: the model's work in one claim, of at least `min_claim` documents. `code_points`: tokenized in one
    call; their tokens take some hundred times as many bytes. `pass_seconds`: of one forward pass, None for a full
    batch. `write_seconds`: how long finished documents are collected before they are stored, since a transaction costs
    as much as some of them.
    """

    lane: Lane
    claim_seconds: float
    min_claim: int
    code_points: int
    pass_seconds: float | None
    write_seconds: float


LIVE_LIMITS = LaneLimits(
    lane="live", claim_seconds=2.0, min_claim=64, code_points=500_000, pass_seconds=None, write_seconds=0.0
)
"""Larger claims would make new documents wait behind claimed ones; smaller ones would pack badly: claims of 32
abstracts cost 8 % more padding than all of them together, claims of 128 cost 2 %."""

BACKFILL_LIMITS = LaneLimits(
    lane="backfill", claim_seconds=1.0, min_claim=16, code_points=50_000, pass_seconds=0.1, write_seconds=0.5
)
"""So small that a live document hardly notices: it may wait for one pass, and shares the cores."""


@dataclass(slots=True)
class EncodingThroughput:
    """Measured throughput of the model, as moving averages."""

    chunks_per_second: float = 64.0
    chunks_per_document: float = 1.0

    def record_chunking(self, documents: int, chunks: int) -> None:
        self.chunks_per_document += 0.3 * (chunks / documents - self.chunks_per_document)

    def record_encoding(self, chunks: int, seconds: float) -> None:
        self.chunks_per_second += 0.1 * (chunks / max(seconds, 1e-4) - self.chunks_per_second)

    def documents_in(self, seconds: float) -> int:
        """About how many documents keep the model busy for so long."""
        return round(seconds * self.chunks_per_second / max(1.0, self.chunks_per_document))
