"""Embedder versions: state and evidence, registration, promotion, roll back, retirement, pause."""

from contextlib import suppress
from typing import Annotated

from fastapi import Body, Query
from starlette.requests import Request
from starlette.responses import Response

from service.api.bodies import JsonResponse
from service.api.dependencies import ActorDep, CollectionDep, Service, ServiceDep
from service.api.problems import error_responses, service_error_response
from service.api.routing import collection_router, require_confirmation
from service.api.schemas import versions as schemas
from service.api.schemas.base import VersionPath
from service.core.collections import Collection
from service.core.errors import PromotionRefused, VersionNotFound
from service.core.periodic import utc_now
from service.core.versions import EmbedderVersion, VersionState

router = collection_router("/versions", "versions")
CONFLICT = error_responses(409)


@router.get("", summary="List the embedder versions")
async def list_versions(service: ServiceDep, collection: CollectionDep) -> schemas.VersionsAnswer:
    """All that ever existed: numbers are not used again."""
    return {
        "active_version": collection.active_version,
        "previous_version": collection.previous_version,
        "versions": [
            await _answer(service, collection, version) for version in await service.versions.of(collection.id)
        ],
    }


@router.get("/{number}", summary="One embedder version: state, progress and evidence")
async def get(service: ServiceDep, collection: CollectionDep, number: VersionPath) -> schemas.VersionAnswer:
    return await _answer(service, collection, await service.versions.get(collection.id, number))


@router.post(
    "",
    summary="Register a new embedder version",
    status_code=202,
    response_model=schemas.VersionAnswer,
    response_description="It is being filled; `Location` has its progress.",
    responses=CONFLICT,
)
async def register(
    service: ServiceDep,
    actor: ActorDep,
    collection: CollectionDep,
    body: Annotated[schemas.VersionBody, Body(default_factory=schemas.VersionBody)],
) -> Response:
    """Workers fill it while the active version goes on answering; from now on all writes go to both.

    409 where a version of the same embedder, chunking and index exists already: `errors` names it.
    """
    active = await service.versions.get(collection.id, collection.active_version)
    version = await service.state_machine.register(
        collection,
        embedder=None if body.embedder is None else body.embedder.spec(),
        chunking=body.chunking_settings(active.chunking),
        index=body.index_settings(active.index),
        actor=actor,
        now=utc_now(),
        note=body.note,
    )
    location = f"/v1/collections/{collection.name}/versions/{version.number}"
    return JsonResponse(await _answer(service, collection, version), 202, headers={"Location": location})


@router.post(
    "/{number}/promote",
    summary="Make this version the active one",
    response_model=schemas.VersionAnswer,
    responses=error_responses(409, schema=schemas.Refusal.__name__),
)
async def promote(
    service: ServiceDep,
    request: Request,
    actor: ActorDep,
    collection: CollectionDep,
    number: VersionPath,
    body: Annotated[schemas.PromotionBody, Body(default_factory=schemas.PromotionBody)],
) -> Response:
    """Where the evidence speaks against it: 409, with what failed in `errors` and all of it in `checks`.

    `force` promotes it all the same. Promoting the active version changes nothing.
    """
    try:
        collection = await service.state_machine.promote(
            collection, number, force=body.force, actor=actor, now=utc_now, note=body.note
        )
    except PromotionRefused as error:
        evidence = (await service.versions.get(collection.id, number)).evidence
        return service_error_response(request.scope, error, checks=() if evidence is None else evidence.checks)
    service.search.forget()
    return JsonResponse(await _answer(service, collection, await service.versions.get(collection.id, number)))


@router.post("/rollback", summary="Make the previous version active again", responses=CONFLICT)
async def roll_back(
    service: ServiceDep,
    actor: ActorDep,
    collection: CollectionDep,
    body: Annotated[schemas.RollBackBody, Body(default_factory=schemas.RollBackBody)],
) -> schemas.VersionAnswer:
    """It stayed complete, so nothing is lost and there is no delay. Answers the version that is active now.

    A second roll back reverts the first one; a client that may have to repeat a request names the version in `from`.
    """
    collection = await service.state_machine.roll_back(
        collection, leaving=body.leaving, actor=actor, now=utc_now(), note=body.note
    )
    service.search.forget()
    return await _answer(service, collection, await service.versions.get(collection.id, collection.active_version))


@router.delete("/{number}", summary="Retire a version", responses=error_responses(409, 428))
async def retire(
    service: ServiceDep,
    actor: ActorDep,
    collection: CollectionDep,
    number: VersionPath,
    query: Annotated[schemas.RetirementQuery, Query()],
) -> schemas.VersionAnswer:
    """Also one that is being filled. Its vectors are dropped at once and for good; its entry stays.

    Vectors that no model here can make again (`external`) are dropped only where `confirm` repeats the number.
    """
    if (await service.versions.get(collection.id, number)).spec.external:
        require_confirmation(number, query.confirm, f"the vectors of version {number}, which only clients have,")
    await service.state_machine.retire(collection, number, actor=actor, now=utc_now(), note=query.note)
    service.search.forget()
    collection = await service.collections.get(collection.id)  # it may have been the previous version
    return await _answer(service, collection, await service.versions.get(collection.id, number))


@router.post("/{number}/pause", summary="Pause a backfill", responses=CONFLICT)
async def pause(
    service: ServiceDep, actor: ActorDep, collection: CollectionDep, number: VersionPath
) -> schemas.VersionAnswer:
    """Live writes still go to the version."""
    version = await service.state_machine.pause(collection, number, actor=actor, now=utc_now())
    return await _answer(service, collection, version)


@router.post("/{number}/resume", summary="Resume a backfill, or retry a version that failed", responses=CONFLICT)
async def resume(
    service: ServiceDep, actor: ActorDep, collection: CollectionDep, number: VersionPath
) -> schemas.VersionAnswer:
    """What the version has already is not made anew."""
    version = await service.state_machine.resume(collection, number, actor=actor, now=utc_now())
    return await _answer(service, collection, version)


async def _answer(service: Service, collection: Collection, version: EmbedderVersion) -> schemas.VersionAnswer:
    """With the state of its table and of the queue; a version without a table has neither."""
    if version.state is not VersionState.RETIRED:
        with suppress(VersionNotFound):  # retired, or deleted with its collection, since it was read
            status = await service.versions.status(version)
            progress = await service.backfills.progress(version, utc_now())
            return schemas.version_answer(collection, version, status, progress)
        version = await service.versions.get(collection.id, version.number)
    return schemas.version_answer(collection, version, schemas.DROPPED_SPACE, schemas.NO_PROGRESS)
