"""Embedder versions: which there are, in which state, and how far they are."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from service.api import answers, schemas
from service.api.bodies import JsonRoute
from service.api.dependencies import Here, Service
from service.api.failures import documented
from service.domain import Collection, CollectionName, EmbedderVersion
from service.errors import VersionNotFound

router = APIRouter(prefix="/v1/collections/{collection}/versions", tags=["versions"], route_class=JsonRoute)


@router.get(
    "",
    summary="List the embedder versions",
    response_model=answers.VersionsAnswer,
    responses=documented(401, 404, 422, 503),
)
async def listed(service: Here, collection: schemas.Name) -> Response:
    found = await service.collections.by_name(CollectionName(collection))
    versions = await service.versions.of(found.id)
    return answers.Json(
        {"active_version": found.active_version, "versions": await _described(service, found, versions)}
    )


@router.get(
    "/{number}",
    summary="One embedder version",
    response_model=answers.VersionAnswer,
    responses=documented(401, 404, 422, 503),
)
async def get(service: Here, collection: schemas.Name, number: Annotated[schemas.Number, Path()]) -> Response:
    found = await service.collections.by_name(CollectionName(collection))
    versions = [version for version in await service.versions.of(found.id) if version.number == number]
    if not versions:
        raise VersionNotFound(f"collection {found.name} has no embedder version {number}")
    return answers.Json((await _described(service, found, versions))[0])


async def _described(
    service: Service, collection: Collection, versions: list[EmbedderVersion] | tuple[EmbedderVersion, ...]
) -> list[answers.VersionAnswer]:
    documents = (await service.collections.counts(collection)).documents
    queue = await service.queue.status(collection.id, datetime.now(UTC))
    return [answers.version(one, await service.versions.status(one), documents, queue) for one in versions]
