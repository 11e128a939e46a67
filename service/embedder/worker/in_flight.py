"""What a worker has in hand: claimed documents on their way, and their leases."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.core.documents import Chunk
from service.core.ids import Vectors
from service.core.jobs import ClaimedJob, EncodedDocument, Job, Lane
from service.core.ports.embedder import Encoder
from service.core.versions import EmbedderVersion


@dataclass(slots=True, eq=False)
class InFlightDocument:
    """One claimed document: chunks when it was cut, then their vectors as they come, in any order."""

    claimed: ClaimedJob
    version: EmbedderVersion
    encoder: Encoder
    charged: bool = False
    """Counted against already, before it was tried."""
    chunks: tuple[Chunk, ...] = ()
    rows: dict[int, Vectors] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Given up, given back or stored: whatever is still under way for it is dropped."""

    @property
    def ended(self) -> bool:
        return self.over.is_set()

    @property
    def job(self) -> Job:
        return self.claimed.job

    @property
    def complete(self) -> bool:
        return not self.ended and len(self.rows) == len(self.chunks) > 0

    def encoded(self) -> EncodedDocument:
        return EncodedDocument(
            job=self.job, chunks=self.chunks, vectors=np.stack([self.rows[n] for n in range(len(self.chunks))])
        )


@dataclass(frozen=True, slots=True)
class InFlightChunk:
    """One chunk of one document."""

    work: InFlightDocument
    number: int

    @property
    def chunk(self) -> Chunk:
        return self.work.chunks[self.number]


@dataclass(frozen=True, slots=True)
class EncodeBatch:
    """Pieces for one forward pass of one encoder."""

    encoder: Encoder
    version: EmbedderVersion
    pieces: Sequence[InFlightChunk]

    @property
    def works(self) -> list[InFlightDocument]:
        return list(dict.fromkeys(piece.work for piece in self.pieces if not piece.work.ended))


class Leases:
    """Everything claimed and not yet ended."""

    def __init__(self) -> None:
        self._held: dict[int, InFlightDocument] = {}
        self.empty = asyncio.Event()
        self.empty.set()

    def hold(self, works: Iterable[InFlightDocument]) -> None:
        for work in works:
            self._held[id(work)] = work
        if self._held:
            self.empty.clear()

    def end(self, works: Iterable[InFlightDocument]) -> None:
        for work in works:
            work.over.set()
            self._held.pop(id(work), None)
        if not self._held:
            self.empty.set()

    @property
    def jobs(self) -> list[Job]:
        return [work.job for work in self._held.values()]


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneLimits:
    """How much of a lane is taken up at once, stage by stage."""

    lane: Lane
    claim_seconds: float
    """Of the model's work."""
    claim_least: int
    code_points: int
    """Tokenized in one call; their tokens take some hundred times as many bytes."""
    pass_seconds: float | None
    """Of one forward pass; None: as long as a full batch takes."""
    write_seconds: float
    """So long finished documents are gathered before they are stored: a transaction costs as much as some of them."""


LIVE = LaneLimits(
    lane="live", claim_seconds=2.0, claim_least=64, code_points=500_000, pass_seconds=None, write_seconds=0.0
)
"""Claims: more would make new documents wait behind a backlog that is claimed already; fewer would pack badly: claims
of 32 abstracts cost 8 % more padding than all of them together, claims of 128 cost 2 %."""

BACKFILL = LaneLimits(
    lane="backfill", claim_seconds=1.0, claim_least=16, code_points=50_000, pass_seconds=0.05, write_seconds=0.5
)
"""So little that a live document hardly notices it: it may have to wait for one pass, and shares the cores."""


@dataclass(slots=True)
class WorkerPace:
    """What the model does in a second, as measured."""

    passages_per_second: float = 64.0
    passages_per_document: float = 1.0

    def cut(self, documents: int, passages: int) -> None:
        self.passages_per_document += 0.3 * (passages / documents - self.passages_per_document)

    def encoded(self, passages: int, seconds: float) -> None:
        self.passages_per_second += 0.1 * (passages / max(seconds, 1e-4) - self.passages_per_second)

    def documents(self, seconds: float) -> int:
        """About as many as keep it busy for so long."""
        return round(seconds * self.passages_per_second / max(1.0, self.passages_per_document))
