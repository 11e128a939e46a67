"""One lane of the worker: claimed documents on their way to stored vectors. Each lane has stages of its own.

Nothing that is live ever stands behind something of a backfill; the two meet at the model alone (see `turns`).
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.core import metrics
from service.core.errors import NotFound
from service.core.ports.vectors import VectorStore
from service.embedder.worker.document_chunker import chunk_documents
from service.embedder.worker.encode_stage import EncodeStage
from service.embedder.worker.failure_bisection import bisect_failures
from service.embedder.worker.failure_policy import FailurePolicy
from service.embedder.worker.in_flight import (
    EncodeBatch,
    InFlightChunk,
    InFlightDocument,
    LaneLimits,
    Leases,
    WorkerPace,
)
from service.embedder.worker.priority_gate import STREAMS, PriorityGate
from service.embedder.worker.version_gate import key_of

log = logging.getLogger(__name__)

SUSPICIOUS = 3
"""So many workers lost a document before it is tried alone."""

_CLAIMS_AT_ONCE = 2
_BATCHES_AHEAD = 4
_WRITE_AT_ONCE = 256


class Pipeline:
    """The stages behind the claim: cut, encode, write."""

    def __init__(
        self,
        portions: LaneLimits,
        *,
        vectors: VectorStore,
        outcomes: FailurePolicy,
        leases: Leases,
        turns: PriorityGate,
        batch_tokens: int,
    ) -> None:
        self.portions = portions
        self.pace = WorkerPace()
        self._vectors, self._outcomes, self._leases = vectors, outcomes, leases
        self._room = asyncio.Semaphore(_CLAIMS_AT_ONCE)
        self._claims: asyncio.Queue[list[InFlightDocument]] = asyncio.Queue()
        self._batches: asyncio.Queue[EncodeBatch] = asyncio.Queue(_BATCHES_AHEAD)
        self._done: asyncio.Queue[InFlightDocument] = asyncio.Queue()
        self._encoding = EncodeStage(portions, outcomes, self.pace, turns, self._done.put_nowait, batch_tokens)
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix=f"cut-{portions.lane}")

    def stages(self) -> list[Coroutine[Any, Any, None]]:
        """To be run at once, until they are cancelled."""
        return [self._cut(), self._write(), *(self._encode() for _ in range(STREAMS))]

    async def wanting(self) -> None:
        """Wait until another claim is wanted. It is answered by `begin`, which may have come to nothing."""
        await self._room.acquire()

    def begin(self, works: list[InFlightDocument]) -> None:
        if works:
            self._leases.hold(works)
            self._claims.put_nowait(works)
        else:
            self._room.release()

    def close(self) -> None:
        self._encoding.close()
        self._tokenizing.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------ cut

    async def _cut(self) -> None:
        while True:
            works = await self._claims.get()
            groups: dict[object, list[InFlightDocument]] = {}  # in the order claimed: the active version first
            for work in works:
                # What was lost or failed before must not take others down with it again.
                alone = work.claimed.lost_leases >= SUSPICIOUS or work.job.attempts > 0
                groups.setdefault(id(work) if alone else key_of(work.version), []).append(work)
            for group in groups.values():
                suspicious = group[0].claimed.lost_leases >= SUSPICIOUS
                if suspicious and not await self._outcomes.charge_before(group[0]):
                    continue
                for portion in _portions(group, self.portions.code_points):
                    await self._cut_portion(portion)
                if suspicious:
                    # Charged one at a time: where this process is killed now, no innocent one has paid for it as well.
                    await group[0].over.wait()
            self._room.release()

    async def _cut_portion(self, works: Sequence[InFlightDocument]) -> None:
        """Documents of one version into chunks, and these in batches to the model."""
        encoder, version = works[0].encoder, works[0].version

        async def attempt(works: Sequence[InFlightDocument]) -> None:
            documents = [work.claimed.document for work in works]
            chunks = await asyncio.get_running_loop().run_in_executor(
                self._tokenizing, chunk_documents, encoder, documents, version.chunking
            )
            for work, own in zip(works, chunks, strict=True):
                work.chunks = own

        try:
            await attempt(works)
        except Exception as error:  # whatever a tokenizer raises
            log.warning("cutting failed", extra={"documents": len(works), "reason": repr(error)})
            await self._encoding.judge(encoder, version, await bisect_failures(works, attempt))
        pieces = [InFlightChunk(work, number) for work in works if not work.ended for number in range(len(work.chunks))]
        self.pace.cut(len(works), len(pieces))
        for batch in self._encoding.pack(encoder, version, pieces):
            await self._batches.put(batch)

    # ------------------------------------------------------------ encode

    async def _encode(self) -> None:
        while True:
            await self._encoding.encode(await self._batches.get())

    # ------------------------------------------------------------ write

    async def _write(self) -> None:
        while True:
            works = [await self._done.get()]
            if self.portions.write_seconds and self._done.qsize() + 1 < _WRITE_AT_ONCE:
                await self._outcomes.pause(self.portions.write_seconds)
            while not self._done.empty() and len(works) < _WRITE_AT_ONCE:
                works.append(self._done.get_nowait())
            groups: dict[object, list[InFlightDocument]] = {}
            for work in works:
                groups.setdefault(key_of(work.version), []).append(work)
            for group in groups.values():
                await self._store(group)

    async def _store(self, works: Sequence[InFlightDocument]) -> None:
        """Store finished documents of one version; again and again while the database does not answer: it is fenced."""

        async def attempt(works: Sequence[InFlightDocument]) -> None:
            encoded = [work.encoded() for work in works]
            try:
                stored = await self._outcomes.persist(lambda: self._vectors.write(works[0].version, encoded))
            except NotFound:
                stored = frozenset()  # the collection or the version is gone, and its jobs with it
            await self._count(
                works, len(stored), sum(len(one.chunks) for one in encoded if one.job.document_id in stored)
            )
            self._leases.end(works)

        try:
            await attempt(works)
        except Exception as error:  # what the database refuses although it works
            log.exception("storing failed", extra={"documents": len(works)})
            failed = await bisect_failures(works, attempt)
            if len(failed) == len(works) > 1:
                await self._outcomes.trouble("database", works, error)
            else:
                await self._outcomes.record_failure(failed)

    async def _count(self, works: Sequence[InFlightDocument], stored: int, chunks: int) -> None:
        version = works[0].version
        name = await self._outcomes.name(version.collection_id)
        metrics.EMBEDDED_CHUNKS.labels(name, str(version.number)).inc(chunks)
        if truncated := sum(chunk.truncated for work in works for chunk in work.chunks):
            metrics.TRUNCATED_CHUNKS.labels(name, str(version.number)).inc(truncated)
        if stored < len(works):
            metrics.FENCED_WRITES.labels(name).inc(len(works) - stored)
        log.debug("stored", extra={"collection": name, "documents": stored, "chunks": chunks})


def _portions(works: Sequence[InFlightDocument], most: int) -> Iterator[Sequence[InFlightDocument]]:
    """In order, as many together as have `most` code points; at least one."""
    start = size = 0
    for place, work in enumerate(works):
        length = len(work.claimed.document.title) + len(work.claimed.document.text)
        if place > start and size + length > most:
            yield works[start:place]
            start, size = place, 0
        size += length
    yield works[start:]
