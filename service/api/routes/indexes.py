"""The index of a version: how it stands, what to do about it, and building it anew."""

from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.dependencies import Actor, Here, Service
from service.api.problems import documented
from service.api.routes.versions import Number
from service.api.schemas import answers, requests
from service.core.collections import Collection
from service.core.errors import VersionNotFound
from service.core.ids import CollectionName, VersionNumber
from service.core.verdict import Verdict

router = APIRouter(prefix="/v1/collections/{collection}/versions/{number}", tags=["versions"])


class StateAnswer(TypedDict):
    name: str
    valid: bool
    """Searches use it."""
    bytes: int
    building: bool


class AdviceAnswer(TypedDict):
    verdict: Verdict
    says: str
    do: str
    """Empty where there is nothing to do."""


class HealthAnswer(TypedDict):
    version: int
    rows: int
    dead_rows: int
    """Deleted or written anew, and not yet taken out by a vacuum: they take places in every scan."""
    unindexed_rows: int
    """NULL or zero: no index can hold them, and the table refuses them."""
    index: StateAnswer | None
    table_bytes: int
    cache_bytes: int
    """What the server believes to have for caching."""
    advice: list[AdviceAnswer]
    """Worst first."""


def now() -> datetime:
    return datetime.now(UTC)


@router.get(
    "/index",
    summary="How the index of a version stands",
    response_model=HealthAnswer,
    responses=documented(401, 404, 422, 503),
)
async def get(service: Here, collection: requests.Name, number: Number) -> Response:
    """404 also where the version is retired: its table is gone."""
    found = await service.collections.by_name(CollectionName(collection))
    return answers.Json(await _shown(service, found, VersionNumber(number)))


@router.post(
    "/reindex",
    summary="Build the index of a version anew",
    status_code=202,
    response_model=HealthAnswer,
    response_description="It is being built; searches use the present one until then. `Location` says where to look.",
    responses=documented(401, 404, 409, 422, 503),
)
async def rebuild(service: Here, actor: Actor, collection: requests.Name, number: Number) -> Response:
    """409 where there is no index, or where it is being built. Afterwards it is calibrated again."""
    found = await service.collections.by_name(CollectionName(collection))
    await service.recall_controller.reindex(found, VersionNumber(number), actor=actor, now=now)
    where = f"/v1/collections/{found.name}/versions/{number}/index"
    return answers.Json(await _shown(service, found, VersionNumber(number)), 202, headers={"Location": where})


async def _shown(service: Service, collection: Collection, number: VersionNumber) -> HealthAnswer:
    version = await service.versions.get(collection.id, number)
    if not version.written:
        raise VersionNotFound(f"version {number} is {version.state}: it has no index")
    health, advice = await service.recall_controller.health(collection, version)
    index = health.index
    return {
        "version": number,
        "rows": health.rows,
        "dead_rows": health.dead_rows,
        "unindexed_rows": health.unindexed_rows,
        "index": None
        if index is None
        else {"name": index.name, "valid": index.valid, "bytes": index.bytes, "building": index.building},
        "table_bytes": health.table_bytes,
        "cache_bytes": health.cache_bytes,
        "advice": [{"verdict": one.verdict, "says": one.finding, "do": one.action} for one in advice],
    }
