"""Named sets of documents and their settings."""

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from starlette.responses import Response

from service.api.bodies import JsonResponse
from service.api.dependencies import ActorDep, CollectionDep, Service, ServiceDep
from service.api.problems import error_responses
from service.api.routing import JsonRoute, require_confirmation
from service.api.schemas.base import CollectionPath, ConfirmedQuery, select_fields
from service.api.schemas.collections import (
    CollectionAnswer,
    CollectionBody,
    CollectionsAnswer,
    NameBody,
    VersionSummary,
    settings_as_sent,
)
from service.core.collections import Collection, CollectionSettings, IndexSettings
from service.core.errors import CollectionNotFound, Conflict, EmbedderChange, Invalid, NotFound
from service.core.ids import CollectionName
from service.core.periodic import utc_now
from service.core.versions import AuditEntry

PUT_ATTEMPTS = 20
"""Most attempts to change a collection that other clients create, change or delete at the same moment."""

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=JsonRoute)


@router.put(
    "/{collection}",
    summary="Create a collection, or change its settings",
    response_model=CollectionAnswer,
    response_description="Its settings were changed.",
    responses={201: {"model": CollectionAnswer, "description": "It was created."}, **error_responses(409, 503)},
)
async def put(
    service: ServiceDep,
    actor: ActorDep,
    collection: CollectionPath,
    body: Annotated[CollectionBody, Body(default_factory=CollectionBody)],
) -> Response:
    """What is left out keeps its value, or gets its default in a new collection.

    Embedder, chunking and index are set at creation; another one of them later is a new version (409 here).
    """
    if body.language not in service.languages:
        raise Invalid.at("language", f"is not supported; known are {', '.join(sorted(service.languages))}")
    changed, created = await _create_or_change(service, collection, body, actor)
    return JsonResponse(await _answer(service, changed), 201 if created else 200)


async def _create_or_change(
    service: Service, name: CollectionName, body: CollectionBody, actor: str
) -> tuple[Collection, bool]:
    """The collection, and whether it was created. Tries again where another client got in between."""
    for _ in range(PUT_ATTEMPTS):
        now = utc_now()
        try:
            present = await service.collections.by_name(name)
        except CollectionNotFound:
            settings = body.settings(CollectionSettings(), now)
            with suppress(Conflict):
                index = body.index.on(IndexSettings())
                return await service.collection_service.create(name, settings, now, actor=actor, index=index), True
            continue
        index = (await service.versions.get(present.id, present.active_version)).index
        if "index" in body.model_fields_set and body.index.on(index) != index:
            raise EmbedderChange("Vectors are stored as their version says; another index is a new version.")
        settings = body.settings(present.settings, now)
        try:
            changed = await service.collection_service.configure(present, settings, actor=actor, now=now)
        except EmbedderChange:
            raise
        except (CollectionNotFound, Conflict):
            continue
        service.search.forget()
        return changed, False
    raise Conflict("other clients keep changing this collection; try again")


@router.get("", summary="List the collections", responses=error_responses(503))
async def list_collections(service: ServiceDep) -> CollectionsAnswer:
    answers = []
    for collection in await service.collections.all():
        with suppress(NotFound):  # deleted while the others were counted
            answers.append(await _answer(service, collection))
    return {"collections": answers}


@router.get(
    "/{collection}", summary="Settings, counts and versions of a collection", responses=error_responses(404, 422, 503)
)
async def get(service: ServiceDep, collection: CollectionPath) -> CollectionAnswer:
    return await _answer(service, await service.collections.by_name(collection))


@router.delete(
    "/{collection}",
    summary="Delete a collection with everything in it",
    status_code=204,
    responses=error_responses(404, 422, 428, 503),
)
async def delete(service: ServiceDep, collection: CollectionDep, query: Annotated[ConfirmedQuery, Query()]) -> Response:
    """The URL must name the collection twice: `/v1/collections/papers?confirm=papers`."""
    require_confirmation(collection.name, query.confirm, f"the collection {collection.name} with all its documents")
    await service.collections.delete(collection.id)
    service.search.forget()
    return Response(status_code=204)


@router.post("/{collection}/rename", summary="Give a collection another name", responses=error_responses(404, 409, 503))
async def rename(service: ServiceDep, actor: ActorDep, collection: CollectionDep, body: NameBody) -> CollectionAnswer:
    """Its aliases follow it. Keys are for names: whoever has one for the new name reaches it from now on."""
    entry = AuditEntry(at=utc_now(), actor=actor, action="renamed")
    collection = await service.collections.rename(collection, body.name, entry)
    service.search.forget()
    return await _answer(service, collection)


@router.post(
    "/{collection}/copy",
    summary="Copy a collection",
    status_code=201,
    response_model=CollectionAnswer,
    responses=error_responses(404, 409, 503),
)
async def copy(service: ServiceDep, actor: ActorDep, collection: CollectionDep, body: NameBody) -> Response:
    """Documents, settings and the vectors of the active version, as at one moment. Nothing is encoded again."""
    active = await service.versions.get(collection.id, collection.active_version)
    copied = await service.collections.copy(collection, active, body.name, utc_now(), actor)
    service.lexicon.wake()
    return JsonResponse(await _answer(service, copied), 201)


async def _answer(service: Service, collection: Collection) -> CollectionAnswer:
    settings: Any = settings_as_sent(collection.settings)
    if (tuned := collection.settings.tuned) is not None:
        settings["tuned"]["outdated"] = tuned.version != collection.active_version
    fields = await service.collections.fields(collection.id)
    return {
        "name": collection.name,
        "settings": settings,
        "fields": [{"field": field.name, "state": field.state} for field in fields],
        "counts": await service.collections.counts(collection),
        "active_version": collection.active_version,
        "previous_version": collection.previous_version,
        "versions": [select_fields(VersionSummary, one) for one in await service.versions.of(collection.id)],
        "lexical_state": service.lexicon.state(collection),
        "lexical_lag_seconds": service.lexicon.lag_seconds(collection.id),
        "created_at": collection.created_at,
    }
