"""Documents: write, change, delete; and those that were set aside. `document_reads.py` reads them."""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated
from uuid import uuid4

from fastapi import Query
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.api import problems
from service.api.bodies import JSON, NDJSON, NumberedLines, media_type, parse_json, read_json, read_lines
from service.api.cursors import decode_cursor, split_page
from service.api.dependencies import CollectionDep, Service, ServiceDep
from service.api.routing import collection_router, require_confirmation, validated
from service.api.schemas import documents as schemas
from service.api.schemas.base import CollectionPath, ConfirmedQuery, DocumentIdPath, PageQuery, parse_filter
from service.core.collections import Collection
from service.core.concurrency import off_loop
from service.core.documents import Accepted, Document
from service.core.errors import DocumentNotFound, Invalid, TooLarge
from service.core.filters import And
from service.core.ids import DocumentId
from service.core.periodic import utc_now
from service.ingest.stream import BATCH_DOCUMENTS
from service.ingest.validation import vector_target

_BODY = TypeAdapter(schemas.DocumentsBody)
WAIT_WINDOW = 10 * BATCH_DOCUMENTS
"""Ids of a stream that are waited for together. More than ingest holds uncommitted, so the older half is committed."""

router = collection_router("/documents", "documents")


@router.post(
    "",
    summary="Write documents",
    responses=problems.error_responses(413, 415, 429),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"$ref": "#/components/schemas/DocumentsBody"}},
                NDJSON: {"schema": {"type": "string", "description": "One document a line, any number of lines."}},
            },
        }
    },
)
async def write(
    service: ServiceDep, request: Request, collection: CollectionDep, query: Annotated[schemas.WriteQuery, Query()]
) -> schemas.WrittenAnswer:
    """Create or replace, by id. What the answer counts is committed; content that did not change is not encoded again.

    A `vector` is for a version whose embedder is `external`: the only one, or the one that is named.

    A JSON body is written whole or not at all. An NDJSON stream of any length is committed as it arrives; the answer
    names refused lines by number, and the others stand.
    """
    kind = media_type(request)
    if kind not in {JSON, NDJSON}:
        raise HTTPException(415, f"this route takes {JSON} or {NDJSON}, not {kind or 'a body without a type'}")
    if kind == NDJSON:
        return await _write_stream(service, request, collection, query)
    convert = partial(_documents, generate_ids=query.generate_ids)
    documents = await read_json(request, service.limits.body_bytes, convert)
    if documents is None:
        raise Invalid.at("", "an object is required")
    with_vectors = query.embedder_version is not None or any(document.vector is not None for document in documents)
    target = vector_target(await service.versions.of(collection.id), query.embedder_version) if with_vectors else None
    answer = schemas.written_answer(await service.ingest.write(collection, documents, target, query.if_exists))
    if query.wait:
        request.state.admission.finish(answered=True)  # from here on it waits for workers
        ids = [document.id for document in documents]
        answer["searchable"] = await service.ingest.wait_until_searchable(collection, ids)
    return answer


async def _write_stream(
    service: Service, request: Request, collection: Collection, query: schemas.WriteQuery
) -> schemas.WrittenAnswer:
    target = vector_target(await service.versions.of(collection.id), query.embedder_version)
    waiter = _SearchableWaiter(service, collection) if query.wait else None
    max_bytes = service.limits.line_bytes

    async def parse_lines() -> AsyncIterator[list[tuple[int, Document | str]]]:
        async for lines in read_lines(request, max_bytes):
            group = await off_loop(0, _parse_lines, lines, f"longer than {max_bytes} bytes", query.generate_ids)
            for _, document in group:
                if waiter is not None and isinstance(document, Document):
                    await waiter.add(document.id)
            yield group

    outcome = await service.ingest.stream(collection, parse_lines(), target, query.if_exists)
    answer = schemas.streamed_answer(outcome)
    if waiter is not None:
        answer["searchable"] = await waiter.finish()
    return answer


def _documents(content: object, generate_ids: bool) -> list[Document]:
    if generate_ids and isinstance(content, dict) and isinstance(content.get("documents"), list):
        for document in content["documents"]:
            _add_id(document)
    return [one.document() for one in validated(_BODY, content).documents]


def _parse_lines(lines: NumberedLines, too_long: str, generate_ids: bool) -> list[tuple[int, Document | str]]:
    return [(number, too_long if line is None else parse_line(line, generate_ids)) for number, line in lines]


def _add_id(document: object) -> None:
    if isinstance(document, dict):
        document.setdefault("id", str(uuid4()))


def parse_line(line: bytes, generate_id: bool = False) -> Document | str:
    """The document of a line, or why it is refused."""
    try:
        content = parse_json(line)
        if generate_id:
            _add_id(content)
        return schemas.DocumentBody.model_validate(content).document()
    except ValidationError as error:
        return problems.join_messages(error.errors(include_url=False))
    except TooLarge as error:
        return error.detail
    except ValueError as error:
        return f"not JSON: {error}"


class _SearchableWaiter:
    """Waits until the documents of a stream are searchable, window by window, so that it need not keep all ids."""

    def __init__(self, service: Service, collection: Collection) -> None:
        self._service = service
        self._collection = collection
        self._ids: list[DocumentId] = []
        self._searchable = True

    async def add(self, document_id: DocumentId) -> None:
        self._ids.append(document_id)
        if len(self._ids) >= 2 * WAIT_WINDOW:
            older, self._ids = self._ids[:WAIT_WINDOW], self._ids[WAIT_WINDOW:]
            await self._wait(older)

    async def finish(self) -> bool:
        await self._wait(self._ids)
        return self._searchable

    async def _wait(self, ids: Sequence[DocumentId]) -> None:
        if self._searchable:  # after one timeout the answer is known
            self._searchable = await self._service.ingest.wait_until_searchable(self._collection, ids)


@router.get("/failed", summary="List the documents that were set aside")
async def list_failed(
    service: ServiceDep, collection: CollectionPath, query: Annotated[PageQuery, Query()]
) -> schemas.FailedPage:
    """Documents that the embedder could not encode, and why. Lexical search finds them all the same."""
    after = decode_cursor(collection, query.cursor)
    found = await service.collections.by_name(collection)
    rows = await service.queue.failed(found.id, None if after is None else DocumentId(after), query.limit + 1)
    page, next_cursor = split_page(collection, rows, query.limit, lambda failed: failed.id)
    return {"documents": list(page), "next_cursor": next_cursor}


@router.post("/failed/retry", summary="Encode the documents again that were set aside")
async def retry(service: ServiceDep, collection: CollectionDep) -> schemas.RetriedAnswer:
    return {"retried": await service.queue.retry(collection.id, utc_now())}


@router.patch("/{id:id}", summary="Change parts of one document", responses=problems.error_responses(413, 415, 429))
async def patch(
    service: ServiceDep, collection: CollectionDep, id: DocumentIdPath, body: schemas.PatchBody
) -> Accepted:
    """A JSON merge patch of title, text and metadata. It is encoded again only if title or text change."""
    return await service.ingest.patch(collection, id, body.model_dump(exclude_unset=True))


@router.delete("/{id:id}", summary="Delete one document", status_code=204, responses=problems.error_responses(429))
async def delete(service: ServiceDep, collection: CollectionDep, id: DocumentIdPath) -> Response:
    if not await service.ingest.delete(collection, [id]):
        raise DocumentNotFound
    return Response(status_code=204)


@router.post("/delete", summary="Delete documents by id or by filter", responses=problems.error_responses(428, 429))
async def delete_many(
    service: ServiceDep,
    collection: CollectionDep,
    query: Annotated[ConfirmedQuery, Query()],
    body: schemas.DeletionBody,
) -> schemas.DeletedAnswer:
    """Or all of them, with `{"all": true}`, which must be confirmed."""
    if body.all:
        require_confirmation(collection.name, query.confirm, f"all documents of the collection {collection.name}")
        return {"deleted": await service.ingest.delete_matching(collection, And(()))}
    if body.filter is not None:
        where = parse_filter(body.filter, collection.settings.field_types)
        if where is None:
            raise Invalid.at("filter", 'an empty filter would delete everything: if you mean it, send {"all": true}')
        return {"deleted": await service.ingest.delete_matching(collection, where)}
    ids = list(dict.fromkeys(body.ids or ()))
    deleted = set(await service.ingest.delete(collection, ids)) if ids else set()
    return {"deleted": len(deleted), "missing": [one for one in ids if one not in deleted]}
