"""Named sets of documents and their settings."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import Response

from service.api.bodies import JsonRoute
from service.api.dependencies import Actor, Here, Service
from service.api.problems import documented
from service.api.schemas import answers, requests
from service.core.collections import Collection, CollectionSettings
from service.core.errors import CollectionNotFound, Conflict, EmbedderChange, Invalid, NotFound
from service.core.ids import CollectionName

PUT_TRIES = 20
"""Looks at a collection that others create, change or delete at the same moment; each of them got their way."""

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=JsonRoute)


@router.put(
    "/{collection}",
    summary="Create a collection, or change its settings",
    response_model=answers.CollectionAnswer,
    response_description="Its settings were changed.",
    responses={
        201: {"model": answers.CollectionAnswer, "description": "It was created."},
        **documented(400, 401, 409, 413, 415, 422, 503),
    },
)
async def put(
    service: Here,
    actor: Actor,
    collection: requests.Name,
    body: Annotated[requests.CollectionBody | None, Body()] = None,
) -> Response:
    """What is left out keeps its value, or gets its default in a new collection.

    The embedder and the chunking are set at creation; another embedder later is a new version (409 here).
    """
    name, wanted = CollectionName(collection), body or requests.CollectionBody()
    if wanted.language not in service.languages:
        raise Invalid.at("language", f"not supported; known are {', '.join(sorted(service.languages))}")
    present, created = await _put(service, name, wanted, actor)
    return answers.Json(await _described(service, present), 201 if created else 200)


async def _put(
    service: Service, name: CollectionName, wanted: requests.CollectionBody, actor: str
) -> tuple[Collection, bool]:
    """The collection, and whether it was created here. Looks again where others were at it meanwhile."""
    for _ in range(PUT_TRIES):
        now = datetime.now(UTC)
        try:
            present = await service.collections.by_name(name)
        except CollectionNotFound:
            with suppress(Conflict):
                return await service.collection_service.create(
                    name, wanted.over(CollectionSettings(), now), now, actor=actor
                ), True
            continue
        try:
            changed = await service.collection_service.configure(
                present, wanted.over(present.settings, now), actor=actor, now=now
            )
        except EmbedderChange:
            raise
        except (CollectionNotFound, Conflict):
            continue
        service.search.forget(name)
        return changed, False
    raise Conflict("Others change this collection all the time; try again.")


@router.get(
    "", summary="List the collections", response_model=answers.CollectionsAnswer, responses=documented(401, 503)
)
async def listed(service: Here) -> Response:
    found = []
    for collection in await service.collections.all():
        with suppress(NotFound):  # deleted while the others were counted
            found.append(await _described(service, collection))
    return answers.Json({"collections": found})


@router.get(
    "/{collection}",
    summary="Settings, counts and versions of a collection",
    response_model=answers.CollectionAnswer,
    responses=documented(401, 404, 422, 503),
)
async def get(service: Here, collection: requests.Name) -> Response:
    found = await service.collections.by_name(CollectionName(collection))
    return answers.Json(await _described(service, found))


@router.delete(
    "/{collection}",
    summary="Delete a collection with everything in it",
    status_code=204,
    response_model=None,
    responses=documented(401, 404, 422, 503),
)
async def delete(service: Here, collection: requests.Name) -> Response:
    found = await service.collections.by_name(CollectionName(collection))
    await service.collections.delete(found.id)
    service.search.forget(found.name)
    return Response(status_code=204)


async def _described(service: Service, collection: Collection) -> answers.CollectionAnswer:
    return answers.collection(
        collection,
        await service.collections.counts(collection),
        await service.collections.fields(collection.id),
        await service.versions.of(collection.id),
        service.lexicon.state(collection),
        service.lexicon.lag_seconds(collection.id),
    )
