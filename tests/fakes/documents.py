"""Documents and their change feed in memory."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import numpy as np

from service.core.change_feed import NOTHING_SEEN, Change, ChangePage, IndexMark, Position, Snapshot
from service.core.collections import Collection
from service.core.documents import Accepted, Document, IfExists, StoredDocument
from service.core.errors import CollectionNotFound, DocumentsExist, ForeignDocuments, NotFound, VersionNotFound
from service.core.facets import Facet, FacetNumbers, FacetRequest, FacetValue
from service.core.filters import Filter, matches
from service.core.ids import CollectionId, DocumentId
from service.core.images import Image
from service.core.metadata import elements, find
from service.core.result_options import SortKey
from service.core.search import Candidate, FilterMatch, Passage
from service.core.vector_math import storable_rows
from service.core.versions import EmbedderVersion
from tests.fakes.store import FakeStore, Row, StoredChunk, Waiting
from tests.fakes.vectors import stored_vector


class FakeDocuments:
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def put(
        self,
        collection_id: CollectionId,
        documents: Sequence[Document],
        now: datetime,
        vectors_of: EmbedderVersion | None = None,
        within: Filter | None = None,
        if_exists: IfExists = "replace",
    ) -> tuple[Accepted, ...]:
        if not documents:
            return ()
        xid = self._store.begin(collection_id)
        if vectors_of is not None:
            present = self._store.collections.version(collection_id, vectors_of.number)
            if not (present.written and present.spec.external):
                raise VersionNotFound
        living = [self._store.living_one(collection_id, document.id) for document in documents]
        foreign = [one.id for one in living if one and within and not matches(within, one.metadata, one.id)]
        if foreign:
            raise ForeignDocuments(dict.fromkeys(foreign, "this id cannot be used by this key"))
        there = {one.id: one.revision for one in living if one and if_exists != "replace"}
        if there and if_exists == "fail":
            raise DocumentsExist(dict.fromkeys(there, "a document with this id is there already"))
        accepted = [
            Accepted(id=one.id, status="unchanged", revision=there[one.id])
            if one.id in there
            else self._put(collection_id, one, now, xid)
            for one in documents
        ]
        if vectors_of is not None:
            for at, document in enumerate(documents):
                if (
                    document.id not in there
                    and self._bring(vectors_of, document)
                    and accepted[at].status == "unchanged"
                ):
                    accepted[at] = dataclasses.replace(accepted[at], status="updated")
        return tuple(accepted)

    def _bring(self, version: EmbedderVersion, document: Document) -> bool:
        """Is its vector another one now?"""
        if document.vector is None:
            return False
        stored = self._store.documents[version.collection_id, document.id].document
        assert stored is not None
        embedding = stored_vector(version, storable_rows(np.array([document.vector], np.float64))[0])
        self._store.jobs.pop((version.collection_id, document.id, version.number), None)
        space = self._store.space(version)
        old = space.get((document.id, 0))
        space[document.id, 0] = StoredChunk(stored.content_revision, 0, len(document.text), embedding)
        same = old is not None and old.content_revision == stored.content_revision
        return not (same and old is not None and np.array_equal(old.embedding, embedding))

    def _put(self, collection_id: CollectionId, document: Document, now: datetime, xid: int) -> Accepted:
        store, key = self._store, (collection_id, document.id)
        row = store.documents.get(key, Row(None, 0))
        old = row.document
        image = document.image if isinstance(document.image, Image) else None
        digest = None if image is None else image.digest
        same_content = old is not None and (old.title, old.text, old.image) == (document.title, document.text, digest)
        if old is not None and same_content and old.metadata == document.metadata:
            return Accepted(id=document.id, status="unchanged", revision=row.revision)
        revision = row.revision + 1
        new = StoredDocument(
            id=document.id,
            title=document.title,
            text=document.text,
            metadata=dict(document.metadata),
            revision=revision,
            content_revision=old.content_revision if old is not None and same_content else revision,
            created_at=now if old is None else old.created_at,
            updated_at=now if old is None else max(now, old.created_at + timedelta(microseconds=1)),
            image=digest,
        )
        if image is None or image.content:
            store.images[key] = image
        store.documents[key] = Row(new, revision)
        store.changes[key] = (xid, now)
        if not same_content:
            for version in store.collections.versions[collection_id]:
                if version.written:
                    store.jobs[*key, version.number] = Waiting(revision, now, now, store.priority(version))
        return Accepted(id=document.id, status="created" if old is None else "updated", revision=revision)

    async def patch(
        self,
        collection_id: CollectionId,
        document_id: DocumentId,
        change: Callable[[StoredDocument], Document],
        now: datetime,
        within: Filter | None = None,
    ) -> Accepted | None:
        old = self._store.living_one(collection_id, document_id)
        if old is None or (within is not None and not matches(within, old.metadata, old.id)):
            return None
        return (await self.put(collection_id, [change(old)], now))[0]

    async def images(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], where: Filter | None = None
    ) -> Mapping[DocumentId, Image]:
        living = {one.id: one for one in self._store.living(collection_id) if one.id in ids and one.image}
        passing = [id_ for id_, one in living.items() if where is None or matches(where, one.metadata, id_)]
        return {id_: image for id_ in passing if (image := self._store.images[collection_id, id_])}

    async def count(self, collection_id: CollectionId, where: Filter) -> int:
        return sum(matches(where, document.metadata, document.id) for document in self._store.living(collection_id))

    async def delete(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], now: datetime, where: Filter | None = None
    ) -> tuple[DocumentId, ...]:
        store, gone = self._store, []
        xid = store.begin(collection_id)
        for document_id in ids:
            row = store.documents.get((collection_id, document_id))
            if row is None or row.document is None:
                continue
            if where is not None and not matches(where, row.document.metadata, document_id):
                continue
            row.document, row.revision = None, row.revision + 1
            store.changes[collection_id, document_id] = (xid, now)
            store.jobs = {key: job for key, job in store.jobs.items() if key[:2] != (collection_id, document_id)}
            for (owner, _), space in store.vectors.items():
                for chunk in [chunk for chunk in space if owner == collection_id and chunk[0] == document_id]:
                    del space[chunk]
            gone.append(document_id)
        return tuple(gone)

    async def get(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Mapping[DocumentId, StoredDocument]:
        return {document.id: document for document in self._store.living(collection_id) if document.id in set(ids)}

    async def page(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int, where: Filter | None
    ) -> tuple[StoredDocument, ...]:
        filter_match = (
            document
            for document in self._store.living(collection_id)
            if document.id.encode() > (after or "").encode()
            and (where is None or matches(where, document.metadata, document.id))
        )
        return tuple(itertools.islice(filter_match, limit))

    async def page_ids(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int, where: Filter
    ) -> tuple[DocumentId, ...]:
        return tuple(document.id for document in await self.page(collection_id, after, limit, where))

    async def match_filter(
        self, collection_id: CollectionId, where: Filter, cap: int, seconds: float | None = None
    ) -> FilterMatch:
        living = list(self._store.living(collection_id))
        ids = tuple(document.id for document in living if matches(where, document.metadata, document.id))[: cap + 1]
        return FilterMatch(ids=ids if len(ids) <= cap else None, count=len(ids), total=len(living))

    async def filter_ids(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], where: Filter
    ) -> frozenset[DocumentId]:
        found = await self.get(collection_id, ids)
        return frozenset(document.id for document in found.values() if matches(where, document.metadata, document.id))

    async def in_order(
        self,
        collection_id: CollectionId,
        order: Sequence[SortKey],
        where: Filter | None,
        offset: int,
        limit: int,
        within: Sequence[DocumentId] | None = None,
    ) -> tuple[Candidate, ...]:
        found = [
            one
            for one in self._store.living(collection_id)
            if (where is None or matches(where, one.metadata, one.id)) and (within is None or one.id in set(within))
        ]
        for key in reversed(order):
            values = {one.id: _orderable(one, key) for one in found}
            present = sorted(
                (one for one in found if values[one.id]), key=lambda one: values[one.id], reverse=key.descending
            )
            found = present + [one for one in found if not values[one.id]]
        return tuple(Candidate(one.id, one.content_revision, 0.0) for one in found[offset : offset + limit])

    async def facets(
        self, collection: Collection, requests: Sequence[FacetRequest], where: Filter | None
    ) -> tuple[Facet, ...]:
        living = list(self._store.living(collection.id))
        return tuple(
            facet_of(one, [doc.metadata for doc in living if where is None or matches(where, doc.metadata, doc.id)])
            for one in requests
        )

    async def metadata(
        self, collection_id: CollectionId, ids: Sequence[DocumentId]
    ) -> Mapping[DocumentId, Mapping[str, Any]]:
        return {id_: one.metadata for id_, one in (await self.get(collection_id, ids)).items()}

    async def passages(
        self,
        collection_id: CollectionId,
        candidates: Sequence[Candidate],
        where: Filter | None,
        default_length: int,
        whole_bytes: int = 0,
    ) -> tuple[Passage | None, ...]:
        left = whole_bytes

        def passage(candidate: Candidate) -> Passage | None:
            document = self._store.living_one(collection_id, candidate.document_id)
            if document is None or document.content_revision != candidate.content_revision:
                return None
            if where is not None and not matches(where, document.metadata, document.id):
                return None
            nonlocal left
            left -= len(document.text.encode())
            start = candidate.start or 0
            text = document.text[start : default_length if candidate.end is None else candidate.end]
            return Passage(
                title=document.title,
                text=text,
                start=start,
                end=start + len(text),
                metadata=document.metadata,
                revision=document.revision,
                partial=len(text) < len(document.text),
                whole=document.text if left >= 0 and len(text) < len(document.text) else None,
            )

        return tuple(passage(candidate) for candidate in candidates)

    async def texts(
        self, collection_id: CollectionId, content_revisions: Mapping[DocumentId, int], limit: int
    ) -> Mapping[DocumentId, str]:
        found: dict[DocumentId, str] = {}
        left = limit
        for id_, revision in content_revisions.items():
            document = self._store.living_one(collection_id, id_)
            if document is not None and document.content_revision == revision:
                left -= len(document.text.encode())
                if found and left < 0:
                    break
                found[id_] = document.text
        return found


def facet_of(request: FacetRequest, found: Sequence[Mapping[str, Any]]) -> Facet:
    """Counted one document at a time."""
    kinds = {bool: 0, int: 1, float: 1, str: 2}
    counts = Counter[tuple[int, Any]]()
    documents = with_numbers = 0
    for metadata in found:
        values = [one for one in elements(find(metadata, tuple(request.field.split(".")))) if type(one) in kinds]
        keys = {(kinds[type(one)], one) for one in values}
        counts.update(keys)
        documents += bool(keys)
        with_numbers += any(kind == 1 for kind, _ in keys)
    first = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[: request.limit]
    numbers = [value for kind, value in counts if kind == 1]
    return Facet(
        field=request.field,
        values=tuple(FacetValue(value=value, count=count) for (_, value), count in first),
        distinct=len(counts),
        documents=documents,
        missing=len(found) - documents,
        numbers=FacetNumbers(min=min(numbers), max=max(numbers), count=with_numbers) if numbers else None,
    )


def _orderable(document: StoredDocument, key: SortKey) -> tuple[Any, ...]:
    """The value that counts, as something that compares with those of other documents; empty: none."""
    kinds = {bool: 0, int: 1, float: 1, str: 2}
    values = [one for one in elements(find(document.metadata, tuple(key.field.split(".")))) if type(one) in kinds]
    first = max if key.descending else min
    return first(((kinds[type(one)], one) for one in values), default=())


class FakeChanges:
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def ahead(
        self, collection_id: CollectionId, seen: Snapshot, position: Position, limit: int
    ) -> tuple[tuple[Change, ...], Snapshot, bool]:
        raise AssertionError("no transaction is ever open here")

    async def newest(self) -> Mapping[CollectionId, int]:
        return {owner: xid for (owner, _), (xid, _) in sorted(self._store.changes.items(), key=lambda one: one[1][0])}

    async def after(
        self,
        collection_id: CollectionId,
        position: Position,
        limit: int,
        now: datetime,
        seen: Snapshot = NOTHING_SEEN,
        mark: IndexMark | None = None,
    ) -> ChangePage:
        if collection_id not in self._store.collections.rows:
            raise CollectionNotFound
        feed = sorted(
            (Position(xid=xid, document_id=document_id), changed_at)
            for (owner, document_id), (xid, changed_at) in self._store.changes.items()
            if owner == collection_id
        )
        waiting = [(at, changed_at) for at, changed_at in feed if at > position]
        lag = max(0.0, (now - waiting[0][1]).total_seconds()) if waiting else 0.0
        unknown = mark is not None and bool(mark.token) and not self._knows(collection_id, mark)
        if unknown or (
            position.xid and position.xid > max((xid for xid, _ in self._store.changes.values()), default=0)
        ):
            return ChangePage(changes=(), lag_seconds=lag, rebuild=True)
        changes = (
            Change(
                position=at,
                document_id=DocumentId(at.document_id),
                document=self._store.living_one(collection_id, DocumentId(at.document_id)),
            )
            for at, _ in waiting[:limit]
        )
        return ChangePage(changes=tuple(changes), lag_seconds=lag)

    async def mark(self, collection_id: CollectionId, mark: IndexMark, now: datetime) -> str | None:
        if mark.token and not self._knows(collection_id, mark):
            return None
        token = uuid4().hex
        self._store.index_marks[collection_id, mark.generation] = (token, mark.token)
        return token

    def _knows(self, collection_id: CollectionId, mark: IndexMark) -> bool:
        return mark.token in self._store.index_marks.get((collection_id, mark.generation), ())

    async def last_missing(
        self, collection_id: CollectionId, revision: int, position: Position, seen: Snapshot
    ) -> Position | None:
        if revision > self._store.last_xid:
            raise NotFound
        feed = (
            Position(xid=xid, document_id=id_)
            for (owner, id_), (xid, _) in self._store.changes.items()
            if owner == collection_id and xid <= revision
        )
        return max((at for at in feed if at > position and not seen.includes(at.xid)), default=None)

    async def position_of(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Position:
        known = ((id_, self._store.changes.get((collection_id, id_))) for id_ in ids)
        return max((Position(xid=at[0], document_id=id_) for id_, at in known if at), default=Position())
