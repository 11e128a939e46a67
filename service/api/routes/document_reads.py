"""Documents are read: one, several by id, page by page, and all of them as a stream; and they are counted."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any

import orjson
from fastapi import Body, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.api.bodies import NDJSON, SENT_AT_ONCE, large_answer, parse_json
from service.api.cursors import decode_cursor, encode_cursor
from service.api.dependencies import CollectionDep, Service, ServiceDep
from service.api.permissions import PERMISSIONS
from service.api.routes.judgments import judgment_set
from service.api.routing import QueryRoute, collection_router
from service.api.schemas import documents as schemas
from service.api.schemas.base import MAX_PAGE, CollectionPath, DocumentIdPath, parse_filter
from service.api.schemas.collections import settings_as_sent
from service.core.collections import Collection
from service.core.concurrency import off_loop
from service.core.documents import StoredDocument
from service.core.errors import DocumentNotFound, Forbidden, Invalid
from service.core.filters import And, Filter
from service.core.ids import DocumentId
from service.core.images import Image
from service.core.portions import portions

PAGE_BOUNDS = {False: (16, 4_000_000), True: (2, 500_000)}
"""Documents that are read first (at least two), then four times as many; and the characters of texts after which a page
ends. With vectors less: they have about ten times as many digits as their texts have characters."""
IMAGES_AT_ONCE = 4

router = collection_router("", "documents", route_class=QueryRoute)


@router.get("/documents", summary="List documents", response_model=schemas.DocumentPage)
async def list_documents(
    service: ServiceDep, collection: CollectionPath, query: Annotated[schemas.ListQuery, Query()]
) -> Response:
    """In the byte order of their ids, page by page. A page of large documents has fewer than `limit`."""
    after = decode_cursor(collection, query.cursor)
    found = await service.collections.by_name(collection)
    where = filter_from_url(query.filter, found)
    last = None if after is None else DocumentId(after)
    page, more = await _page(service, found, last, query.limit, where, "vectors" in query.include)
    next_cursor = encode_cursor(collection, page[-1].id) if more else None
    documents = await _answers(service, found, page, query.include)
    return await large_answer({"documents": documents, "next_cursor": next_cursor})


@router.get("/documents/fetch", summary="Documents by id", response_model=schemas.DocumentsAnswer)
async def fetch(
    service: ServiceDep, collection: CollectionPath, query: Annotated[schemas.FetchQuery, Query()]
) -> Response:
    """For a few short ids; many of them fit a body."""
    return await _fetched(service, collection, query.ids, query.include)


@router.post("/documents/fetch", summary="Documents by id", response_model=schemas.DocumentsAnswer)
async def fetch_many(service: ServiceDep, collection: CollectionPath, body: schemas.FetchBody) -> Response:
    return await _fetched(service, collection, body.ids, body.include)


# After "fetch", which would otherwise be taken for an id.
@router.get("/documents/{id:id}", summary="One document")
async def get(
    service: ServiceDep, collection: CollectionDep, id: DocumentIdPath, query: Annotated[schemas.ReadQuery, Query()]
) -> schemas.DocumentAnswer:
    document = (await service.documents.get(collection.id, [id])).get(id)
    if document is None:
        raise DocumentNotFound
    return (await _answers(service, collection, [document], query.include))[0]


@router.post("/count", summary="The number of documents that pass a filter")
async def count(
    service: ServiceDep,
    collection: CollectionDep,
    body: Annotated[schemas.CountBody, Body(default_factory=schemas.CountBody)],
) -> schemas.CountAnswer:
    """Counted one by one, so that it is exact. The body may be left out."""
    where = parse_filter(body.filter, collection.settings.field_types) or And(())
    return {"count": await service.documents.count(collection.id, where)}


@router.get(
    "/export",
    summary="All documents, one a line",
    response_class=StreamingResponse,
    responses={200: {"description": "A document a line.", "content": {NDJSON: {"schema": {"type": "string"}}}}},
)
async def export(
    service: ServiceDep, collection: CollectionDep, request: Request, query: Annotated[schemas.ExportQuery, Query()]
) -> Response:
    """In the byte order of their ids, of any length; they can be written again as they are. Each document is as it is
    when it is read. A connection that breaks before the end of the body means that some are missing."""
    judgments_permission = PERMISSIONS["GET /v1/collections/{collection}/judgments"]
    if query.header and (refusal := judgments_permission.refusal(request.state.access)):
        raise Forbidden(refusal)
    where = filter_from_url(query.filter, collection)
    with_vectors = collection.settings.embedder.external if query.vectors is None else query.vectors
    pages = _exported(service, collection, where, with_vectors)
    first = await anext(pages)  # what is wrong with the request is found before the answer begins
    if query.header:
        first.insert(0, await _header(service, collection))

    async def body() -> AsyncIterator[bytes]:
        for part in first:
            yield part
        async for page in pages:
            for part in page:
                yield part

    return StreamingResponse(body(), media_type=NDJSON)


async def _header(service: Service, collection: Collection) -> bytes:
    """What makes an equal collection beside its documents: as if it had had the active version alone, without times."""
    version = await service.versions.get(collection.id, collection.active_version)
    settings = settings_as_sent(collection.settings) | {"index": version.index}
    if (tuned := settings.pop("tuned")) and tuned.pop("version") == version.number:
        del tuned["at"]
        settings["tuned"] = tuned | {"version": 1}
    judgments = await service.test_sets.get(collection.id)
    aliases = (await service.collections.aliases()).items()
    header = {
        "settings": settings,
        "fingerprint": version.fingerprint,
        "aliases": sorted(alias for alias, name in aliases if name == collection.name),
        "judgments": None if judgments is None else judgment_set(judgments),
    }
    return await off_loop(0, lambda: orjson.dumps({"azimuth_export": header}, default=list) + b"\n")


async def _exported(
    service: Service, collection: Collection, where: Filter | None, with_vectors: bool
) -> AsyncIterator[list[bytes]]:
    include: list[schemas.Part] = ["text", "metadata", *(["vectors"] if with_vectors else [])]  # type: ignore[list-item]
    after, more = None, True
    while more:
        page, more = await _page(service, collection, after, MAX_PAGE, where, with_vectors)
        for some in portions(page, lambda one: 1 if one.image else 0, IMAGES_AT_ONCE):
            answers = await _answers(service, collection, some, include)
            shown = [one.id for one in some if one.image]
            images = await service.documents.images(collection.id, shown) if shown else {}

            def lines(answers: Sequence[Any] = answers, images: Mapping[DocumentId, Image] = images) -> list[bytes]:
                written = [orjson.dumps(schemas.exported(one, images.get(one["id"]))) + b"\n" for one in answers]
                return [b"".join(some) for some in portions(written, len, SENT_AT_ONCE)]

            yield await off_loop(0, lines)
        after = page[-1].id if page else None
    await service.collections.get(collection.id)  # of one that was deleted meanwhile it would seem to be all


async def _page(
    service: Service,
    collection: Collection,
    after: DocumentId | None,
    limit: int,
    where: Filter | None,
    with_vectors: bool,
) -> tuple[Sequence[StoredDocument], bool]:
    """The next documents, `limit` of them or fewer where they are large; and whether there are more."""
    rows: list[StoredDocument] = []
    characters, (most, enough) = 0, PAGE_BOUNDS[with_vectors]
    while len(rows) <= limit and characters < enough:
        wanted = min(most, limit + 1 - len(rows))
        part = await service.documents.page(collection.id, rows[-1].id if rows else after, wanted, where)
        rows += part
        characters += sum(len(one.text) for one in part)
        most *= 4
        if len(part) < wanted:
            return rows[:limit], len(rows) > limit
    return rows[: min(limit, len(rows) - 1)], True


async def _fetched(
    service: Service, name: CollectionPath, ids: Sequence[DocumentId], include: Sequence[schemas.Part]
) -> Response:
    found = await service.collections.by_name(name)
    ids = list(dict.fromkeys(ids))
    there = await service.documents.get(found.id, ids)
    documents = await _answers(service, found, [there[one] for one in ids if one in there], include)
    return await large_answer({"documents": documents, "missing": [one for one in ids if one not in there]})


async def _answers(
    service: Service, collection: Collection, documents: Sequence[StoredDocument], include: Sequence[schemas.Part]
) -> list[schemas.DocumentAnswer]:
    """With the vectors of the active version, as far as they are of what the documents are now."""
    if "vectors" not in include or not documents:
        return [schemas.document_answer(one, include) for one in documents]
    version = await service.versions.get(collection.id, collection.active_version)
    chunks = await service.vectors.chunks(version, [one.id for one in documents])
    read = {one.id: one for one in documents}
    if newer := {one.document_id for one, _ in chunks if one.content_revision > read[one.document_id].content_revision}:
        read |= await service.documents.get(collection.id, list(newer))  # they were written between the two look-ups
    size = 10 * len(chunks) * version.dimensions
    return await off_loop(size, schemas.answers_with_vectors, read.values(), include, chunks, version.spec.external)


def filter_from_url(text: str | None, collection: Collection) -> Filter | None:
    try:
        value = {} if text is None else parse_json(text.encode())
    except ValueError as error:
        raise Invalid.at("filter", f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Invalid.at("filter", "expected an object")
    return parse_filter(value, collection.settings.field_types)
