"""How documents are written: validated, committed, and (where the client wants it) waited for.

Documents, jobs and change rows are committed in one transaction; only then is the request answered with 2xx. Workers
(`embedder/worker`) encode the documents and the lexical index (`store/lexical/follower.py`) follows the change feed.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from service.core import metrics
from service.core.collections import Collection
from service.core.concurrency import both, off_loop
from service.core.documents import Accepted, Document, IfExists, StoredDocument
from service.core.errors import DocumentNotFound, DocumentsExist, FieldError, ForeignDocuments, Invalid, UnusableImages
from service.core.filters import Filter
from service.core.ids import DocumentId
from service.core.images import Image, ImageReader, image_path
from service.core.metadata import merge_patch
from service.core.ports.change_feed import ChangeFeed
from service.core.ports.collections import Collections
from service.core.ports.documents import Documents
from service.core.ports.lexicon import Lexicon
from service.core.ports.queue import JobQueue
from service.core.ports.versions import Versions
from service.core.versions import EmbedderVersion
from service.ingest.stream import Lines, StreamOutcome, batches
from service.ingest.validation import DocumentLimits, VectorTarget, document_errors

DELETE_BATCH = 1_000
STILL_THERE_SECONDS = 0.5
"""How often a wait looks whether its collection was deleted."""


@dataclass(kw_only=True, slots=True)
class IngestService:
    """Writes and deletes documents, and waits until they are searchable."""

    collections: Collections
    documents: Documents
    queue: JobQueue
    versions: Versions
    changes: ChangeFeed
    lexicon: Lexicon
    limits: DocumentLimits
    images: ImageReader = field(default_factory=ImageReader)
    wait_seconds: float = 60.0
    """Longest wait for documents to become searchable."""
    waits: set[asyncio.Timeout] = field(default_factory=set)
    """Those in progress, also of copies of this service."""

    async def write(
        self,
        collection: Collection,
        documents: Sequence[Document],
        target: VectorTarget | None = None,
        if_exists: IfExists = "replace",
    ) -> tuple[Accepted, ...]:
        """Write all documents, or none where one is Invalid or refused. `target` is needed only for vectors."""
        if len(documents) > self.limits.batch:
            raise Invalid.at("documents", f"at most {self.limits.batch} documents in one request")
        types = collection.settings.field_types

        def find_errors() -> list[FieldError]:
            errors: list[FieldError] = []
            first: dict[DocumentId, int] = {}
            for at, document in enumerate(documents):
                errors += document_errors(document, target, self.limits, types, f"documents.{at}.")
                if first.setdefault(document.id, at) != at:
                    errors.append(FieldError(f"documents.{at}.id", "the same id twice in one request"))
            return errors

        if errors := await off_loop(sum(len(one.text) for one in documents), find_errors):
            raise Invalid(f"{len(errors)} of the values cannot be accepted", errors)
        return await self._commit(collection, documents, target, if_exists)

    async def stream(
        self, collection: Collection, lines: Lines, target: VectorTarget | None = None, if_exists: IfExists = "replace"
    ) -> StreamOutcome:
        """Write documents as they arrive. What was committed stays, also where the stream breaks off."""
        outcome = StreamOutcome()
        types = collection.settings.field_types
        found = batches(lines, lambda one: document_errors(one, target, self.limits, types), outcome)

        async def following() -> dict[int, Document] | None:
            return await anext(found, None)

        batch = await following()
        while batch:
            _, batch = await both(self._commit_valid(collection, batch, target, if_exists, outcome), following())
        outcome.errors.sort()
        return outcome

    async def _commit_valid(
        self,
        collection: Collection,
        batch: dict[int, Document],
        target: VectorTarget | None,
        if_exists: IfExists,
        outcome: StreamOutcome,
    ) -> None:
        """Without those that cannot be written."""
        while batch:
            try:
                for accepted in await self._commit(collection, list(batch.values()), target, if_exists):
                    outcome.counts[accepted.status] += 1
                break
            except (DocumentsExist, ForeignDocuments, UnusableImages) as error:
                for line in [line for line, one in batch.items() if one.id in error.reasons]:
                    outcome.refuse(line, error.reasons[batch.pop(line).id])

    async def _commit(
        self, collection: Collection, documents: Sequence[Document], target: VectorTarget | None, if_exists: IfExists
    ) -> tuple[Accepted, ...]:
        documents = await self._with_images(collection, documents)
        has_vectors = any(document.vector is not None for document in documents)
        version = target if has_vectors and isinstance(target, EmbedderVersion) else None
        accepted = await self.documents.put(collection.id, documents, datetime.now(UTC), version, if_exists=if_exists)
        self._written(collection, accepted)
        return accepted

    async def _with_images(self, collection: Collection, documents: Sequence[Document]) -> Sequence[Document]:
        """With images read. UnusableImages where one cannot be, or a version that is written would lack it."""
        sources = {one.id: one.image for one in documents if isinstance(one.image, str)}
        if not sources:
            return documents
        for version in await self.versions.of(collection.id):
            if version.written and not version.identity.takes_images:
                refusal = f"image: the embedder of version {version.number}, {version.spec.model}, takes no images"
                raise UnusableImages(dict.fromkeys(sources, refusal))
        kept = [id_ for id_, source in sources.items() if source == image_path(id_)]
        images = dict(await self.documents.images(collection.id, kept)) if kept else {}
        read, reasons = await self.images.read_all({id_: one for id_, one in sources.items() if id_ not in kept})
        reasons |= {id_: "the document has none" for id_ in kept if id_ not in images}
        if reasons:
            raise UnusableImages({id_: f"image: {reason}" for id_, reason in reasons.items()})
        images |= read
        return [replace(one, image=images.get(one.id)) for one in documents]

    def _written(self, collection: Collection, accepted: Sequence[Accepted]) -> None:
        for status, count in Counter(one.status for one in accepted).items():
            metrics.DOCUMENTS_WRITTEN.labels(collection.name, status).inc(count)
        self.lexicon.wake()

    async def patch(self, collection: Collection, document_id: DocumentId, patch: Mapping[str, Any]) -> Accepted:
        """Merge `patch` into title, text, metadata and image of a document; DocumentNotFound where there is none."""
        sent = Document(id=document_id, image=patch.get("image"))
        image = (await self._with_images(collection, [sent]))[0].image

        def change(stored: StoredDocument) -> Document:
            present = {"title": stored.title, "text": stored.text, "metadata": stored.metadata}
            kept = Image(digest=stored.image) if stored.image and "image" not in patch else image
            merged = merge_patch(present, {name: value for name, value in patch.items() if name != "image"})
            changed = Document(id=stored.id, image=kept, **merged)
            if errors := document_errors(changed, None, self.limits, collection.settings.field_types):
                raise Invalid("the document would be invalid", errors)
            return changed

        accepted = await self.documents.patch(collection.id, document_id, change, datetime.now(UTC))
        if accepted is None:
            raise DocumentNotFound
        self._written(collection, [accepted])
        return accepted

    async def delete(
        self, collection: Collection, ids: Sequence[DocumentId], where: Filter | None = None
    ) -> tuple[DocumentId, ...]:
        """Delete those of `ids` that match the filter. Returns those that existed."""
        deleted = await self.documents.delete(collection.id, ids, datetime.now(UTC), where)
        self.lexicon.wake()
        return deleted

    async def delete_matching(self, collection: Collection, where: Filter) -> int:
        """Delete all documents that match the filter, in batches in the order of their ids. Returns how many."""
        deleted, after = 0, None
        while page := await self.documents.page_ids(collection.id, after, DELETE_BATCH, where):
            deleted += len(await self.delete(collection, page, where))
            after = page[-1]
        return deleted

    async def wait_until_searchable(self, collection: Collection, ids: Sequence[DocumentId]) -> bool:
        """Wait until both legs find these documents. False where one was set aside, or after `wait_seconds`.

        CollectionNotFound soon after the collection was deleted.
        """
        waiting = asyncio.create_task(self._until_searchable(collection, ids))
        try:
            async with asyncio.timeout(self.wait_seconds) as timeout:
                self.waits.add(timeout)
                done: set[asyncio.Task[bool]] = set()
                while not done:
                    done, _ = await asyncio.wait([waiting], timeout=STILL_THERE_SECONDS)
                    searchable = bool(done) and waiting.result()
                    await self.collections.get(collection.id)  # its jobs go with it, so nothing seems unfinished
                return searchable
        except TimeoutError:
            return False
        finally:
            self.waits.discard(timeout)
            waiting.cancel()

    async def _until_searchable(self, collection: Collection, ids: Sequence[DocumentId]) -> bool:
        self.lexicon.wake()
        await self.lexicon.wait_until(collection, await self.changes.position_of(collection.id, ids))
        pause, waiting = 0.02, tuple(ids)
        while waiting := await self.queue.unfinished(collection.id, collection.active_version, waiting):
            if collection.settings.embedder.external:
                return False  # a document that came without its vector gets none by waiting
            await asyncio.sleep(pause)
            pause = min(0.25, pause * 1.5)
        return not await self.queue.dead_lettered(collection.id, collection.active_version, ids)

    def stop_waiting(self) -> None:
        """End all waits, present and future, because the process stops. The documents are committed all the same."""
        self.wait_seconds = 0.0
        for timeout in self.waits:
            if not timeout.expired():
                timeout.reschedule(asyncio.get_running_loop().time())
