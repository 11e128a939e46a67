"""Documents in PostgreSQL: the data that both legs follow.

Every transaction takes its locks in the same order: documents (which keep the values of declared fields), changes,
jobs, vectors, each sorted by id. Deleted documents stay as tombstones, so every query selects the living ones.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString

import orjson
from psycopg import sql
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from service.core.change_feed import record_revision
from service.core.collections import Collection
from service.core.concurrency import off_loop
from service.core.documents import Accepted, Document, IfExists, StoredDocument
from service.core.errors import CollectionNotFound, DocumentsExist, ForeignDocuments
from service.core.facets import Facet, FacetRequest
from service.core.filters import Filter
from service.core.ids import CollectionId, DocumentId, VersionNumber
from service.core.images import Image
from service.core.metadata import nfc
from service.core.portions import portions
from service.core.result_options import SortKey
from service.core.search import Candidate, FilterMatch, Passage
from service.core.versions import EmbedderVersion
from service.store.postgres import change_feed, images, queue
from service.store.postgres.connection import sql_files
from service.store.postgres.connection.pool import Adapter, Connection, Pool, Values, retrying
from service.store.postgres.facets.facets import Facets
from service.store.postgres.filters import indexed_fields, sorting
from service.store.postgres.filters.filter_matches import FilterMatches
from service.store.postgres.filters.filter_sql import Predicate, predicate
from service.store.postgres.rows import document_of, text_array
from service.store.postgres.vectors import client_vectors, vectors

SQL = sql_files.load("documents")
PART_SIZE = 2**20
"""Characters of texts and bytes of metadata after which a statement writes no more documents."""
_COLUMNS = ("ids", "titles", "texts", "metadata", "sent", "hashes", "images")


class PostgresDocuments(Adapter):
    """Adapter of `ports.Documents`."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._filter_matches = FilterMatches(pool)
        self._facets = Facets(pool, self._filter_matches)

    async def put(
        self,
        collection_id: CollectionId,
        documents: Sequence[Document],
        now: datetime,
        vectors_of: EmbedderVersion | None = None,
        within: Filter | None = None,
        if_exists: IfExists = "replace",
    ) -> tuple[Accepted, ...]:
        """CollectionNotFound where the collection was deleted meanwhile; Invalid where a field got a type meanwhile.

        Unchanged content with another vector is "updated", without another revision.
        """
        if not documents:
            return ()
        characters = sum(len(document.text) for document in documents)
        parts = await off_loop(characters, lambda: list(_upserts(documents)))
        brought = {one.id: vectors_of.number for one in documents if one.vector is not None} if vectors_of else {}

        async def commit() -> dict[DocumentId, Accepted]:
            async with self._pool.transaction() as connection:
                await _hold_collection(connection, collection_id)
                if vectors_of is not None:
                    await client_vectors.check_accepts_vectors(connection, vectors_of)
                accepted, content_revisions = await _write(
                    connection, collection_id, parts, _images(documents), now, within, if_exists, brought
                )
                if vectors_of is not None:
                    stored = await client_vectors.store(connection, vectors_of, documents, content_revisions)
                    for id_ in stored:
                        if accepted[id_].status == "unchanged":
                            accepted[id_] = dataclasses.replace(accepted[id_], status="updated")
                return accepted

        accepted = await retrying(commit)
        return tuple(accepted[document.id] for document in documents)

    async def patch(
        self,
        collection_id: CollectionId,
        document_id: DocumentId,
        change: Callable[[StoredDocument], Document],
        now: datetime,
        within: Filter | None = None,
    ) -> Accepted | None:
        statement, condition = _filtered(SQL.lock_one, within)
        values = {**condition.values, "collection_id": collection_id, "document_id": document_id}

        async def commit() -> Accepted | None:
            async with self._pool.transaction() as connection:
                await _hold_collection(connection, collection_id)
                row = await connection.fetch_one(statement, values)
                if row is None:
                    return None
                changed = [change(document_of(row))]
                parts, shown = list(_upserts(changed)), _images(changed)
                accepted, _ = await _write(connection, collection_id, parts, shown, now, None, "replace", {})
                return accepted[document_id]

        return await retrying(commit)

    async def delete(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], now: datetime, where: Filter | None = None
    ) -> tuple[DocumentId, ...]:
        statement, condition = _filtered(SQL.delete, where)
        values = {**condition.values, "collection_id": collection_id, "ids": list(ids), "now": now}

        async def commit() -> set[DocumentId]:
            async with self._pool.transaction() as connection:
                await _hold_collection(connection, collection_id)
                deleted = [id_ for (id_,) in await connection.fetch_all(statement, values, prepare=False)]
                if deleted:
                    await indexed_fields.keep(connection, collection_id, deleted)
                    await images.replace(connection, collection_id, deleted, {})
                    await change_feed.record(connection, collection_id, deleted, now)
                    # Jobs first: a worker that is storing one of them has committed when this returns, and the next
                    # statement sees what it stored.
                    await queue.delete_jobs(connection, collection_id, deleted)
                    await vectors.remove(connection, collection_id, deleted)
                return set(deleted)

        deleted = await retrying(commit) if ids else set()
        return tuple(id_ for id_ in dict.fromkeys(ids) if id_ in deleted)

    async def get(self, collection_id: CollectionId, ids: Sequence[DocumentId]) -> Mapping[DocumentId, StoredDocument]:
        rows = await self._pool.fetch_all(SQL.get, {"collection_id": collection_id, "ids": list(ids)})
        return {row[0]: document_of(row) for row in rows}

    async def images(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], where: Filter | None = None
    ) -> Mapping[DocumentId, Image]:
        values = {"collection_id": collection_id, "ids": list(ids)}
        rows = await self._fetch(images.SQL.get, where, values)
        return {
            id_: Image(digest=digest, type=kind, content=content, preview=preview)
            for id_, digest, kind, content, preview in rows
        }

    async def page(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int, where: Filter | None
    ) -> tuple[StoredDocument, ...]:
        values = {"collection_id": collection_id, "after": after or "", "limit": limit}
        return tuple(map(document_of, await self._fetch(SQL.page, where, values)))

    async def count(self, collection_id: CollectionId, where: Filter) -> int:
        return int((await self._fetch(SQL.count, where, {"collection_id": collection_id}))[0][0])

    async def page_ids(
        self, collection_id: CollectionId, after: DocumentId | None, limit: int, where: Filter
    ) -> tuple[DocumentId, ...]:
        values = {"collection_id": collection_id, "after": after or "", "limit": limit}
        return tuple(id_ for (id_,) in await self._fetch(SQL.page_ids, where, values))

    async def match_filter(
        self, collection_id: CollectionId, where: Filter, cap: int, seconds: float | None = None
    ) -> FilterMatch:
        return await self._filter_matches.find(collection_id, where, cap, seconds)

    async def filter_ids(
        self, collection_id: CollectionId, ids: Sequence[DocumentId], where: Filter
    ) -> frozenset[DocumentId]:
        values = {"collection_id": collection_id, "ids": list(ids)}
        return frozenset(row[0] for row in await self._fetch(SQL.filter_ids, where, values))

    async def in_order(
        self,
        collection_id: CollectionId,
        order: Sequence[SortKey],
        where: Filter | None,
        offset: int,
        limit: int,
        within: Sequence[DocumentId] | None = None,
    ) -> tuple[Candidate, ...]:
        return await sorting.in_order(self._pool, collection_id, order, where, offset, limit, within)

    async def facets(
        self, collection: Collection, requests: Sequence[FacetRequest], where: Filter | None
    ) -> tuple[Facet, ...]:
        return await self._facets.count(collection, requests, where)

    async def warm_facets(self, collections: Sequence[Collection]) -> None:
        """Hold in memory what facets of declared fields need, before a request does."""
        await self._facets.warm(collections)

    async def metadata(
        self, collection_id: CollectionId, ids: Sequence[DocumentId]
    ) -> Mapping[DocumentId, Mapping[str, Any]]:
        values = {"collection_id": collection_id, "ids": text_array(ids)}
        return dict(await self._pool.fetch_all(SQL.metadata, values))

    async def passages(
        self,
        collection_id: CollectionId,
        candidates: Sequence[Candidate],
        where: Filter | None,
        default_length: int,
        whole_bytes: int = 0,
    ) -> tuple[Passage | None, ...]:
        values = {
            "collection_id": collection_id,
            "whole_bytes": whole_bytes,
            "ids": text_array([candidate.document_id for candidate in candidates]),
            "content_revisions": [candidate.content_revision for candidate in candidates],
            "starts": [candidate.start or 0 for candidate in candidates],
            "ends": [default_length if candidate.end is None else candidate.end for candidate in candidates],
        }
        passages: list[Passage | None] = [None] * len(candidates)
        rows = await self._fetch(SQL.passages, where, values)
        for at, title, text, start, metadata, revision, partial, whole, image in rows:
            passages[at - 1] = Passage(
                title=title,
                text=text,
                start=start,
                end=start + len(text),
                metadata=metadata,
                revision=revision,
                partial=partial,
                whole=whole,
                image=image,
            )
        return tuple(passages)

    async def texts(
        self, collection_id: CollectionId, content_revisions: Mapping[DocumentId, int], limit: int
    ) -> Mapping[DocumentId, str]:
        values = {
            "collection_id": collection_id,
            "ids": text_array(list(content_revisions)),
            "content_revisions": list(content_revisions.values()),
            "limit": limit,
        }
        return dict(await self._pool.fetch_all(SQL.texts, values))

    async def _fetch(self, query: LiteralString, where: Filter | None, values: Values) -> list[TupleRow]:
        """The rows of a statement with a filter in it."""
        statement, condition = _filtered(query, where)
        values = {**condition.values, **values}
        return await self._pool.fetch_all(statement, values, prepare=False, lookups=condition.lookups)


def _upserts(documents: Sequence[Document]) -> Iterator[Mapping[str, list[Any]]]:
    """The values of the statements that write the documents, in the order of their ids. None of them is large.

    The driver copies values on the event loop: texts as they are, and JSON that is written here.
    """
    rows: list[tuple[Any, ...]] = []
    for document in sorted(documents, key=lambda document: document.id):
        sent, metadata = dict(document.metadata), nfc(document.metadata)
        sent_json = None if sent == metadata else Jsonb(orjson.dumps(sent), bytes)
        json = Jsonb(orjson.dumps(metadata), bytes)
        image = document.image.digest if isinstance(document.image, Image) else None
        rows.append((document.id, document.title, document.text, json, sent_json, document.content_hash, image))
    for part in portions(rows, lambda row: len(row[2]) + len(row[3].obj), PART_SIZE):
        yield dict(zip(_COLUMNS, map(list, zip(*part, strict=True)), strict=True))


def _images(documents: Sequence[Document]) -> dict[DocumentId, Image]:
    return {one.id: one.image for one in documents if isinstance(one.image, Image)}


async def _write(
    connection: Connection,
    collection_id: CollectionId,
    parts: Sequence[Mapping[str, list[Any]]],
    shown: Mapping[DocumentId, Image],
    now: datetime,
    within: Filter | None,
    if_exists: IfExists,
    brought: Mapping[DocumentId, VersionNumber],
) -> tuple[dict[DocumentId, Accepted], dict[DocumentId, int]]:
    """The outcome of each document, and the content revisions of those that now are as they were given.

    `brought`: see `queue.enqueue`.
    """
    passing, condition = _filtered(SQL.filter_ids, within)
    upsert = sql.SQL(SQL.upsert).format(where=condition.expression if if_exists == "replace" else sql.SQL("FALSE"))
    written: list[Any] = []
    for part in parts:
        values = {**condition.values, **part, "collection_id": collection_id, "now": now}
        written += await connection.fetch_all(upsert, values)
    accepted = {
        id_: Accepted(id=id_, status="created" if created else "updated", revision=revision)
        for id_, revision, _, created in written
    }
    if written:
        await indexed_fields.keep(connection, collection_id, list(accepted))
        await change_feed.record(connection, collection_id, list(accepted), now)
    new_content = {id_: content for id_, revision, content, _ in written if content == revision}
    if shown or any(accepted[id_].status == "updated" for id_ in new_content):
        await images.replace(connection, collection_id, list(new_content), shown)
    if new_content:
        await queue.enqueue(connection, collection_id, new_content, now, brought)
    # The upsert locked these too, so they still are as it found them.
    unchanged = [id_ for part in parts for id_ in part["ids"] if id_ not in accepted]
    content_revisions = {id_: content for id_, _, content, _ in written}
    if unchanged:
        key = {"collection_id": collection_id, "ids": unchanged}
        if within is not None:
            own = {row[0] for row in await connection.fetch_all(passing, {**condition.values, **key})}
            if foreign := dict.fromkeys(set(unchanged) - own, "this id cannot be used by this key"):
                raise ForeignDocuments(foreign)
        if if_exists == "fail":
            raise DocumentsExist(dict.fromkeys(unchanged, "a document with this id is there already"))
        for id_, revision, content in await connection.fetch_all(SQL.revisions, key):
            accepted[id_] = Accepted(id=id_, status="unchanged", revision=revision)
            if if_exists == "replace":
                content_revisions[id_] = content
    return accepted, content_revisions


async def _hold_collection(connection: Connection, collection_id: CollectionId) -> None:
    row = await connection.fetch_one(SQL.hold_collection, {"collection_id": collection_id})
    if row is None:
        raise CollectionNotFound()
    record_revision(row[0])


def _filtered(query: LiteralString, where: Filter | None) -> tuple[sql.Composed, Predicate]:
    condition = predicate(where)
    return sql.SQL(query).format(where=condition.expression), condition
