"""Queries that clients mark as answered by the collection or not."""

from typing import Annotated

from fastapi import Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.cursors import decode_cursor, split_page
from service.api.dependencies import CollectionDep, ServiceDep
from service.api.problems import error_responses
from service.api.routing import collection_router, require_confirmation
from service.api.schemas.base import CollectionPath, ConfirmedQuery, DocumentIdField, PageQuery, QueryText, RequestBody
from service.core.access import Access
from service.core.errors import FieldError, Invalid, NotFound
from service.core.filters import And
from service.core.periodic import utc_now
from service.core.versions import Mark, mark_id

router = collection_router("/feedback", "feedback")


class FeedbackBody(RequestBody):
    query: QueryText
    answered: bool
    documents: Annotated[list[DocumentIdField], Field(max_length=100, description="Those that helped.")] | None = None


class FeedbackPage(TypedDict):
    feedback: list[Mark]
    """In the order of their ids."""
    next_cursor: str | None


@router.post("", summary="Mark a query as answered or not")
async def put(service: ServiceDep, request: Request, collection: CollectionPath, body: FeedbackBody) -> Mark:
    """The newest mark of a query counts."""
    access: Access = request.state.access
    found, documents = await service.collections.by_name(collection), body.documents or []
    visible = await service.documents.filter_ids(found.id, documents, And(()))
    if missing := [(at, id_) for at, id_ in enumerate(documents) if id_ not in visible]:
        errors = [FieldError(f"documents.{at}", f"there is no document {id_!r}") for at, id_ in missing]
        raise Invalid(f"{len(missing)} of the documents do not exist", errors)
    mark = Mark(
        id=mark_id(access.tenant, body.query),
        query=body.query,
        answered=body.answered,
        documents=tuple(dict.fromkeys(documents)),
        actor=access.actor,
        tenant=access.tenant,
        at=utc_now(),
    )
    await service.test_sets.put_mark(found.id, mark)
    return mark


@router.get("", summary="The marked queries of a collection")
async def list_marks(
    service: ServiceDep, request: Request, collection: CollectionPath, query: Annotated[PageQuery, Query()]
) -> FeedbackPage:
    """A key with a filter sees those of keys with the same filter."""
    listing = f"{collection}/feedback"
    found, after = await service.collections.by_name(collection), decode_cursor(listing, query.cursor)
    rows = await service.test_sets.marks(found.id, request.state.access.tenant or None, after or "", query.limit + 1)
    marks, next_cursor = split_page(listing, rows, query.limit, lambda mark: mark.id)
    return {"feedback": list(marks), "next_cursor": next_cursor}


class FeedbackQuery(ConfirmedQuery):
    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="Delete this one alone.")] | None = None


@router.delete("", summary="Delete one mark or all", status_code=204, responses=error_responses(428))
async def delete(
    service: ServiceDep, request: Request, collection: CollectionDep, query: Annotated[FeedbackQuery, Query()]
) -> Response:
    """Without `id` all that the key sees; then `confirm` names the collection."""
    if query.id is None:
        require_confirmation(collection.name, query.confirm, f"the feedback of the collection {collection.name}")
    if not await service.test_sets.delete_marks(collection.id, request.state.access.tenant or None, query.id):
        raise NotFound(f"collection {collection.name} has no such feedback")
    return Response(status_code=204)
