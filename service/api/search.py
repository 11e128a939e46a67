"""The query's door: one search, or several at once."""

import asyncio
import time

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service import query
from service.api import answers, hits, questions, schemas
from service.api.bodies import JsonRoute
from service.api.dependencies import Here, Service
from service.api.failures import documented
from service.domain import CollectionName
from service.errors import FieldError, Invalid
from service.query import Answer
from service.timings import Timings

BATCH_AT_ONCE = 8
"""Searches of one batch that run together: enough to share the embedder's batches, too few to crowd others out."""

router = APIRouter(prefix="/v1/collections/{collection}/search", tags=["search"], route_class=JsonRoute)


@router.post(
    "",
    summary="Search a collection",
    response_model=hits.SearchAnswer,
    responses=documented(400, 401, 404, 409, 413, 415, 422, 429, 503),
)
async def search(service: Here, request: Request, collection: schemas.Name, body: questions.SearchBody) -> Response:
    """Every answer says which version answered, how the dense leg ran, and what could not do its part and why."""
    name, wanted = CollectionName(collection), body.request()
    answer = await service.search.run(name, wanted)
    service.shadow.offer(name, wanted)
    shown = hits.search(answer, wanted, explain=body.explain)
    request.state.timings = shown["timings_ms"]
    return answers.Json(shown, headers={"Server-Timing": _server_timing(answer.timings)})


@router.post(
    "/batch",
    summary="Run several searches",
    response_model=hits.BatchAnswer,
    responses=documented(400, 401, 404, 409, 413, 415, 422, 429, 503),
)
async def batch(service: Here, collection: schemas.Name, body: questions.BatchBody) -> Response:
    """All or none: where one search is refused, the error names it by its place (`searches.3.filter`).

    Not what clients usually ask one by one, and so no part of the sample that a new version is tried on.
    """
    started = time.perf_counter()
    wanted = [_placed(at, one) for at, one in enumerate(body.searches)]
    found = await _together(service, CollectionName(collection), wanted)
    shown = [
        hits.search(answer, one, explain=search.explain)
        for answer, one, search in zip(found, wanted, body.searches, strict=True)
    ]
    return answers.Json({"results": shown, "took_ms": round((time.perf_counter() - started) * 1000, 3)})


def _placed(at: int, body: questions.SearchBody) -> query.Request:
    try:
        return body.request()
    except Invalid as error:
        raise _at(at, error) from error


def _at(at: int, error: Invalid) -> Invalid:
    """The error of one search, its fields named from the batch."""
    place = f"searches.{at}"
    errors = [FieldError(f"{place}.{one.field}" if one.field else place, one.message) for one in error.errors]
    return Invalid(f"{place}.{error.detail}" if len(errors) == 1 else f"{place}: {error.detail}", errors)


async def _together(service: Service, name: CollectionName, wanted: list[query.Request]) -> list[Answer]:
    """Some at a time. The first that fails ends the others, and is what is raised."""
    free = asyncio.Semaphore(BATCH_AT_ONCE)

    async def one(at: int, request: query.Request) -> Answer:
        async with free:
            try:
                return await service.search.run(name, request)
            except Invalid as error:
                raise _at(at, error) from error

    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one(at, request)) for at, request in enumerate(wanted)]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in running]


def _server_timing(timings: Timings) -> str:
    total = f"total;dur={timings.elapsed * 1000:.3f}"
    return f"{timings.header()}, {total}" if timings.seconds else total
