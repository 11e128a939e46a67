"""Other names of collections, which are switched atomically."""

from collections.abc import Mapping

from fastapi import APIRouter
from starlette.responses import Response

from service.api.dependencies import ActorDep, Service, ServiceDep
from service.api.problems import error_responses
from service.api.routing import JsonRoute
from service.api.schemas.base import AliasPath
from service.api.schemas.collections import AliasAnswer, AliasBody, AliasesAnswer, AliasesBody
from service.core.errors import Invalid
from service.core.ids import CollectionName
from service.core.periodic import utc_now

router = APIRouter(
    prefix="/v1/aliases", tags=["collections"], route_class=JsonRoute, responses=error_responses(404, 409, 503)
)


@router.get("", summary="List the aliases")
async def list_aliases(service: ServiceDep) -> AliasesAnswer:
    found = await service.collections.aliases()
    return {"aliases": [{"alias": alias, "collection": name} for alias, name in sorted(found.items())]}


@router.put("/{alias}", summary="Let an alias lead to a collection")
async def put(service: ServiceDep, actor: ActorDep, alias: AliasPath, body: AliasBody) -> AliasAnswer:
    """It is created, or switched at once: each request goes to the one collection or to the other."""
    await _set(service, actor, {alias: body.collection})
    return {"alias": alias, "collection": (await service.collections.by_name(body.collection)).name}


@router.post("", summary="Change several aliases at once")
async def change(service: ServiceDep, actor: ActorDep, body: AliasesBody) -> AliasesAnswer:
    """All of them or none. `null` as the collection deletes an alias."""
    changes = {one.alias: one.collection for one in body.actions}
    if len(changes) < len(body.actions):
        raise Invalid.at("actions", "the same alias twice in one request")
    await _set(service, actor, changes)
    return await list_aliases(service)


@router.delete("/{alias}", summary="Delete an alias", status_code=204)
async def delete(service: ServiceDep, actor: ActorDep, alias: AliasPath) -> Response:
    """The collection stays."""
    await _set(service, actor, {alias: None})
    return Response(status_code=204)


async def _set(service: Service, actor: str, changes: Mapping[CollectionName, CollectionName | None]) -> None:
    names = {name for name in changes.values() if name is not None}
    ids = {name: (await service.collections.by_name(name)).id for name in names}
    targets = {alias: None if name is None else ids[name] for alias, name in changes.items()}
    await service.collections.set_aliases(targets, utc_now(), actor)
    service.search.forget()
