"""The query's door: one search, several at once, or what is similar to a document."""

import time
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Body
from starlette.requests import Request
from starlette.responses import Response

from service.api.bodies import JsonRoute
from service.api.dependencies import Here, Service
from service.api.disconnect import awaited
from service.api.problems import documented
from service.api.routes import documents
from service.api.schemas import answers, requests, search_request, search_response
from service.core import search as query
from service.core.concurrency import gather_limited
from service.core.errors import DocumentNotFound, FieldError, Invalid
from service.core.ids import CollectionName, DocumentId
from service.core.search import SearchResult
from service.core.timings import Timings
from service.search.encode_query import SharedQueryEncoding

BATCH_AT_ONCE = 8
"""Searches of one batch that run together: enough to keep the database busy, too few to crowd others out."""

router = APIRouter(prefix="/v1/collections/{collection}", tags=["search"], route_class=JsonRoute)


@router.post(
    "/search",
    summary="Search a collection",
    response_model=search_response.SearchAnswer,
    responses=documented(400, 401, 404, 409, 413, 415, 422, 429, 503),
)
async def search(
    service: Here, request: Request, collection: requests.Name, body: search_request.SearchBody
) -> Response:
    """Every answer says which version answered, how the dense leg ran, and what could not do its part and why."""
    name, wanted = CollectionName(collection), body.request()
    work = service.search.run(name, wanted)
    # A cross-encoder works for long: no longer than somebody waits for it.
    answer = await (awaited(request, work) if wanted.rerank else work)
    service.shadow.add(name, wanted)
    return _shown(request, answer, wanted, body.explain)


@router.post(
    "/similar/{id:id}",
    summary="What is similar to a document",
    response_model=search_response.SearchAnswer,
    responses=documented(400, 401, 404, 409, 413, 415, 422, 429, 503),
)
async def similar(
    service: Here,
    request: Request,
    collection: requests.Name,
    id: documents.Id,
    body: Annotated[search_request.SimilarBody | None, Body()] = None,
) -> Response:
    """A search that is `like` this one document, which is left out of the answer. The body may be left out."""
    body = body or search_request.SimilarBody()
    name, wanted = CollectionName(collection), body.request(id)
    try:
        answer = await service.search.run(name, wanted)
    except Invalid as error:
        found = await service.collections.by_name(name)
        if DocumentId(id) not in await service.documents.get(found.id, [DocumentId(id)]):
            raise DocumentNotFound from error
        raise Invalid.at("id", "; ".join(one.message for one in error.errors)) from error
    return _shown(request, answer, wanted, body.explain)


@router.post(
    "/search/batch",
    summary="Run several searches",
    response_model=search_response.BatchAnswer,
    responses=documented(400, 401, 404, 409, 413, 415, 422, 429, 503),
)
async def batch(service: Here, request: Request, collection: requests.Name, body: search_request.BatchBody) -> Response:
    """All or none: where one search is refused, the error names it by its place (`searches.3.filter`).

    What the embedder has to read of all of them is encoded as one batch. Not what clients usually ask one by one, and
    so no part of the sample that a new version is tried on.
    """
    started = time.perf_counter()
    wanted = [_placed(at, one) for at, one in enumerate(body.searches)]
    found = await _together(service, CollectionName(collection), wanted)
    request.state.searches = tuple(answer.timings for answer in found)
    shown = [
        search_response.search(answer, one, explain=search.explain)
        for answer, one, search in zip(found, wanted, body.searches, strict=True)
    ]
    return answers.Json({"results": shown, "took_ms": round((time.perf_counter() - started) * 1000, 3)})


def _placed(at: int, body: search_request.SearchBody) -> query.SearchRequest:
    try:
        return body.request()
    except Invalid as error:
        raise _at(at, error) from error


def _at(at: int, error: Invalid) -> Invalid:
    """The error of one search, its fields named from the batch."""
    place = f"searches.{at}"
    errors = [FieldError(f"{place}.{one.field}" if one.field else place, one.message) for one in error.errors]
    return Invalid(f"{place}.{error.detail}" if len(errors) == 1 else f"{place}: {error.detail}", errors)


async def _together(service: Service, name: CollectionName, wanted: list[query.SearchRequest]) -> list[SearchResult]:
    """Some at a time. The first that fails ends the others, and is what is raised."""
    shared = SharedQueryEncoding(wanted)

    async def one(at: int, request: query.SearchRequest) -> SearchResult:
        try:
            return await service.search.run(name, request, shared)
        except Invalid as error:
            raise _at(at, error) from error

    return await gather_limited([partial(one, at, request) for at, request in enumerate(wanted)], BATCH_AT_ONCE)


def _shown(request: Request, answer: SearchResult, wanted: query.SearchRequest, explain: bool) -> Response:
    shown = search_response.search(answer, wanted, explain=explain)
    request.state.timings = shown["timings_ms"]
    request.state.searches = (answer.timings,)
    return answers.Json(shown, headers={"Server-Timing": _server_timing(answer.timings)})


def _server_timing(timings: Timings) -> str:
    total = f"total;dur={timings.elapsed * 1000:.3f}"
    return f"{timings.header()}, {total}" if timings.seconds else total
