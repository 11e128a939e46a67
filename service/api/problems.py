"""The only place where an error becomes an HTTP answer: one shape for all of them, RFC 9457 problem documents.

What a client may read comes from the error itself; of what nobody foresaw it learns only the request id, under which
the log has the rest.
"""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope
from typing_extensions import TypedDict

from service.core.errors import (
    AzimuthError,
    Conflict,
    FieldError,
    Invalid,
    Misconfigured,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
)

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
UNPROCESSABLE = 422

STATUS: Mapping[type[AzimuthError], int] = {
    Invalid: UNPROCESSABLE,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    Misconfigured: HTTPStatus.SERVICE_UNAVAILABLE,
    AzimuthError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""An error answers with the status of its nearest ancestor here."""

MEANING = {
    400: "What was sent cannot be read: malformed HTTP or JSON, or invalid UTF-8.",
    401: "An API key is needed, or the one sent is not known.",
    404: "The resource does not exist.",
    409: "Conflict with the current state.",
    413: "The request is larger than a documented limit.",
    415: "The body is of another content type than this route takes.",
    422: "The request cannot be accepted as it stands; `errors` names the fields.",
    429: "Too many requests are waiting; retry after `Retry-After`.",
    503: "Something that is needed is not available now; retry after `Retry-After`.",
}

_PLAINER = {
    "extra_forbidden": "unknown field",
    "missing": "is required",
    "string_unicode": "is not Unicode text",
    "model_type": "expected an object",
    "model_attributes_type": "expected an object",
}


class Reason(TypedDict):
    field: str
    """The place in the request, with dots for nesting; empty where it is the whole."""
    message: str


class Problem(TypedDict):
    """What every error looks like (RFC 9457)."""

    type: str
    """Which kind of error, as a URN that stays the same; what a program should look at."""
    title: str
    status: int
    detail: str
    errors: list[Reason]
    request_id: str
    """Also in the header `X-Request-ID` and in the log."""


def documented(*statuses: int, shape: str = "Problem") -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these; `shape` names the schema (`reference`)."""
    schema = {"$ref": f"#/components/schemas/{shape}"}
    return {
        status: {"description": MEANING[status], "content": {MEDIA_TYPE: {"schema": schema}}} for status in statuses
    }


# ---------------------------------------------------------------- errors -> answers


def problem(
    scope: Scope,
    *,
    kind: str,
    title: str,
    status: int,
    detail: str,
    errors: Iterable[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """The one shape. `kind` becomes the URN in `type`; `members` are extensions of the one kind of problem."""
    body: Problem = {
        "type": f"urn:azimuth:error:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "errors": [{"field": error.field, "message": error.message} for error in errors],
        "request_id": scope.get("state", {}).get("request_id", ""),
    }
    return Response(orjson.dumps({**body, **members}), status, headers, media_type=MEDIA_TYPE)


def status_of(kind: type[AzimuthError]) -> int:
    return next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)


def of_service(scope: Scope, error: AzimuthError, **members: Any) -> Response:
    """An error of the stories or of their adapters; `members` as for `problem`."""
    status = status_of(type(error))
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return of_surprise(scope, error)
    retry_after = getattr(error, "retry_after", None)
    return problem(
        scope,
        kind=_kebab(type(error).__name__),
        title=(type(error).__doc__ or "").strip().splitlines()[0],
        status=status,
        detail=error.detail,
        errors=getattr(error, "errors", ()),
        headers=None if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))},
        **members,
    )


def of_http(scope: Scope, error: HTTPException) -> Response:
    """What the HTTP layer itself refuses: no such route, wrong method, unreadable body, missing key."""
    phrase = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail != phrase else f"{phrase}: {scope['method']} {scope['path']}"
    return problem(
        scope, kind=_kebab(phrase), title=phrase, status=error.status_code, detail=detail, headers=error.headers
    )


def of_validation(scope: Scope, failures: Sequence[Any]) -> Response:
    """What pydantic refuses. The values themselves are not repeated."""
    return of_service(scope, invalid(failures))


def of_surprise(scope: Scope, error: Exception) -> Response:
    """What nobody foresaw: told in full to the log, and to nobody else."""
    log.error("unhandled: %s", type(error).__name__, exc_info=error, extra={"request_id": scope["state"]["request_id"]})
    phrase = HTTPStatus.INTERNAL_SERVER_ERROR.phrase
    return problem(
        scope,
        kind=_kebab(phrase),
        title=phrase,
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        detail="Something went wrong in the service. Its log has more under the request id.",
    )


def install(app: FastAPI) -> None:
    """Everything that a handler raises comes through here; `middleware.Observed` catches what is left."""

    async def service(request: Request, error: Exception) -> Response:
        assert isinstance(error, AzimuthError)
        return of_service(request.scope, error)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return of_http(request.scope, error)

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return of_validation(request.scope, error.errors())

    app.add_exception_handler(AzimuthError, service)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)


def invalid(failures: Sequence[Any]) -> Invalid:
    """The errors of pydantic as one of ours."""
    errors = [_reason(failure) for failure in failures]
    if len(errors) == 1:
        return Invalid.at(errors[0].field, errors[0].message)
    return Invalid(f"{len(errors)} of the values cannot be accepted", errors)


def reasons(failures: Sequence[Any]) -> str:
    """Everything that is wrong with one value, in one line."""
    parts = (_reason(failure) for failure in failures)
    return "; ".join(f"{one.field}: {one.message}" if one.field else one.message for one in parts)


def _reason(failure: Mapping[str, Any]) -> FieldError:
    place = [str(part) for part in failure["loc"]]
    if place and place[0] in {"body", "query", "path", "header"}:
        place = place[1:]
    message = _PLAINER.get(failure["type"]) or failure["msg"].removeprefix("Value error, ")
    return FieldError(".".join(place), message)


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|\s+", "-", name).lower()
