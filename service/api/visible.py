"""The service as one API key sees it: other collections, and documents that its filter does not admit, do not exist.

Handlers get it from `dependencies.get_service` and nothing else, so that none of them can forget what a key may see.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from service.core.access import Access
from service.core.collections import Collection, CollectionCounts
from service.core.documents import Accepted, Document, IfExists, StoredDocument
from service.core.errors import CollectionNotFound, FieldError, ForeignDocuments, Invalid
from service.core.facets import Facet, FacetRequest
from service.core.filters import And, Filter, matches, several_values
from service.core.ids import CollectionId, CollectionName, DocumentId
from service.core.images import Image
from service.core.ports.collections import Collections
from service.core.ports.documents import Documents
from service.core.search import SearchRequest, SearchResult, Suggestion
from service.core.versions import AuditEntry, EmbedderVersion
from service.search.encode_query import SharedQueryEncoding
from service.search.pipeline import SearchPipeline

if TYPE_CHECKING:
    from service.api.dependencies import Service


def visible_service(service: "Service", access: Access) -> "Service":
    """Also a name that comes in a body instead of the URL leads to visible collections alone."""
    if access.whole:
        return service
    collections = cast(Collections, VisibleCollections(service.collections, access))
    documents = service.documents
    if access.where is not None:
        documents = cast(Documents, VisibleDocuments(documents, service.collections, access))
    return replace(
        service,
        collections=collections,
        collection_service=replace(service.collection_service, collections=collections),
        documents=documents,
        analysis=replace(service.analysis, documents=documents),
        ingest=replace(service.ingest, documents=documents),
        search=cast(SearchPipeline, VisibleSearch(service.search, collections, documents, access)),
    )


@dataclass(frozen=True, slots=True)
class VisibleCollections:
    """Those that the key is for. Whether there are others is not looked up, so that not even the time tells it."""

    _collections: Collections
    _access: Access

    def __getattr__(self, name: str) -> Any:
        """What is done to one that was found here."""
        return getattr(self._collections, name)

    def _require(self, name: CollectionName, asked: CollectionName | None = None) -> None:
        if not self._access.sees(name):
            raise CollectionNotFound(f"There is no collection named {asked or name}.")

    async def create(self, name: CollectionName, *details: Any) -> Collection:
        self._require(name)
        return await self._collections.create(name, *details)

    async def rename(self, collection: Collection, name: CollectionName, entry: AuditEntry) -> Collection:
        self._require(name)
        return await self._collections.rename(collection, name, entry)

    async def copy(
        self, source: Collection, version: EmbedderVersion, name: CollectionName, *details: Any
    ) -> Collection:
        self._require(name)
        return await self._collections.copy(source, version, name, *details)

    async def by_name(self, name: CollectionName) -> Collection:
        """An alias leads to what the key is for, whatever the alias is called, and to nothing else."""
        target = name if self._access.sees(name) else (await self._collections.aliases()).get(name, name)
        self._require(target, name)
        found = await self._collections.by_name(target)
        self._require(found.name, name)
        return found

    async def aliases(self) -> Mapping[CollectionName, CollectionName]:
        return {alias: name for alias, name in (await self._collections.aliases()).items() if self._access.sees(name)}

    async def set_aliases(self, changes: Mapping[CollectionName, CollectionId | None], *details: Any) -> None:
        """The key must be for the name of an alias, as for that of a collection, and for what it leads to so far."""
        present = await self._collections.aliases()
        for alias in changes:
            self._require(alias)
            self._require(present.get(alias, alias), alias)
        await self._collections.set_aliases(changes, *details)

    async def all(self) -> tuple[Collection, ...]:
        return tuple(one for one in await self._collections.all() if self._access.sees(one.name))

    async def counts(self, collection: Collection) -> CollectionCounts:
        return await self._collections.counts(collection, self._access.within(collection))


@dataclass(frozen=True, slots=True)
class VisibleDocuments:
    """Those that the filter of the key admits. Others cannot be read, deleted or replaced, and none can become one.

    The rest of the port is missing: a handler that used it would fail rather than show too much.
    """

    _documents: Documents
    _collections: Collections
    _access: Access

    async def _within(self, collection_id: CollectionId, where: Filter | None = None) -> Filter:
        return cast(Filter, self._access.within(await self._collections.get(collection_id), where))

    async def put(
        self,
        collection_id: CollectionId,
        documents: Sequence[Document],
        now: datetime,
        vectors_of: EmbedderVersion | None = None,
        *,
        if_exists: IfExists = "replace",
    ) -> tuple[Accepted, ...]:
        """ForeignDocuments, before anything is written, where one would not be visible, or replaces one that is not."""
        where = await self._within(collection_id)
        _require_inside(where, documents)
        return await self._documents.put(collection_id, documents, now, vectors_of, where, if_exists)

    async def patch(
        self,
        collection_id: CollectionId,
        document_id: DocumentId,
        change: Callable[[StoredDocument], Document],
        now: datetime,
    ) -> Accepted | None:
        where = await self._within(collection_id)

        def change_inside(stored: StoredDocument) -> Document:
            changed = change(stored)
            _require_inside(where, [changed])
            return changed

        return await self._documents.patch(collection_id, document_id, change_inside, now, where)

    async def count(self, collection_id: CollectionId, where: Filter) -> int:
        return await self._documents.count(collection_id, await self._within(collection_id, where))

    async def facets(
        self, collection: Collection, requests: Sequence[FacetRequest], where: Filter | None
    ) -> tuple[Facet, ...]:
        return await self._documents.facets(collection, requests, self._access.within(collection, where))

    async def delete(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], now: datetime, where: Filter | None = None
    ) -> tuple[DocumentId, ...]:
        return await self._documents.delete(collection_id, ids, now, await self._within(collection_id, where))

    async def get(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Mapping[DocumentId, StoredDocument]:
        where, found = await self._within(collection_id), await self._documents.get(collection_id, ids)
        return {id_: one for id_, one in found.items() if matches(where, one.metadata, id_)}

    async def images(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Image]:
        return await self._documents.images(collection_id, ids, await self._within(collection_id))

    async def page(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int, where: Filter | None
    ) -> tuple[StoredDocument, ...]:
        return await self._documents.page(collection_id, after, limit, await self._within(collection_id, where))

    async def page_ids(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int, where: Filter
    ) -> tuple[DocumentId, ...]:
        return await self._documents.page_ids(collection_id, after, limit, await self._within(collection_id, where))

    async def filter_ids(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], where: Filter
    ) -> frozenset[DocumentId]:
        return await self._documents.filter_ids(collection_id, ids, await self._within(collection_id, where))


def _require_inside(where: Filter, documents: Sequence[Document]) -> None:
    if refused := {one.id: reason for one in documents if (reason := _outside(where, one))}:
        raise ForeignDocuments(refused)


def _outside(where: Filter, document: Document) -> str | None:
    """Why the document cannot be written."""
    if not matches(where, document.metadata, document.id):
        return "its metadata does not pass the filter of this key"
    if several_values(where, document.metadata):  # of `["a", "b"]` the second would put it before the clients of b
        return "its metadata has several values in a field that the filter of this key compares"
    return None


@dataclass(frozen=True, slots=True)
class VisibleSearch:
    """Searches among the visible documents, and for what is like one of them."""

    _search: SearchPipeline
    _collections: Collections
    _documents: Documents
    _access: Access

    def forget(self) -> None:
        self._search.forget()

    async def suggest(self, collection: Collection, text: str, k: int, where: Filter | None) -> tuple[Suggestion, ...]:
        return await self._search.suggest(collection, text, k, self._access.within(collection, where))

    async def run(
        self, name: CollectionName, request: SearchRequest, shared: SharedQueryEncoding | None = None
    ) -> SearchResult:
        collection = await self._collections.by_name(name)
        if self._access.where is None:
            return await self._search.run(collection.name, request, shared)
        if request.like is not None and request.like.ids:
            visible = await self._documents.filter_ids(collection.id, list(request.like.ids), And(()))
            missing = [(field, one.id) for field, one in request.like.by_field if one.id not in {None, *visible}]
            if missing:
                errors = [FieldError(field, f"there is no document {id_!r}") for field, id_ in missing]
                raise Invalid("; ".join(f"{error.field}: {error.message}" for error in errors), errors)
        within = replace(request, where=self._access.within(collection, request.where))
        result = await self._search.run(collection.name, within, shared)
        return replace(result, dense=replace(result.dense, selectivity=None))  # tells how many documents there are
