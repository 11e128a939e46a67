"""Documents in, out and gone; and those that were set aside."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import ValidationError
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.api import cursors, problems
from service.api.bodies import JSON, NDJSON, JsonRoute, lines, media_type, parse, read_json
from service.api.dependencies import Here, Service
from service.api.problems import documented
from service.api.schemas import answers, requests
from service.core.collections import Collection
from service.core.documents import Document
from service.core.errors import DocumentNotFound, Invalid
from service.core.ids import CollectionName, DocumentId, VersionNumber
from service.core.periodic import utc_now
from service.ingest.stream import BATCH_DOCUMENTS
from service.ingest.validation import VectorTarget, vector_target

WINDOW = 10 * BATCH_DOCUMENTS
"""Ids of a stream that are waited for together. More than ingest holds uncommitted, so the older half is committed."""


class IdConvertor(Convertor[str]):
    """Any text. Starlette's own `path` stops before a line break, and would take "a\n" for "a"."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", IdConvertor())
router = APIRouter(prefix="/v1/collections/{collection}/documents", tags=["documents"], route_class=JsonRoute)

Id = Annotated[requests.Id, Path()]


# ---------------------------------------------------------------- write


@router.post(
    "",
    summary="Write documents",
    response_model=answers.WrittenAnswer,
    responses=documented(400, 401, 404, 413, 415, 422, 503),
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
    service: Here, request: Request, collection: requests.Name, query: Annotated[requests.WriteQuery, Query()]
) -> Response:
    """Create or replace, by id. What the answer counts is committed; content that did not change is not encoded again.

    A `vector` is for a version whose embedder is `external`: the one that there is, or the one that is named.

    A JSON body is written whole or not at all. An NDJSON stream of any length is committed as it arrives; lines that
    are refused are told by number, and the others stand.
    """
    kind = media_type(request)
    if kind not in {JSON, NDJSON}:
        raise HTTPException(415, f"this route takes {JSON} or {NDJSON}")
    found = await service.collections.by_name(CollectionName(collection))
    if kind == NDJSON:
        return answers.Json(await _stream(service, request, found, query))
    documents = _documents(await read_json(request, service.limits.body_bytes))
    brought = query.embedder_version is not None or any(document.vector is not None for document in documents)
    target = await _vector_target(service, found, query) if brought else None
    shown = answers.written(await service.ingest.write(found, documents, target))
    if query.wait:
        shown["searchable"] = await service.ingest.wait_until_searchable(found, [document.id for document in documents])
    return answers.Json(shown)


def _documents(body: Any) -> list[Document]:
    try:
        return [one.document() for one in requests.DocumentsBody.model_validate(body).documents]
    except ValidationError as error:
        raise problems.invalid(error.errors()) from error


async def _vector_target(service: Service, collection: Collection, query: requests.WriteQuery) -> VectorTarget:
    number = None if query.embedder_version is None else VersionNumber(query.embedder_version)
    return vector_target(await service.versions.of(collection.id), number)


async def _stream(
    service: Service, request: Request, collection: Collection, query: requests.WriteQuery
) -> answers.WrittenAnswer:
    target = await _vector_target(service, collection, query)
    waiting = _Waiting(service, collection) if query.wait else None
    longest = service.limits.line_bytes

    async def read() -> AsyncIterator[tuple[int, Document | str]]:
        async for number, line in lines(request, longest):
            document = f"longer than {longest} bytes" if line is None else _document(line)
            if waiting is not None and isinstance(document, Document):
                await waiting.add(document.id)
            yield number, document

    shown = answers.streamed(await service.ingest.stream(collection, read(), target))
    if waiting is not None:
        shown["searchable"] = await waiting.finish()
    return shown


def _document(line: bytes) -> Document | str:
    """The document of a line, or why it is none."""
    try:
        return requests.DocumentBody.model_validate(parse(line)).document()
    except ValidationError as error:
        return problems.reasons(error.errors())
    except ValueError as error:
        return f"not JSON: {error}"


class _Waiting:
    """Waits for the documents of a stream, window by window, so that it need not remember all of them."""

    def __init__(self, service: Service, collection: Collection) -> None:
        self._service = service
        self._collection = collection
        self._ids: list[DocumentId] = []
        self._searchable = True

    async def add(self, document_id: DocumentId) -> None:
        self._ids.append(document_id)
        if len(self._ids) >= 2 * WINDOW:
            older, self._ids = self._ids[:WINDOW], self._ids[WINDOW:]
            await self._look(older)

    async def finish(self) -> bool:
        await self._look(self._ids)
        return self._searchable

    async def _look(self, ids: Sequence[DocumentId]) -> None:
        if self._searchable:  # once something took too long, there is nothing left to wait for
            self._searchable = await self._service.ingest.wait_until_searchable(self._collection, ids)


# ---------------------------------------------------------------- read


@router.get(
    "",
    summary="List documents",
    response_model=answers.DocumentPage,
    responses=documented(401, 404, 422, 503),
)
async def listed(service: Here, collection: requests.Name, query: Annotated[requests.ListQuery, Query()]) -> Response:
    """In the byte order of their ids, page by page."""
    name = CollectionName(collection)
    after = None if query.cursor is None else DocumentId(cursors.read(name, query.cursor))
    where = requests.where(_filter(query.filter))
    found = await service.collections.by_name(name)
    # One more than asked for tells whether there is a page after this one.
    page = await service.documents.page(found.id, after, query.limit + 1, where)
    shown = page[: query.limit]
    more = len(page) > query.limit
    return answers.Json(
        {
            "documents": [answers.document(one) for one in shown],
            "next_cursor": cursors.issue(name, shown[-1].id) if more else None,
        }
    )


def _filter(text: str | None) -> Any:
    if text is None:
        return None
    try:
        value = parse(text)
    except ValueError as error:
        raise Invalid.at("filter", f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Invalid.at("filter", "expected an object")
    return value


@router.get(
    "/failed",
    summary="List the documents that were set aside",
    response_model=answers.FailedPage,
    responses=documented(401, 404, 422, 503),
)
async def failed(service: Here, collection: requests.Name, query: Annotated[requests.PageQuery, Query()]) -> Response:
    """Documents that the embedder could not encode, and why. Lexical search finds them all the same."""
    name = CollectionName(collection)
    after = None if query.cursor is None else DocumentId(cursors.read(name, query.cursor))
    found = await service.collections.by_name(name)
    page = await service.queue.failed(found.id, after, query.limit + 1)
    shown = page[: query.limit]
    more = len(page) > query.limit
    return answers.Json(
        {
            "documents": [answers.failed(one) for one in shown],
            "next_cursor": cursors.issue(name, shown[-1].id) if more else None,
        }
    )


@router.post(
    "/failed/retry",
    summary="Give what was set aside another chance",
    response_model=answers.RetriedAnswer,
    responses=documented(401, 404, 422, 503),
)
async def retry(service: Here, collection: requests.Name) -> Response:
    found = await service.collections.by_name(CollectionName(collection))
    return answers.Json({"retried": await service.queue.retry(found.id, utc_now())})


# After "/failed", which would otherwise be taken for an id.
@router.get(
    "/{id:id}",
    summary="One document",
    response_model=answers.DocumentAnswer,
    responses=documented(401, 404, 422, 503),
)
async def get(service: Here, collection: requests.Name, id: Id) -> Response:
    found = await service.collections.by_name(CollectionName(collection))
    document = (await service.documents.get(found.id, [DocumentId(id)])).get(DocumentId(id))
    if document is None:
        raise DocumentNotFound
    return answers.Json(answers.document(document))


# ---------------------------------------------------------------- delete


@router.delete(
    "/{id:id}",
    summary="Delete one document",
    status_code=204,
    response_model=None,
    responses=documented(401, 404, 422, 503),
)
async def delete(service: Here, collection: requests.Name, id: Id) -> Response:
    found = await service.collections.by_name(CollectionName(collection))
    if not await service.ingest.delete(found, [DocumentId(id)]):
        raise DocumentNotFound
    return Response(status_code=204)


@router.post(
    "/delete",
    summary="Delete documents by id or by filter",
    response_model=answers.DeletedAnswer,
    responses=documented(400, 401, 404, 413, 415, 422, 503),
)
async def delete_many(service: Here, collection: requests.Name, body: requests.DeletionBody) -> Response:
    found = await service.collections.by_name(CollectionName(collection))
    if body.filter is not None:
        where = requests.where(body.filter)
        if where is None:
            raise Invalid.at("filter", "an empty filter would delete everything: delete the collection instead")
        return answers.Json({"deleted": await service.ingest.delete_matching(found, where)})
    ids = list(dict.fromkeys(map(DocumentId, body.ids or ())))
    gone = set(await service.ingest.delete(found, ids)) if ids else set()
    return answers.Json({"deleted": len(gone), "missing": [one for one in ids if one not in gone]})
