"""One lane of the worker: the stages from claimed documents to stored vectors."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.core import metrics
from service.core.errors import NotFound
from service.core.portions import portions
from service.core.ports.vectors import VectorStore
from service.embedder.worker.document_chunker import chunk_documents, with_image
from service.embedder.worker.encode_stage import EncodeStage
from service.embedder.worker.failure_bisection import bisect_failures
from service.embedder.worker.failure_policy import FailurePolicy
from service.embedder.worker.in_flight import EncodingThroughput, InFlightChunk, InFlightDocument, LaneLimits, Leases
from service.embedder.worker.priority_gate import MAX_STREAMS, PriorityGate
from service.embedder.worker.version_gate import key_of

log = logging.getLogger(__name__)

ISOLATE_AFTER_LOST_LEASES = 3
"""A document that this many workers lost is tried alone."""

_CLAIMS_AT_ONCE = 2
_BATCHES_AHEAD = 4
_WRITE_AT_ONCE = 256


class Pipeline:
    """Chunk, encode, write. Live documents never queue behind a backfill: the lanes meet only at the `PriorityGate`."""

    def __init__(
        self,
        limits: LaneLimits,
        vectors: VectorStore,
        failures: FailurePolicy,
        leases: Leases,
        gate: PriorityGate,
        batch_tokens: int,
    ) -> None:
        self.limits = limits
        self.throughput = EncodingThroughput()
        self._vectors, self._failures, self._leases = vectors, failures, leases
        self._capacity = asyncio.Semaphore(_CLAIMS_AT_ONCE)
        self._claims: asyncio.Queue[list[InFlightDocument]] = asyncio.Queue()
        self._batches: asyncio.Queue[list[InFlightChunk]] = asyncio.Queue(_BATCHES_AHEAD)
        self._complete: asyncio.Queue[InFlightDocument] = asyncio.Queue()
        self._encoding = EncodeStage(limits, failures, self.throughput, gate, self._complete.put_nowait, batch_tokens)
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix=f"chunk-{limits.lane}")

    def stages(self) -> list[Coroutine[Any, Any, None]]:
        """To be run concurrently, until they are cancelled."""
        return [self._chunk(), self._write(), *(self._encode() for _ in range(MAX_STREAMS))]

    async def wait_for_capacity(self) -> None:
        """Wait until another claim is wanted. Each call must be followed by one of `submit`."""
        await self._capacity.acquire()

    def submit(self, documents: list[InFlightDocument]) -> None:
        """The outcome of a claim, which may be empty."""
        if documents:
            self._leases.hold(documents)
            self._claims.put_nowait(documents)
        else:
            self._capacity.release()

    def close(self) -> None:
        self._encoding.close()
        self._tokenizing.shutdown(wait=False, cancel_futures=True)

    async def _chunk(self) -> None:
        while True:
            documents = await self._claims.get()
            groups: dict[object, list[InFlightDocument]] = {}  # in the order claimed: the active version first
            for document in documents:
                # A document that was lost or failed before must not take others down with it.
                alone = _is_suspect(document) or document.job.attempts > 0
                groups.setdefault(id(document) if alone else key_of(document.version), []).append(document)
            for group in groups.values():
                suspect = _is_suspect(group[0])
                if suspect and not await self._failures.record_failure_in_advance(group[0]):
                    continue
                for portion in portions(group, _code_points, self.limits.code_points):
                    await self._chunk_portion(portion)
                if suspect:
                    # One suspect at a time: if it kills this process, no innocent one has paid for it as well.
                    await group[0].settled.wait()
            self._capacity.release()

    async def _chunk_portion(self, documents: Sequence[InFlightDocument]) -> None:
        """Chunk documents of one version and queue the chunks in batches for the model."""

        async def attempt(documents: Sequence[InFlightDocument]) -> None:
            stored = [document.claimed.document for document in documents]
            chunks = await asyncio.get_running_loop().run_in_executor(
                self._tokenizing, chunk_documents, documents[0].encoder, stored, documents[0].version.chunking
            )
            for document, own in zip(documents, chunks, strict=True):
                document.chunks = with_image(own, document.claimed, document.encoder)

        try:
            await attempt(documents)
        except Exception as error:  # a tokenizer can raise anything
            log.warning("chunking failed", extra={"documents": len(documents), "reason": repr(error)})
            await self._encoding.handle_failures(await bisect_failures(documents, attempt))
        usable = [document for document in documents if not document.is_settled]
        chunks = [InFlightChunk(document, chunk) for document in usable for chunk in document.chunks]
        self.throughput.record_chunking(len(documents), len(chunks))
        for batch in self._encoding.pack(chunks):
            await self._batches.put(batch)

    async def _encode(self) -> None:
        while True:
            await self._encoding.encode(await self._batches.get())

    async def _write(self) -> None:
        while True:
            documents = [await self._complete.get()]
            if self.limits.write_seconds and self._complete.qsize() + 1 < _WRITE_AT_ONCE:
                await self._failures.sleep(self.limits.write_seconds)
            while not self._complete.empty() and len(documents) < _WRITE_AT_ONCE:
                documents.append(self._complete.get_nowait())
            groups: dict[object, list[InFlightDocument]] = {}
            for document in documents:
                groups.setdefault(key_of(document.version), []).append(document)
            for group in groups.values():
                await self._store(group)

    async def _store(self, documents: Sequence[InFlightDocument]) -> None:
        """Store complete documents of one version. The write is fenced, so it may be repeated until it succeeds."""

        async def attempt(documents: Sequence[InFlightDocument]) -> None:
            encoded = [document.encoded() for document in documents]
            try:
                stored = await self._failures.retry_database(lambda: self._vectors.write(documents[0].version, encoded))
            except NotFound:
                stored = frozenset()  # the collection or the version was deleted, and its jobs with it
            chunks = sum(len(one.chunks) for one in encoded if one.job.document_id in stored)
            await self._record_write(documents, len(stored), chunks)
            self._leases.settle(documents)
            self._failures.database_accepted()

        try:
            await attempt(documents)
        except Exception as error:  # the database works but refuses the rows
            log.exception("storing failed", extra={"documents": len(documents)})
            failed = await bisect_failures(documents, attempt)
            if len(failed) == len(documents) > 1:
                await self._failures.database_refused(documents, error)
            else:
                await self._failures.record_failures(failed)

    async def _record_write(self, documents: Sequence[InFlightDocument], stored: int, chunks: int) -> None:
        version = documents[0].version
        name = await self._failures.collection_name(version.collection_id)
        metrics.EMBEDDED_CHUNKS.labels(name, str(version.number)).inc(chunks)
        if truncated := sum(chunk.truncated for document in documents for chunk in document.chunks):
            metrics.TRUNCATED_CHUNKS.labels(name, str(version.number)).inc(truncated)
        if stored < len(documents):
            metrics.FENCED_WRITES.labels(name).inc(len(documents) - stored)
        log.debug("stored", extra={"collection": name, "documents": stored, "chunks": chunks})


def _is_suspect(document: InFlightDocument) -> bool:
    return document.claimed.lost_leases >= ISOLATE_AFTER_LOST_LEASES


def _code_points(document: InFlightDocument) -> int:
    return len(document.claimed.document.title) + len(document.claimed.document.text)
