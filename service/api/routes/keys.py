"""API keys for administrators, as `azimuth keys` makes and changes them."""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path
from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import JsonResponse
from service.api.dependencies import ActorDep, Service, ServiceDep
from service.api.problems import error_responses
from service.api.routing import JsonRoute
from service.api.schemas.base import FilterField, RequestBody, select_fields
from service.core.access import EVERY_COLLECTION, KEY_NAME, ApiKey, KeyRole, new_key, new_secret, parse_duration
from service.core.errors import AzimuthError, Conflict
from service.core.periodic import utc_now

FIRST_KEY = (
    "From now on every request needs a key, and this is the only one: keep the secret. Where it is lost, "
    "`azimuth keys create`, on the machine of the database, makes another."
)
router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=JsonRoute, responses=error_responses(503))
KeyId = Annotated[str, Path(pattern=f"^{KEY_NAME}$", description="The name of the key.")]


class KeyBody(RequestBody):
    name: Annotated[str | None, Field(description="For logs and audit trails; null: one made up.")] = None
    role: KeyRole = "read"
    collections: Annotated[
        list[str], Field(max_length=1_000, description="Names, in which `*` stands for any characters.")
    ] = Field(list(EVERY_COLLECTION))
    filter: FilterField | None = None
    rate: Annotated[str | None, Field(description="Most requests.", examples=["50/s"])] = None
    expires: Annotated[str | None, Field(description="After how long; null: never.", examples=["90d"])] = None


class RotationBody(RequestBody):
    overlap: Annotated[str, Field(description="How long the former secret goes on working.")] = "1h"


class StoredKey(TypedDict):
    name: str
    role: KeyRole
    collections: list[str]
    filter: dict[str, Any] | None
    rate: str | None
    created_at: datetime
    expires_at: datetime | None
    """In the past: it has expired, was revoked or rotated."""
    last_used_at: datetime | None
    requests: int


class KeyAnswer(StoredKey):
    id: str
    """Its name, by which it is rotated and revoked."""
    active: bool


class SecretAnswer(KeyAnswer):
    secret: str
    """Shown this once."""
    notice: str | None
    """What the new key changes for everybody."""


class KeysAnswer(TypedDict):
    required: bool
    """Whether requests need a key: as soon as there was one."""
    keys: list[KeyAnswer]


@router.get("", summary="List the keys")
async def list_keys(service: ServiceDep) -> KeysAnswer:
    """Of a key that was rotated also the former secrets. None of them is shown, nor are the keys of the settings."""
    keys = [_answer(key) for key in await service.api_keys.all()]
    return {"required": service.keys.required, "keys": keys}


@router.post(
    "", summary="Create a key", status_code=201, response_model=SecretAnswer, responses=error_responses(409, 422)
)
async def create_key(
    service: ServiceDep, actor: ActorDep, body: Annotated[KeyBody, Body(default_factory=KeyBody)]
) -> Response:
    """The answer shows its secret, this once. The first key must be one that can make others."""
    key, secret = new_key(utc_now(), **body.model_dump())
    first = not service.keys.required
    if first and (not key.administers or key.expires_at is not None):
        raise Conflict(
            "from the first key on every request needs one, and this one could not manage keys, or not for long: first "
            'make one with "role": "admin" for all collections, without filter and end'
        )
    await service.api_keys.create(key, actor)
    await _take_effect(service)
    return JsonResponse({**_answer(key), "secret": secret, "notice": FIRST_KEY if first else None}, 201)


@router.post("/{id}/rotate", summary="Give a key another secret", responses=error_responses(404))
async def rotate_key(
    service: ServiceDep, actor: ActorDep, id: KeyId, body: Annotated[RotationBody, Body(default_factory=RotationBody)]
) -> SecretAnswer:
    """The answer shows it, this once. If the former one leaked, use an `overlap` of `0`."""
    overlap, (secret, digest) = parse_duration(body.overlap, "overlap"), new_secret()
    await service.api_keys.end(id, utc_now(), actor, successor=digest, overlap=overlap)
    renewed = next(key for key in await service.api_keys.all() if key.digest == digest)
    await _take_effect(service)
    return {**_answer(renewed), "secret": secret, "notice": None}


@router.delete("/{id}", summary="Revoke a key", status_code=204, responses=error_responses(404, 409))
async def revoke_key(service: ServiceDep, actor: ActorDep, id: KeyId) -> Response:
    """It ends with all its secrets. 409 for the last one that can manage keys."""
    now = utc_now()
    managing = {key.name for key in await service.api_keys.all() if key.living(now) and key.administers}
    if managing == {id} and not service.keys.configured:
        raise Conflict(
            f"{id} is the last key that may manage keys: make another first, or use `azimuth keys revoke` on the "
            "machine of the database"
        )
    await service.api_keys.end(id, now, actor)
    await _take_effect(service)
    return Response(status_code=204)


def _answer(key: ApiKey) -> KeyAnswer:
    return {"id": key.name, **select_fields(StoredKey, key), "active": key.living(utc_now())}


async def _take_effect(service: Service) -> None:
    """At once in this process; others follow, as this one does where the database does not answer now."""
    with suppress(AzimuthError):
        await service.keys.refresh()
