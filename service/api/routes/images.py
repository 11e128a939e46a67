"""The images of documents: sent on their own, and read."""

from base64 import b64encode
from typing import Annotated

from fastapi import Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from service.api import problems
from service.api.bodies import read_body
from service.api.dependencies import ServiceDep
from service.api.routing import UploadRoute, collection_router
from service.api.schemas.base import CollectionPath, DocumentIdPath, QueryParameters
from service.core.concurrency import off_loop
from service.core.documents import Accepted
from service.core.errors import DocumentNotFound

router = collection_router("/images", "documents", route_class=UploadRoute)
_FILE = {"image/*": {"schema": {"type": "string", "format": "binary"}}}


class ImageQuery(QueryParameters):
    preview: Annotated[bool, Field(description="As models read it: WebP of at most 512 pixels a side.")] = False


@router.get(
    "/{id:id}",
    summary="The image of a document",
    response_class=Response,
    responses={200: {"description": "The file as it was sent, or its preview.", "content": _FILE}},
)
async def get(
    service: ServiceDep, collection: CollectionPath, id: DocumentIdPath, query: Annotated[ImageQuery, Query()]
) -> Response:
    found = await service.collections.by_name(collection)
    image = (await service.documents.images(found.id, [id])).get(id)
    if image is None:
        raise DocumentNotFound("There is no such document, or it has no image.")
    content, kind = (image.preview, "image/webp") if query.preview else (image.content, image.type)
    return Response(content, media_type=kind)


@router.put(
    "/{id:id}",
    summary="Set the image of a document",
    responses=problems.error_responses(413, 429),
    openapi_extra={"requestBody": {"required": True, "content": _FILE}},
)
async def put(service: ServiceDep, request: Request, collection: CollectionPath, id: DocumentIdPath) -> Accepted:
    """The body is the file. The rest of the document stays; `image: null` in a PATCH takes the image away."""
    found = await service.collections.by_name(collection)
    content = await read_body(request, service.ingest.images.max_bytes)
    source = await off_loop(len(content), lambda: f"data:;base64,{b64encode(content).decode()}")
    return await service.ingest.patch(found, id, {"image": source})
