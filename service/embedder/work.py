"""What a worker has in hand: claimed documents on their way, and their leases."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.domain import Chunk, EmbedderVersion, Encoded, Job, Vectors
from service.ports import Claimed, Encoder


@dataclass(slots=True, eq=False)
class Work:
    """One claimed document: chunks when it was cut, then their vectors as they come, in any order."""

    claimed: Claimed
    version: EmbedderVersion
    encoder: Encoder
    charged: bool = False
    """Counted against already, before it was tried."""
    chunks: tuple[Chunk, ...] = ()
    rows: dict[int, Vectors] = field(default_factory=dict)
    ended: bool = False
    """Given up, given back or stored: whatever is still under way for it is dropped."""

    @property
    def job(self) -> Job:
        return self.claimed.job

    @property
    def complete(self) -> bool:
        return not self.ended and len(self.rows) == len(self.chunks) > 0

    def encoded(self) -> Encoded:
        return Encoded(
            job=self.job, chunks=self.chunks, vectors=np.stack([self.rows[n] for n in range(len(self.chunks))])
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk of one document."""

    work: Work
    number: int

    @property
    def chunk(self) -> Chunk:
        return self.work.chunks[self.number]


@dataclass(frozen=True, slots=True)
class Batch:
    """Pieces for one forward pass of one encoder."""

    encoder: Encoder
    version: EmbedderVersion
    pieces: Sequence[Piece]

    @property
    def works(self) -> list[Work]:
        return list(dict.fromkeys(piece.work for piece in self.pieces if not piece.work.ended))


class Leases:
    """Everything claimed and not yet ended."""

    def __init__(self) -> None:
        self._held: dict[int, Work] = {}
        self.empty = asyncio.Event()
        self.empty.set()

    def hold(self, works: Iterable[Work]) -> None:
        for work in works:
            self._held[id(work)] = work
        if self._held:
            self.empty.clear()

    def end(self, works: Iterable[Work]) -> None:
        for work in works:
            work.ended = True
            self._held.pop(id(work), None)
        if not self._held:
            self.empty.set()

    @property
    def jobs(self) -> list[Job]:
        return [work.job for work in self._held.values()]


@dataclass(slots=True)
class Pace:
    """How many documents to claim at once: about what the model does in two seconds, as measured.

    More would make new documents wait behind a backlog that is claimed already; fewer would pack badly: claims of 32
    abstracts cost 8 % more padding than all of them together, claims of 128 cost 2 %.
    """

    passages_per_second: float = 64.0
    passages_per_document: float = 1.0

    def cut(self, documents: int, passages: int) -> None:
        self.passages_per_document += 0.3 * (passages / documents - self.passages_per_document)

    def encoded(self, passages: int, seconds: float) -> None:
        self.passages_per_second += 0.1 * (passages / max(seconds, 1e-4) - self.passages_per_second)

    def documents(self, most: int) -> int:
        return min(most, max(64, round(2.0 * self.passages_per_second / max(1.0, self.passages_per_document))))
