"""The document's story: validate -> commit -> (wait) on this side, and what follows on the worker's.

write    here: checked against the limits, then one transaction with its jobs and its change row; 2xx = committed
encode   `embedder/worker.py`: claim -> chunk -> pack -> encode -> write, fenced by lease and revision
index    `store/follower.py`: the lexical index follows the change feed
wait     here: until both have seen it
"""

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from service.core import metrics
from service.core.collections import Collection
from service.core.documents import Accepted, Document
from service.core.errors import Conflict, FieldError, Invalid, VersionNotFound
from service.core.filters import Filter
from service.core.ids import DocumentId, VersionNumber
from service.core.jobs import FailedDocument
from service.core.ports.change_feed import ChangeFeed
from service.core.ports.documents import Documents
from service.core.ports.lexicon import Lexicon
from service.core.ports.queue import JobQueue
from service.core.vector_math import unit
from service.core.versions import EmbedderVersion

STREAM_BATCH = 500
"""Documents of a stream that are committed together."""
STREAM_CHARACTERS = 4_000_000
"""Characters of a stream that are held at most before they are committed; a number of a vector counts as 8."""
STREAM_ERRORS = 1_000
"""Errors of a stream that are told one by one; the others are counted."""
DELETE_BATCH = 1_000
_SURROGATE = re.compile("[\ud800-\udfff]")
POLL_SECONDS = (0.02, 0.25)
"""First and longest pause between looks at the queue of whoever waits."""

Taker = EmbedderVersion | str
"""The version that the vectors of documents are for; a str is why there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentLimits:
    """What one document may be. Lengths in code points, `metadata_bytes` as JSON in UTF-8."""

    id_length: int = 512
    title_length: int = 10_000
    text_length: int = 1_000_000
    metadata_bytes: int = 65_536
    metadata_depth: int = 8
    batch: int = 1_000


@dataclass(slots=True)
class StreamOutcome:
    """What came of a stream of documents."""

    counts: dict[str, int] = field(default_factory=lambda: {"created": 0, "updated": 0, "unchanged": 0})
    errors: list[tuple[int, str]] = field(default_factory=list)
    failed: int = 0

    def refuse(self, line: int, reason: str) -> None:
        self.failed += 1
        if len(self.errors) < STREAM_ERRORS:
            self.errors.append((line, reason))


class IngestService:
    """`wait_seconds`: how long `wait` holds an answer back before it says that not everything can be found yet."""

    def __init__(
        self,
        *,
        documents: Documents,
        queue: JobQueue,
        changes: ChangeFeed,
        lexicon: Lexicon,
        limits: DocumentLimits,
        wait_seconds: float = 60.0,
    ) -> None:
        self._documents = documents
        self._queue = queue
        self._changes = changes
        self._lexicon = lexicon
        self._limits = limits
        self._wait_seconds = wait_seconds
        self._waits: set[asyncio.Timeout] = set()

    # ------------------------------------------------------------ write

    async def write(
        self, collection: Collection, documents: Sequence[Document], takes: Taker | None = None
    ) -> tuple[Accepted, ...]:
        """Create or replace, all of them or (where one is Invalid) none. What it answers is committed.

        `takes` may be left out where no document brings a vector.
        """
        if len(documents) > self._limits.batch:
            raise Invalid.at("documents", f"at most {self._limits.batch} documents in one request")
        errors = [
            error for at, document in enumerate(documents) for error in self._check(document, takes, f"documents.{at}.")
        ]
        errors += _repeated([document.id for document in documents])
        if errors:
            raise Invalid(f"{len(errors)} of the values cannot be accepted", errors)
        return await self._commit(collection, documents, takes)

    async def stream(
        self, collection: Collection, lines: AsyncIterator[tuple[int, Document | str]], takes: Taker | None = None
    ) -> StreamOutcome:
        """Write documents as they arrive, in constant memory. Lines are numbered from 1; a str is why one is refused.

        Committed batch by batch: what was counted stays, also where the stream breaks off.
        """
        outcome = StreamOutcome()
        held: dict[DocumentId, Document] = {}
        characters = 0

        async def flush() -> None:
            for accepted in await self._commit(collection, list(held.values()), takes):
                outcome.counts[accepted.status] += 1
            held.clear()

        async for line, document in lines:
            if isinstance(document, str):
                outcome.refuse(line, document)
                continue
            if reasons := self._check(document, takes, ""):
                outcome.refuse(line, "; ".join(f"{reason.field}: {reason.message}" for reason in reasons))
                continue
            if document.id in held or len(held) >= STREAM_BATCH or characters > STREAM_CHARACTERS:
                await flush()
                characters = 0
            held[document.id] = document
            characters += len(document.text) + len(document.title) + 8 * len(document.vector or ())
        if held:
            await flush()
        return outcome

    async def _commit(
        self, collection: Collection, documents: Sequence[Document], takes: Taker | None
    ) -> tuple[Accepted, ...]:
        brought = any(document.vector is not None for document in documents)
        version = takes if brought and isinstance(takes, EmbedderVersion) else None
        accepted = await self._documents.put(
            collection.id, [_normalised(document) for document in documents], datetime.now(UTC), version
        )
        for one in accepted:
            metrics.DOCUMENTS_WRITTEN.labels(collection.name, one.status).inc()
        self._lexicon.wake()
        return accepted

    def _check(self, document: Document, takes: Taker | None, prefix: str) -> list[FieldError]:
        """Everything that is wrong with one document."""
        limits = self._limits
        errors = [
            *_text_errors(document.id, f"{prefix}id", limits.id_length),
            *_text_errors(document.title, f"{prefix}title", limits.title_length),
            *_text_errors(document.text, f"{prefix}text", limits.text_length),
            *_value_errors(document.metadata, f"{prefix}metadata", limits.metadata_depth),
            *_vector_errors(document, takes, f"{prefix}vector"),
        ]
        if not document.id.strip():
            errors.append(FieldError(f"{prefix}id", "must not be empty"))
        if not document.text.strip() and not document.title.strip():
            errors.append(FieldError(f"{prefix}text", "must not be empty where there is no title either"))
        if not errors and len(json.dumps(document.metadata, ensure_ascii=False).encode()) > limits.metadata_bytes:
            errors.append(FieldError(f"{prefix}metadata", f"larger than {limits.metadata_bytes} bytes"))
        return errors

    # ------------------------------------------------------------ delete

    async def delete(
        self, collection: Collection, ids: Sequence[DocumentId], where: Filter | None = None
    ) -> tuple[DocumentId, ...]:
        """Delete by id those that pass. Answers those that were there."""
        gone = await self._documents.delete(collection.id, ids, datetime.now(UTC), where)
        self._lexicon.wake()
        return gone

    async def delete_passing(self, collection: Collection, where: Filter) -> int:
        """Delete what passes a filter, batch by batch in the order of the ids. Answers how many."""
        deleted, after = 0, None
        while page := await self._documents.page(collection.id, after, DELETE_BATCH, where):
            deleted += len(await self.delete(collection, [document.id for document in page], where))
            after = page[-1].id
        return deleted

    # ------------------------------------------------------------ wait

    async def searchable(self, collection: Collection, ids: Sequence[DocumentId]) -> bool:
        """Wait until both legs find these documents; False where one was set aside or the time ran out."""
        try:
            async with asyncio.timeout(self._wait_seconds) as limit:
                self._waits.add(limit)
                self._lexicon.wake()
                await self._lexicon.wait_until(collection, await self._changes.position_of(collection.id, ids))
                pause, longest = POLL_SECONDS
                waiting = tuple(ids)
                while waiting := await self._queue.unfinished(collection.id, collection.active_version, waiting):
                    if collection.settings.embedder.external:
                        return False  # what came without its vector gets none by waiting
                    await asyncio.sleep(pause)
                    pause = min(longest, pause * 1.5)
                return not await self._queue.dead_lettered(collection.id, collection.active_version, ids)
        except TimeoutError:
            return False
        finally:
            self._waits.discard(limit)

    def end_waiting(self) -> None:
        """The process stops: whoever waits is told now that not everything can be found yet. It is committed."""
        self._wait_seconds = 0.0
        for limit in self._waits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    # ------------------------------------------------------------ what was set aside

    async def failed(self, collection: Collection, after: DocumentId | None, limit: int) -> tuple[FailedDocument, ...]:
        return await self._queue.failed(collection.id, after, limit)

    async def retry(self, collection: Collection) -> int:
        """Give everything that was set aside another chance. Answers how many."""
        return await self._queue.retry(collection.id, datetime.now(UTC))


def taker(versions: Sequence[EmbedderVersion], number: VersionNumber | None) -> Taker:
    """Which of a collection's versions the vectors of documents are for: the one named, or the only external one.

    VersionNotFound, Conflict or Invalid where the one that is named takes none.
    """
    if number is None:
        external = [version for version in versions if version.written and version.spec.external]
        if len(external) == 1:
            return external[0]
        if not external:
            return "no embedder version of this collection takes vectors (its embedder would be external)"
        numbers = ", ".join(str(version.number) for version in external)
        return f"several embedder versions take vectors ({numbers}): name one (embedder_version)"
    named = next((version for version in versions if version.number == number), None)
    if named is None:
        raise VersionNotFound(f"there is no embedder version {number}")
    if not named.spec.external:
        raise Invalid.at("embedder_version", f"version {number} makes its vectors itself, by {named.spec.model}")
    if not named.written:
        raise Conflict(f"version {number} is {named.state}: it takes no vectors")
    return named


def _vector_errors(document: Document, takes: Taker | None, where: str) -> Iterator[FieldError]:
    if document.vector is None:
        return
    if not isinstance(takes, EmbedderVersion):
        yield FieldError(where, takes or "no embedder version is named that takes vectors")
    elif len(document.vector) != takes.dimensions:
        dimensions = f"version {takes.number} has {takes.dimensions} dimensions"
        yield FieldError(where, f"has {len(document.vector)} numbers; {dimensions}")
    elif unit(document.vector) is None:
        yield FieldError(where, "has no direction: its numbers are all zero, or not finite")


def _normalised(document: Document) -> Document:
    if document.vector is None or (vector := unit(document.vector)) is None:
        return document
    return replace(document, vector=tuple(vector.tolist()))


def _text_errors(text: str, where: str, longest: int) -> list[FieldError]:
    """PostgreSQL cannot hold NUL, and UTF-8 cannot hold half a surrogate pair."""
    errors = []
    if len(text) > longest:
        errors.append(FieldError(where, f"longer than {longest} characters"))
    if "\0" in text:
        errors.append(FieldError(where, "contains a NUL character"))
    if _SURROGATE.search(text):
        errors.append(FieldError(where, "contains half of a surrogate pair, which is not Unicode text"))
    return errors


def _value_errors(value: Any, where: str, depth: int) -> Iterator[FieldError]:
    """JSON that PostgreSQL can hold and that filters can compare."""
    match value:
        case str():
            yield from _text_errors(value, where, 1_000_000)
        case bool() | None:
            pass
        case int() if not -(2**63) <= value < 2**63:
            yield FieldError(where, "an integer must fit 64 bits")
        case float() if not math.isfinite(value):
            yield FieldError(where, "NaN and infinity are not JSON")
        case Mapping() | list() | tuple() if depth == 0:
            yield FieldError(where, "nested too deeply")
        case Mapping():
            for key, inner in value.items():
                yield from _text_errors(key, where, 512)
                yield from _value_errors(inner, f"{where}.{key}", depth - 1)
        case list() | tuple():
            for at, inner in enumerate(value):
                yield from _value_errors(inner, f"{where}.{at}", depth - 1)


def _repeated(ids: Sequence[DocumentId]) -> Iterator[FieldError]:
    seen: set[DocumentId] = set()
    for at, document_id in enumerate(ids):
        if document_id in seen:
            yield FieldError(f"documents.{at}.id", "the same id twice in one request")
        seen.add(document_id)
