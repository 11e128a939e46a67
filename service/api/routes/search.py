"""Search: one query, several at once, or documents similar to one document."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import Body, Header, Query
from orjson import Fragment
from starlette.requests import Request
from starlette.responses import Response

from service.api.bodies import JsonResponse, large_answer, written
from service.api.dependencies import CollectionDep, Service, ServiceDep
from service.api.routes.document_reads import filter_from_url
from service.api.routing import QueryRoute, collection_router
from service.api.schemas.base import CollectionPath, DocumentIdPath, parse_filter
from service.api.schemas.result_options import (
    FacetsAnswer,
    FacetsBody,
    SuggestAnswer,
    SuggestBody,
    SuggestQuery,
    facets_answer,
)
from service.api.schemas.result_options import facets as requested_facets
from service.api.schemas.search_request import BatchBody, RevisionText, SearchBody, SimilarBody
from service.api.schemas.search_response import BatchAnswer, SearchAnswer, search_answer
from service.core.concurrency import gather_limited, off_loop
from service.core.errors import DocumentNotFound, FieldError, Invalid
from service.core.search import SearchRequest, SearchResult
from service.core.timings import Timings
from service.search.encode_query import SharedQueryEncoding

BATCH_CONCURRENCY = max(2, (os.cpu_count() or 1) // 4)
"""Searches of one batch that run together: to others a batch is no more than so many clients that search."""
BATCH_HITS = 1_000
"""Most hits that they have together, unless one has more."""

REPLICA_HEADER = "X-Azimuth-Replica-Lag"
"""Seconds, at most, by which the replica that was read is behind the database. Without it the database was read."""
MinRevision = Annotated[RevisionText, Header(alias="X-Azimuth-Min-Revision", description="As `min_revision`.")]

router = collection_router("", "search", 409, 429, route_class=QueryRoute)


@router.post("/search", summary="Search a collection", response_model=SearchAnswer)
async def search(
    service: ServiceDep, request: Request, collection: CollectionPath, body: SearchBody, min_revision: MinRevision = "0"
) -> Response:
    """Every answer says which version answered, how the dense leg ran, and which stages failed and why."""
    search_request = at_revision(with_budget(service, body.request()), min_revision)
    result = await service.search.run(collection, search_request)
    if not search_request.browses:
        service.shadow.add(collection, replace(search_request, facets=()))
    return _response(request, result, search_request)


@router.post("/similar/{id:id}", summary="Documents similar to a document", response_model=SearchAnswer)
async def similar(
    service: ServiceDep,
    request: Request,
    collection: CollectionPath,
    id: DocumentIdPath,
    body: Annotated[SimilarBody, Body(default_factory=SimilarBody)],
    min_revision: MinRevision = "0",
) -> Response:
    """A search that is `like` this one document, which is left out of the answer. The body may be left out."""
    search_request = at_revision(with_budget(service, body.request(id)), min_revision)
    try:
        result = await service.search.run(collection, search_request)
    except Invalid as error:
        if any(one.field.startswith("filter") for one in error.errors):
            raise
        found = await service.collections.by_name(collection)
        if id not in await service.documents.get(found.id, [id]):
            raise DocumentNotFound from error
        raise Invalid.at("id", "; ".join(one.message for one in error.errors)) from error
    return _response(request, result, search_request)


@router.post("/facets", summary="Count the values of fields")
async def facets(service: ServiceDep, collection: CollectionDep, body: FacetsBody) -> FacetsAnswer:
    """In all documents that pass the filter. Fields that are declared are counted in memory."""
    where = parse_filter(body.filter, collection.settings.field_types)
    return {"facets": facets_answer(await service.documents.facets(collection, requested_facets(body.facets), where))}


@router.get("/suggest", summary="Complete what is being typed")
async def suggest(
    service: ServiceDep, collection: CollectionDep, query: Annotated[SuggestQuery, Query()]
) -> SuggestAnswer:
    """By the words and titles of the documents that pass the filter."""
    where = filter_from_url(query.filter, collection)
    return {"suggestions": await service.search.suggest(collection, query.q, query.k, where)}


@router.post("/suggest", summary="Complete what is being typed")
async def suggest_by_body(service: ServiceDep, collection: CollectionDep, body: SuggestBody) -> SuggestAnswer:
    """As by GET, for filters that are too long for a URL."""
    where = parse_filter(body.filter, collection.settings.field_types)
    return {"suggestions": await service.search.suggest(collection, body.query, body.k, where)}


@router.post("/search/batch", summary="Run several searches", response_model=BatchAnswer)
async def batch(
    service: ServiceDep, request: Request, collection: CollectionPath, body: BatchBody, min_revision: MinRevision = "0"
) -> Response:
    """All or none: where one search is refused, the error names it by its place (`searches.3.filter`).

    All texts that the embedder has to read are encoded as one batch. A batch is not what clients usually send, so its
    searches are not in the sample that a new version is tried on.
    """
    started = time.perf_counter()

    def read(at: int, search: SearchBody) -> SearchRequest:
        with _errors_placed(at):
            return at_revision(with_budget(service, search.request()), min_revision)

    requests = await off_loop(0, lambda: [read(at, search) for at, search in enumerate(body.searches)])
    shared = SharedQueryEncoding(requests)

    async def run(at: int, search_request: SearchRequest) -> tuple[Timings, Fragment]:
        with _errors_placed(at):
            result = await service.search.run(collection, search_request, shared)
        return result.timings, await off_loop(0, lambda: Fragment(written(search_answer(result, search_request))))

    # Some at a time. The first that fails ends the others, and its error is raised.
    results = await gather_limited([partial(run, at, one) for at, one in enumerate(requests)], _concurrency(requests))
    request.state.searches = tuple(timings for timings, _ in results)
    took_ms = round((time.perf_counter() - started) * 1000, 3)
    return await large_answer({"results": [answer for _, answer in results], "took_ms": took_ms})


def _concurrency(requests: Sequence[SearchRequest]) -> int:
    """Fewer of those with many hits, whose turns on the event loop would add up."""
    return max(1, min(BATCH_CONCURRENCY, BATCH_HITS // max(request.k for request in requests)))


def with_budget(service: Service, request: SearchRequest) -> SearchRequest:
    """A client that sets no budget gets that of the process."""
    return request if request.budget_ms is not None else replace(request, budget_ms=service.limits.budget_ms)


def at_revision(request: SearchRequest, revision: str) -> SearchRequest:
    """The later of what body and header ask for."""
    asked = int(revision)
    return request if asked <= request.min_revision else replace(request, min_revision=asked)


@contextmanager
def _errors_placed(at: int) -> Iterator[None]:
    """The fields of an Invalid are named from the batch, in which this search stands at `at`."""
    try:
        yield
    except Invalid as error:
        place = f"searches.{at}"
        errors = [FieldError(f"{place}.{one.field}" if one.field else place, one.message) for one in error.errors]
        detail = f"{place}.{error.detail}" if len(errors) == 1 else f"{place}: {error.detail}"
        raise Invalid(detail, errors) from error


def _response(request: Request, result: SearchResult, search_request: SearchRequest) -> Response:
    answer = search_answer(result, search_request)
    request.state.timings = answer["timings_ms"]
    request.state.searches = (result.timings,)
    stages = [result.timings.header()] if result.timings.seconds else []
    total = f"total;dur={result.timings.elapsed * 1000:.3f}"
    headers = {"Server-Timing": ", ".join([*stages, total])}
    if result.replica_lag_seconds is not None:
        headers[REPLICA_HEADER] = f"{result.replica_lag_seconds:.3f}"
    return JsonResponse(answer, headers=headers)
