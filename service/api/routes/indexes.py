"""The index of a version: its state, advice about it, and rebuilding it."""

from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import JsonResponse
from service.api.dependencies import ActorDep, CollectionDep, Service, ServiceDep
from service.api.problems import error_responses
from service.api.routing import collection_router
from service.api.schemas.base import VersionPath, select_fields
from service.core.collections import Collection
from service.core.errors import VersionNotFound
from service.core.ids import VersionNumber
from service.core.periodic import utc_now
from service.core.verdict import Verdict

router = collection_router("/versions/{number}", "versions")


class IndexStateAnswer(TypedDict):
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


class IndexHealthAnswer(TypedDict):
    version: int
    rows: int
    dead_rows: int
    """Deleted or updated, and not yet removed by a vacuum: they take places in every scan."""
    unindexed_rows: int
    """NULL or zero: no index can hold them, and the table refuses them."""
    index: IndexStateAnswer | None
    table_bytes: int
    cache_bytes: int
    """What the server believes to have for caching."""
    advice: list[AdviceAnswer]
    """Worst first."""


@router.get("/index", summary="State of the index of a version")
async def get(service: ServiceDep, collection: CollectionDep, number: VersionPath) -> IndexHealthAnswer:
    """404 also where the version is retired: its table is gone."""
    return await _answer(service, collection, number)


@router.post(
    "/reindex",
    summary="Rebuild the index of a version",
    status_code=202,
    response_model=IndexHealthAnswer,
    response_description="It is being built; searches use the present one until then. `Location` has its state.",
    responses=error_responses(409),
)
async def rebuild(service: ServiceDep, actor: ActorDep, collection: CollectionDep, number: VersionPath) -> Response:
    """409 where there is no index, or where it is being built. Afterwards it is calibrated again."""
    await service.recall_controller.reindex(collection, number, actor=actor, now=utc_now)
    location = f"/v1/collections/{collection.name}/versions/{number}/index"
    return JsonResponse(await _answer(service, collection, number), 202, headers={"Location": location})


async def _answer(service: Service, collection: Collection, number: VersionNumber) -> IndexHealthAnswer:
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
        "index": None if index is None else select_fields(IndexStateAnswer, index),
        "table_bytes": health.table_bytes,
        "cache_bytes": health.cache_bytes,
        "advice": [{"verdict": one.verdict, "says": one.finding, "do": one.action} for one in advice],
    }
