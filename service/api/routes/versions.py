"""Embedder versions: how far they are, what speaks for them, and what becomes of them."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Body, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from service.api import problems
from service.api.bodies import JsonRoute
from service.api.dependencies import Actor, Here, Service
from service.api.problems import documented
from service.api.schemas import answers, requests, versions
from service.core.collections import Collection
from service.core.errors import PromotionRefused, VersionNotFound
from service.core.ids import CollectionName, VersionNumber
from service.core.versions import EmbedderVersion, VersionState

router = APIRouter(prefix="/v1/collections/{collection}/versions", tags=["versions"], route_class=JsonRoute)

Number = Annotated[requests.Number, Path()]


def now() -> datetime:
    return datetime.now(UTC)


# ---------------------------------------------------------------- look


@router.get(
    "",
    summary="List the embedder versions",
    response_model=versions.VersionsAnswer,
    responses=documented(401, 404, 422, 503),
)
async def listed(service: Here, collection: requests.Name) -> Response:
    """All that there ever were: numbers are not used again."""
    found = await service.collections.by_name(CollectionName(collection))
    return answers.Json(
        {
            "active_version": found.active_version,
            "previous_version": found.previous_version,
            "versions": [await _described(service, found, one) for one in await service.versions.of(found.id)],
        }
    )


@router.get(
    "/{number}",
    summary="One embedder version: state, progress and evidence",
    response_model=versions.VersionAnswer,
    responses=documented(401, 404, 422, 503),
)
async def get(service: Here, collection: requests.Name, number: Number) -> Response:
    found = await service.collections.by_name(CollectionName(collection))
    return answers.Json(await _shown(service, found, VersionNumber(number)))


# ---------------------------------------------------------------- register, promote, roll back, retire


@router.post(
    "",
    summary="Register a new embedder version",
    status_code=202,
    response_model=versions.VersionAnswer,
    response_description="It is being filled; `Location` says where to look how far it is.",
    responses=documented(400, 401, 404, 409, 413, 415, 422, 503),
)
async def register(
    service: Here,
    actor: Actor,
    collection: requests.Name,
    body: Annotated[versions.VersionBody | None, Body()] = None,
) -> Response:
    """Workers fill it while the active version goes on answering; from now on all writes go to both.

    409 where a version of the same embedder, chunking and index is there already: `errors` names it.
    """
    wanted = body or versions.VersionBody()
    found = await service.collections.by_name(CollectionName(collection))
    active = await service.versions.get(found.id, found.active_version)
    made = await service.state_machine.register(
        found,
        embedder=None if wanted.embedder is None else wanted.embedder.spec(),
        chunking=wanted.chunking_over(active.chunking),
        index=wanted.index_over(active.index),
        actor=actor,
        now=now(),
        note=wanted.note,
    )
    where = f"/v1/collections/{found.name}/versions/{made.number}"
    return answers.Json(await _described(service, found, made), 202, headers={"Location": where})


@router.post(
    "/{number}/promote",
    summary="Let this version answer from now on",
    response_model=versions.VersionAnswer,
    responses={
        **documented(400, 401, 404, 413, 415, 422, 503),
        **documented(409, shape=versions.Refusal.__name__),
    },
)
async def promote(
    service: Here,
    request: Request,
    actor: Actor,
    collection: requests.Name,
    number: Number,
    body: Annotated[versions.PromotionBody | None, Body()] = None,
) -> Response:
    """Where the evidence speaks against it: 409, with what failed in `errors` and all of it in `checks`.

    `force` promotes it all the same. Promoting the active version changes nothing.
    """
    wanted = body or versions.PromotionBody()
    found = await service.collections.by_name(CollectionName(collection))
    try:
        found = await service.state_machine.promote(
            found, VersionNumber(number), force=wanted.force, actor=actor, now=now, note=wanted.note
        )
    except PromotionRefused as error:
        refused = await service.versions.get(found.id, VersionNumber(number))
        evidence = () if refused.evidence is None else refused.evidence.checks
        return problems.of_service(request.scope, error, checks=versions.checks(evidence))
    service.search.forget(found.name)
    return answers.Json(await _shown(service, found, VersionNumber(number)))


@router.post(
    "/rollback",
    summary="Let the version answer that answered before",
    response_model=versions.VersionAnswer,
    responses=documented(400, 401, 404, 409, 413, 415, 422, 503),
)
async def roll_back(
    service: Here,
    actor: Actor,
    collection: requests.Name,
    body: Annotated[versions.RollBackBody | None, Body()] = None,
) -> Response:
    """It stayed complete, so nothing is lost and nothing is waited for. Answers the version that is active now.

    A second roll back takes the first one back; whoever may have to repeat a request names the version in `from`.
    """
    wanted = body or versions.RollBackBody()
    found = await service.collections.by_name(CollectionName(collection))
    leaving = None if wanted.leaving is None else VersionNumber(wanted.leaving)
    found = await service.state_machine.roll_back(found, leaving=leaving, actor=actor, now=now(), note=wanted.note)
    service.search.forget(found.name)
    return answers.Json(await _shown(service, found, found.active_version))


@router.delete(
    "/{number}",
    summary="Retire a version",
    response_model=versions.VersionAnswer,
    responses=documented(401, 404, 409, 422, 503),
)
async def retire(
    service: Here,
    actor: Actor,
    collection: requests.Name,
    number: Number,
    query: Annotated[versions.NoteQuery, Query()],
) -> Response:
    """Also one that is under way. Its vectors are dropped at once, and there is no way back; its entry stays."""
    found = await service.collections.by_name(CollectionName(collection))
    await service.state_machine.retire(found, VersionNumber(number), actor=actor, now=now(), note=query.note)
    service.search.forget(found.name)
    found = await service.collections.by_name(found.name)  # it may have been the one to roll back to
    return answers.Json(await _shown(service, found, VersionNumber(number)))


# ---------------------------------------------------------------- pause and resume


@router.post(
    "/{number}/pause",
    summary="Let a backfill rest",
    response_model=versions.VersionAnswer,
    responses=documented(401, 404, 409, 422, 503),
)
async def pause(service: Here, actor: Actor, collection: requests.Name, number: Number) -> Response:
    """Live writes still go to the version."""
    found = await service.collections.by_name(CollectionName(collection))
    version = await service.state_machine.pause(found, VersionNumber(number), actor=actor, now=now())
    return answers.Json(await _described(service, found, version))


@router.post(
    "/{number}/resume",
    summary="Let a backfill go on, or take up a version that failed",
    response_model=versions.VersionAnswer,
    responses=documented(401, 404, 409, 422, 503),
)
async def resume(service: Here, actor: Actor, collection: requests.Name, number: Number) -> Response:
    """What the version has already is not made anew."""
    found = await service.collections.by_name(CollectionName(collection))
    version = await service.state_machine.resume(found, VersionNumber(number), actor=actor, now=now())
    return answers.Json(await _described(service, found, version))


# ---------------------------------------------------------------- answers


async def _shown(service: Service, collection: Collection, number: VersionNumber) -> versions.VersionAnswer:
    return await _described(service, collection, await service.versions.get(collection.id, number))


async def _described(service: Service, collection: Collection, version: EmbedderVersion) -> versions.VersionAnswer:
    """With what its table and the queue say; a version without a table has neither."""
    if version.state is not VersionState.RETIRED:
        with suppress(VersionNotFound):  # retired, or deleted with its collection, since it was read
            status = await service.versions.status(version)
            progress = await service.backfills.progress(version, now())
            return versions.version(collection, version, status, progress)
        version = await service.versions.get(collection.id, version.number)
    return versions.version(collection, version, versions.GONE, versions.NO_PROGRESS)
