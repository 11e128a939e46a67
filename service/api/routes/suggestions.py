"""Suggestions as you type."""

from typing import Annotated

from fastapi import Query
from pydantic import Field
from typing_extensions import TypedDict

from service.api.dependencies import ServiceDep
from service.api.routes.document_reads import filter_from_url
from service.api.routing import QueryRoute, collection_router
from service.api.schemas.base import CollectionPath, FilterField, QueryParameters, QueryText, RequestBody, parse_filter
from service.api.schemas.documents import FilterInUrl
from service.core.search import Suggestion

K = Annotated[int, Field(ge=1, le=50, description="Most suggestions.")]

router = collection_router("/suggest", "search", route_class=QueryRoute)


class SuggestQuery(QueryParameters):
    q: Annotated[QueryText, Field(description="What was typed so far.", examples=["cancel a ta"])]
    k: K = 8
    filter: FilterInUrl | None = None


class SuggestBody(RequestBody):
    query: Annotated[QueryText, Field(description="What was typed so far.", examples=["cancel a ta"])]
    k: K = 8
    filter: FilterField | None = None


class SuggestAnswer(TypedDict):
    suggestions: tuple[Suggestion, ...]


@router.get("", summary="Complete what is being typed")
async def suggest(
    service: ServiceDep, collection: CollectionPath, query: Annotated[SuggestQuery, Query()]
) -> SuggestAnswer:
    """By the words and titles of the documents that pass the filter."""
    found = await service.collections.by_name(collection)
    where = filter_from_url(query.filter, found)
    return {"suggestions": await service.search.suggest(found, query.q, query.k, where)}


@router.post("", summary="Complete what is being typed")
async def suggest_by_body(service: ServiceDep, collection: CollectionPath, body: SuggestBody) -> SuggestAnswer:
    """As by GET, for filters that are too long for a URL."""
    found = await service.collections.by_name(collection)
    where = parse_filter(body.filter, found.settings.field_types)
    return {"suggestions": await service.search.suggest(found, body.query, body.k, where)}
