from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from service.core.collections import Collection
from service.core.documents import Accepted, Document, IfExists, StoredDocument
from service.core.facets import Facet, FacetRequest
from service.core.filters import Filter
from service.core.ids import CollectionId, DocumentId
from service.core.images import Image
from service.core.result_options import SortKey
from service.core.search import Candidate, FilterMatch, Passage
from service.core.versions import EmbedderVersion


class Documents(Protocol):
    """The committed documents, which both legs follow."""

    async def put(
        self,
        collection_id: CollectionId,
        documents: Sequence[Document],
        now: datetime,
        vectors_of: EmbedderVersion | None = None,
        within: Filter | None = None,
        if_exists: IfExists = "replace",
    ) -> tuple[Accepted, ...]:
        """Create or replace, in one transaction with the jobs and the change rows; outcomes in the order given.

        Ids must be distinct. Changed content enqueues a job for every written version; a change of metadata alone only
        raises the revision; an identical document changes nothing.

        A document's own `vector` is stored under `vectors_of` in the same transaction, which ends its job there, even
        if the content is unchanged. VersionNotFound where that version takes no vectors (any more).

        Only documents that pass `within` are replaced: ForeignDocuments, and nothing is written, where one does not.
        With `if_exists` none is: what exists is "unchanged", with its vector, or DocumentsExist names it.
        """

    async def patch(
        self,
        collection_id: CollectionId,
        document_id: DocumentId,
        change: Callable[[StoredDocument], Document],
        now: datetime,
        within: Filter | None = None,
    ) -> Accepted | None:
        """Write what `change` makes of a document that passes `within`; None where there is none. Nobody changes the
        document between its reading and its writing."""

    async def delete(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], now: datetime, where: Filter | None = None
    ) -> tuple[DocumentId, ...]:
        """Delete the documents that pass, with vectors and jobs, in one transaction; the ids of those that existed.

        `where` is checked on each document as it is when it is deleted.
        """

    async def get(
        self, collection_id: CollectionId, ids: Sequence[DocumentId]
    ) -> Mapping[DocumentId, StoredDocument]: ...

    async def images(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], where: Filter | None = None
    ) -> Mapping[DocumentId, Image]:
        """Of those documents that pass and have one."""

    async def page(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int, where: Filter | None
    ) -> tuple[StoredDocument, ...]:
        """Up to `limit` documents with ids after `after`, in byte order of the ids."""

    async def count(self, collection_id: CollectionId, where: Filter) -> int:
        """How many documents pass, exactly."""

    async def page_ids(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int, where: Filter
    ) -> tuple[DocumentId, ...]:
        """The ids of such a page."""

    async def match_filter(
        self, collection_id: CollectionId, where: Filter, cap: int, seconds: float | None = None
    ) -> FilterMatch:
        """The documents that pass, listed where they are at most `cap`. Stops counting at cap + 1.

        What takes longer than `seconds` to list counts as more than can be listed.
        """

    async def filter_ids(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], where: Filter
    ) -> frozenset[DocumentId]:
        """Those of `ids` that exist and pass."""

    async def in_order(
        self,
        collection_id: CollectionId,
        order: Sequence[SortKey],
        where: Filter | None,
        offset: int,
        limit: int,
        within: Sequence[DocumentId] | None = None,
    ) -> tuple[Candidate, ...]:
        """The documents that pass (of `within`, where it is given) by the values of declared fields, with score 0.

        Documents without a value of a field come last; ties in byte order of the ids. Texts compare by their first 64
        code points. Invalid for a field that is not declared, Conflict while it is filled.
        """

    async def facets(
        self, collection: Collection, requests: Sequence[FacetRequest], where: Filter | None
    ) -> tuple[Facet, ...]:
        """How many of the documents that pass have each value; exact as of one moment.

        Invalid where a field has too many different values (`MAX_DISTINCT`) to be counted.
        """

    async def metadata(
        self, collection_id: CollectionId, ids: Sequence[DocumentId]
    ) -> Mapping[DocumentId, Mapping[str, Any]]:
        """Of those that exist, keys and texts in NFC."""

    async def passages(
        self,
        collection_id: CollectionId,
        candidates: Sequence[Candidate],
        where: Filter | None,
        default_length: int,
        whole_bytes: int = 0,
    ) -> tuple[Passage | None, ...]:
        """The text of each candidate's chunk as it stands now, aligned with `candidates`; the `whole` text as well of
        the first ones whose documents together have at most `whole_bytes`.

        None where the document was deleted, its content is no longer of the candidate's revision, or it no longer
        passes the filter. A candidate without offsets gives the first `default_length` code points.
        """

    async def texts(
        self, collection_id: CollectionId, content_revisions: Mapping[DocumentId, int], limit: int
    ) -> Mapping[DocumentId, str]:
        """The texts of the first of these documents that together have at most `limit` bytes, and of the very first.

        Without documents that are deleted, or no longer of this content.
        """
