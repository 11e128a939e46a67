"""The worker: claimed documents become stored vectors.

Stages run at once, with short queues between them, so that the model never waits for the database or the tokenizer:

    read    claim what the queue has, documents included       (leases committed at once)
    cut     tokenize and cut into chunks, pack them by tokens  (a thread)
    encode  one forward pass after the other                   (the model's threads; `encoding`)
    write   store finished documents by fenced COPY

and beside them one that extends leases and one that keeps house. No transaction is open while anything else happens.

Faults. What the database or the model does wrong is never charged to documents: the worker pauses, longer each time,
and goes on. When a batch fails it is halved until it is known which documents fail alone; these are charged, if the
model still encodes a text that it always could. A document that was held by workers that died is tried alone, charged
before, so that one that kills the process ends set aside. A lost lease harms nothing: the write is fenced.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

from service import metrics
from service.domain import EmbedderVersion
from service.embedder.admission import Admission, key_of
from service.embedder.backoff import Backoff
from service.embedder.blame import isolate
from service.embedder.encoding import STREAMS, Encoding
from service.embedder.outcomes import Outcomes, now
from service.embedder.passages import cut
from service.embedder.work import Batch, Leases, Pace, Piece, Work
from service.errors import AzimuthError, NotFound, Unavailable
from service.ports import Collections, Encoder, Queue, Vectors, Versions

log = logging.getLogger(__name__)

SUSPICIOUS = 3
"""So many workers lost a document before it is tried alone."""

_POLL_SECONDS, _IDLE_SECONDS = 0.05, 0.5
"""Between looks at an empty queue: soon after work, then less and less often."""
_VERSIONS_SECONDS = 0.5
_CLAIMS_AT_ONCE = 2
_CUT_AT_ONCE = 500_000
"""Code points tokenized in one call: their tokens take some hundred times as many bytes."""
_BATCHES_AHEAD = 4
_WRITE_AT_ONCE = 256
_RELEASE_SECONDS = 5.0


class Worker:
    """One process' share of the queue."""

    def __init__(
        self,
        *,
        queue: Queue,
        vectors: Vectors,
        versions: Versions,
        collections: Collections,
        admit: Callable[[EmbedderVersion], Awaitable[Encoder]],
        claim: int,
        lease: timedelta,
        max_attempts: int,
        batch_tokens: int = 0,
        tend: Callable[[], Awaitable[None]] | None = None,
        tend_seconds: float = 30.0,
        grace: timedelta = timedelta(seconds=20),
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        """`admit` proves that a model gives the vectors of a version. `claim`: most documents leased at once.

        `batch_tokens`: padded tokens of one forward pass, 0: what suits the device. `tend` keeps house, every
        `tend_seconds`. `grace`: how long work in hand may take to finish after the stop.
        """
        self._queue, self._vectors, self._versions = queue, vectors, versions
        self._claim_most, self._lease, self._grace = claim, lease, grace
        self._keep_house, self._tend_seconds = tend, tend_seconds
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._stopping = asyncio.Event()
        self._leases = Leases()
        self._outcomes = Outcomes(
            queue,
            collections,
            self._leases,
            max_attempts=max_attempts,
            lease=lease,
            backoff=backoff,
            stop=self._stopping,
        )
        self._admission = Admission(admit, retry=backoff().first)
        self._pace = Pace()
        self._room = asyncio.Semaphore(_CLAIMS_AT_ONCE)
        self._claims: asyncio.Queue[list[Work]] = asyncio.Queue()
        self._batches: asyncio.Queue[Batch] = asyncio.Queue(_BATCHES_AHEAD)
        self._done: asyncio.Queue[Work] = asyncio.Queue()
        self._encoding = Encoding(self._outcomes, self._pace, self._done.put_nowait, batch_tokens)
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="cut")
        self._written: tuple[EmbedderVersion, ...] = ()
        self._written_at = float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; then finish what is in hand, within the grace time, and give back the rest uncharged.

        Once for each worker. ModelUnavailable where the model fails without end: a fresh process may do better.
        """
        stages = [self._read(), self._cut(), self._write(), self._beat(), *(self._encode() for _ in range(STREAMS))]
        if self._keep_house is not None:
            stages.append(self._tend(self._keep_house))
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(stage) for stage in stages]
                await stop.wait()
                log.info("worker stops", extra={"in_hand": len(self._leases.jobs)})
                self._stopping.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._finished(running[0]), self._grace.total_seconds())
                for stage in running:
                    stage.cancel()
            await self._give_back()
        except ExceptionGroup as errors:
            # A stage that ends is a defect, or a model past hope. Leases are left to run out: see `Outcomes.trouble`.
            raise errors.exceptions[0] from errors
        finally:
            await self._admission.close()
            self._encoding.close()
            self._tokenizing.shutdown(wait=False, cancel_futures=True)

    async def _finished(self, reading: asyncio.Task[None]) -> None:
        await asyncio.wait([reading])
        await self._leases.empty.wait()

    async def _give_back(self) -> None:
        if jobs := self._leases.jobs:
            with suppress(Unavailable, TimeoutError):
                await asyncio.wait_for(self._queue.release(jobs, now()), _RELEASE_SECONDS)

    # ------------------------------------------------------------ read

    async def _read(self) -> None:
        idle, trouble = _POLL_SECONDS, Backoff()
        while not self._stopping.is_set():
            await self._room.acquire()
            works: list[Work] = []
            try:
                works = await self._claim()
                trouble.worked()
            except Unavailable as error:
                idle = trouble.failed()
                metrics.WORKER_BACKOFF.labels("database").inc()
                log.warning("database trouble", extra={"reason": error.detail, "pause_seconds": round(idle, 1)})
            if works:
                idle = _POLL_SECONDS
                self._leases.hold(works)
                self._claims.put_nowait(works)
            else:
                self._room.release()
                await self._outcomes.pause(idle)
                idle = min(idle * 1.5, _IDLE_SECONDS)

    async def _claim(self) -> list[Work]:
        if self._stopping.is_set():
            return []
        if time.monotonic() - self._written_at > _VERSIONS_SECONDS:
            self._written = await self._versions.written()
            self._written_at = time.monotonic()
        encoders = self._admission.ready(self._written)
        versions = {key_of(version): version for version in self._written if key_of(version) in encoders}
        if not versions:
            return []
        limit = self._pace.documents(self._claim_most)
        claimed = await self._queue.claim(list(versions.values()), limit, self._name, now(), self._lease)
        return [
            Work(one, versions[key], encoders[key])
            for one in claimed
            for key in [(one.job.collection_id, one.job.version)]
        ]

    # ------------------------------------------------------------ cut

    async def _cut(self) -> None:
        while True:
            works = await self._claims.get()
            groups: dict[object, list[Work]] = {}
            for work in works:
                # What was lost or failed before must not take others down with it again.
                alone = work.claimed.lost_leases >= SUSPICIOUS or work.job.attempts > 0
                groups.setdefault(id(work) if alone else key_of(work.version), []).append(work)
            for group in groups.values():
                if group[0].claimed.lost_leases >= SUSPICIOUS and not await self._outcomes.charge_before(group[0]):
                    continue
                for portion in _portions(group):
                    await self._cut_portion(portion)
            self._room.release()

    async def _cut_portion(self, works: Sequence[Work]) -> None:
        """Documents of one version into chunks, and these in batches to the model."""
        encoder, version = works[0].encoder, works[0].version

        async def attempt(works: Sequence[Work]) -> None:
            documents = [work.claimed.document for work in works]
            chunks = await asyncio.get_running_loop().run_in_executor(
                self._tokenizing, cut, encoder, documents, version.chunking
            )
            for work, own in zip(works, chunks, strict=True):
                work.chunks = own

        try:
            await attempt(works)
        except Exception as error:  # whatever a tokenizer raises
            log.warning("cutting failed", extra={"documents": len(works), "reason": repr(error)})
            await self._encoding.judge(encoder, version, await isolate(works, attempt))
        pieces = [Piece(work, number) for work in works if not work.ended for number in range(len(work.chunks))]
        self._pace.cut(len(works), len(pieces))
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
            while not self._done.empty() and len(works) < _WRITE_AT_ONCE:
                works.append(self._done.get_nowait())
            groups: dict[object, list[Work]] = {}
            for work in works:
                groups.setdefault(key_of(work.version), []).append(work)
            for group in groups.values():
                await self._store(group)

    async def _store(self, works: Sequence[Work]) -> None:
        """Store finished documents of one version; again and again while the database does not answer: it is fenced."""

        async def attempt(works: Sequence[Work]) -> None:
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
            failed = await isolate(works, attempt)
            if len(failed) == len(works) > 1:
                await self._outcomes.trouble("database", works, error)
            else:
                await self._outcomes.charge(failed)

    async def _count(self, works: Sequence[Work], stored: int, chunks: int) -> None:
        version = works[0].version
        name = await self._outcomes.name(version.collection_id)
        metrics.EMBEDDED_CHUNKS.labels(name, str(version.number)).inc(chunks)
        if truncated := sum(chunk.truncated for work in works for chunk in work.chunks):
            metrics.TRUNCATED_CHUNKS.labels(name, str(version.number)).inc(truncated)
        if stored < len(works):
            metrics.FENCED_WRITES.labels(name).inc(len(works) - stored)
        log.debug("stored", extra={"collection": name, "documents": stored, "chunks": chunks})

    # ------------------------------------------------------------ beside

    async def _beat(self) -> None:
        """Extend the leases of everything in hand, in good time."""
        beat = self._lease.total_seconds() / 3
        while True:
            await asyncio.sleep(beat)
            try:
                if jobs := self._leases.jobs:
                    await self._queue.extend(jobs, now() + self._lease)
                beat = self._lease.total_seconds() / 3
            except Unavailable as error:
                beat = min(1.0, beat)
                log.warning("leases not extended", extra={"reason": error.detail})

    async def _tend(self, keep_house: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._outcomes.pause(self._tend_seconds)
            if self._stopping.is_set():
                return
            try:
                await keep_house()
            except AzimuthError as error:
                log.warning("housekeeping put off", extra={"reason": error.detail})
            except Exception:
                log.exception("housekeeping failed")


def _portions(works: Sequence[Work]) -> Iterator[Sequence[Work]]:
    """In order, as many together as have `_CUT_AT_ONCE` code points; at least one."""
    start = size = 0
    for place, work in enumerate(works):
        length = len(work.claimed.document.title) + len(work.claimed.document.text)
        if place > start and size + length > _CUT_AT_ONCE:
            yield works[start:place]
            start, size = place, 0
        size += length
    yield works[start:]
