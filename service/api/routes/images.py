"""The images of documents: sent on their own, and read."""

from base64 import b64encode

from starlette.requests import Request
from starlette.responses import Response

from service.api.bodies import read_body
from service.api.dependencies import CollectionDep, ServiceDep
from service.api.problems import error_responses
from service.api.routing import UploadRoute, collection_router
from service.api.schemas.base import DocumentIdPath
from service.core.concurrency import off_loop
from service.core.documents import Accepted
from service.core.errors import DocumentNotFound

router = collection_router("/images", "documents", 429, route_class=UploadRoute)
_FILE = {"image/*": {"schema": {"type": "string", "format": "binary"}}}


@router.get("/{id:id}", summary="The image of a document", response_class=Response, responses={200: {"content": _FILE}})
async def get(service: ServiceDep, collection: CollectionDep, id: DocumentIdPath, preview: bool = False) -> Response:
    """The file as it was sent, or its preview: WebP of at most 512 pixels a side."""
    image = (await service.documents.images(collection.id, [id])).get(id)
    if image is None:
        raise DocumentNotFound("There is no such document, or it has no image.")
    content, kind = (image.preview, "image/webp") if preview else (image.content, image.type)
    return Response(content, media_type=kind)


_SENT = {"requestBody": {"required": True, "content": _FILE}}


@router.put("/{id:id}", summary="Set the image of a document", responses=error_responses(413), openapi_extra=_SENT)
async def put(service: ServiceDep, request: Request, collection: CollectionDep, id: DocumentIdPath) -> Accepted:
    """The body is the file. The rest of the document stays; `image: null` in a PATCH takes the image away."""
    content = await read_body(request, service.ingest.images.max_bytes)
    source = await off_loop(len(content), lambda: f"data:;base64,{b64encode(content).decode()}")
    return await service.ingest.patch(collection, id, {"image": source})
