"""Errors become HTTP responses here and nowhere else: RFC 9457 problem documents, all of one shape.

What a client reads comes from the error itself. Of an unexpected error it gets only the request id, under which the log
has the rest.
"""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NotRequired

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.types import Scope
from typing_extensions import TypedDict

from service.core.errors import (
    MAX_PLACES,
    AzimuthError,
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    Misconfigured,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
    in_words,
)

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

STATUS_CODES: Mapping[type[AzimuthError], int] = {
    Invalid: 422,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    Misconfigured: HTTPStatus.SERVICE_UNAVAILABLE,
    AzimuthError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""An error answers with the status of its nearest ancestor here."""

STATUS_DESCRIPTIONS = {
    400: "The request cannot be read: malformed HTTP or JSON, or invalid UTF-8.",
    401: "An API key is needed, or the one that was sent is unknown.",
    403: "The API key does not allow it, or the request comes from a page of another origin.",
    404: "The resource does not exist.",
    408: "The body did not arrive in time.",
    409: "Conflict with the current state.",
    413: "The request is larger than a documented limit.",
    415: "The body has another content type or coding than this route takes.",
    421: "The request was sent to a host name that is none of this service's.",
    422: "The request is invalid; `errors` names the fields.",
    428: "A deletion for good must be confirmed: `?confirm=` with the name of what is deleted.",
    429: "Too many requests are waiting; retry after `Retry-After`.",
    503: "Something that is needed is not available now; retry after `Retry-After`.",
}

MAX_NAME = 200
"""Most characters of a name in the place of an error, which a client may have made up."""
MORE_ERRORS = "more_errors"
"""The type of an error of pydantic that stands for `count` others: see `schemas.base`."""

_MESSAGES = {"extra_forbidden": "unknown field", "missing": "is required", "string_unicode": "is not Unicode text"}
_TYPE = re.compile(r"Input should be a valid (\w+).*", re.DOTALL)
_TYPES = {"integer": "an integer", "boolean": "true or false", "dictionary": "an object"}
_NOT_FOR_PEOPLE = re.compile(r"^(Value error,|Value|Input|String|List|Dictionary) | after validation")
_KINDS = {"NoneType": "null", "int": "an integer", "float": "a decimal number", "str": "a string", "list": "a list"}
_KINDS |= {"bool": "a boolean", "dict": "an object"}


_OF_TEI = frozenset({"/", "/tokenize", "/similarity", "/info", "/health"})


class Problem(TypedDict):
    """The shape of every error (RFC 9457)."""

    type: str
    """The kind of error, as a URN that stays the same; what a program should look at."""
    title: str
    status: int
    detail: str
    errors: list[FieldError]
    request_id: str
    """Also in the header `X-Request-ID` and in the log."""
    error: NotRequired[dict[str, str | None] | str]
    """On the routes of other APIs, as their clients look for it: OpenAI's object, or the text; so are the others."""
    message: NotRequired[str]
    error_type: NotRequired[str]
    error_code: NotRequired[int]
    error_msg: NotRequired[str]


def error_responses(*statuses: int, schema: str = "Problem") -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these; `schema` is a name in the OpenAPI document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {status: {"description": STATUS_DESCRIPTIONS[status], "content": content} for status in statuses}


def problem_response(
    scope: Scope,
    *,
    kind: str,
    title: str,
    status: int,
    detail: str,
    errors: Iterable[FieldError] = (),
    count: int | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """A problem document. `kind` becomes the URN in `type`; `members` are extensions of this kind of problem."""
    errors = list(errors)
    more = (len(errors) if count is None else count) - MAX_PLACES
    body: Problem = {
        "type": f"urn:azimuth:error:{kind}",
        "title": title,
        "status": status,
        "detail": detail if more <= 0 else f"{detail}; the first {MAX_PLACES} are named, {more} more are not",
        "errors": errors[:MAX_PLACES],
        "request_id": scope.get("state", {}).get("request_id", ""),
    }
    members |= _as_others_say(scope.get("path", ""), kind, status, detail, errors, count)
    return Response(orjson.dumps({**body, **members}), status, headers, media_type=MEDIA_TYPE)


def _as_others_say(
    path: str, kind: str, status: int, detail: str, errors: Sequence[FieldError], count: int | None
) -> dict[str, Any]:
    """The members that clients of the APIs whose routes these are look for, and print."""
    message = in_words(errors, count) or detail
    if path.startswith(("/v1/embeddings", "/v1/models")):
        types = {401: "authentication_error", 429: "rate_limit_error"}
        fault = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        field = errors[0].field if errors else None
        return {"error": {"message": message, "type": types.get(status, fault), "param": field, "code": kind}}
    if path == "/retrieval":
        codes = {401: 1001, 403: 1002, 404: 2001}
        return {"error_code": codes.get(status, status), "error_msg": message}
    if path.endswith(("/rerank", "/embed")) or path in _OF_TEI or path.startswith("/api/"):
        types = {429: "Overloaded", 500: "Backend", 503: "Unhealthy"}
        return {"message": message, "error": message, "error_type": types.get(status, "Validation")}
    return {}


def http_status(kind: type[AzimuthError]) -> int:
    return next(STATUS_CODES[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS_CODES)


def service_error_response(scope: Scope, error: AzimuthError, **members: Any) -> Response:
    """An error that the service itself raised; `members` as for `problem_response`."""
    status = http_status(type(error))
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return unexpected_error_response(scope, error)
    retry_after = getattr(error, "retry_after", None)
    return problem_response(
        scope,
        kind=_kebab_case(type(error).__name__),
        title=(type(error).__doc__ or "").strip().splitlines()[0],
        status=status,
        detail=error.detail,
        errors=error.errors,
        count=error.count,
        headers=None if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))},
        **members,
    )


def http_error_response(scope: Scope, error: HTTPException) -> Response:
    """An error of the HTTP layer: no such route, wrong method, unreadable body, missing key."""
    phrase = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail != phrase else f"{phrase}: {scope['method']} {scope['path']}"
    kind = _kebab_case(phrase)
    return problem_response(
        scope, kind=kind, title=phrase, status=error.status_code, detail=detail, headers=error.headers
    )


def unexpected_error_response(scope: Scope, error: Exception) -> Response:
    """An error that nobody foresaw: the log gets all of it, the client only that it happened."""
    log.error("unhandled: %s", type(error).__name__, exc_info=error, extra={"request_id": scope["state"]["request_id"]})
    phrase = HTTPStatus.INTERNAL_SERVER_ERROR.phrase
    return problem_response(
        scope,
        kind=_kebab_case(phrase),
        title=phrase,
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        detail="The service failed unexpectedly. Its log has more under the request id.",
    )


def install(app: FastAPI) -> None:
    """Handle what routes raise; `middleware.RequestLogMiddleware` catches what is left."""

    async def handle(request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            error = invalid_from_pydantic(error.errors(), within=1)
        if isinstance(error, HTTPException):
            if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
                error.headers = {"Allow": ", ".join(_allowed_methods(app, request.scope["path"]))}
                if request.method == "OPTIONS":
                    return Response(status_code=204, headers=error.headers)
            return http_error_response(request.scope, error)
        assert isinstance(error, AzimuthError)
        return service_error_response(request.scope, error)

    for kind in (AzimuthError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, handle)


def _allowed_methods(app: FastAPI, path: str) -> list[str]:
    """All methods of a path. FastAPI itself names those of the first route that has the path."""
    scope: Scope = {"type": "http", "path": path, "headers": []}
    routes = [route for route in app.routes if not isinstance(route, Mount)]  # a folder of files matches any method
    found = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ] or ["GET"]
    return [*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"]


def invalid_from_pydantic(failures: Sequence[Any], within: int = 0) -> Invalid:
    """The errors of pydantic as an error of ours. The values themselves are not repeated.

    `within`: parts of each place that only say that it is in the body or the URL.
    """
    errors, count = _field_errors(failures, within)
    if count == 1:
        return Invalid.at(errors[0].field, errors[0].message)
    return Invalid(f"{count} of the values are invalid", errors, count)


def join_messages(failures: Sequence[Any]) -> str:
    """The errors that pydantic found in one value, in one line."""
    return in_words(*_field_errors(failures))


def _field_errors(failures: Sequence[Any], within: int = 0) -> tuple[list[FieldError], int]:
    """The first of them, as many as an error names, and how many there are in all."""
    named = [one for one in failures if one["type"] != MORE_ERRORS]
    more = sum(one["ctx"]["count"] for one in failures if one["type"] == MORE_ERRORS)
    return [_field_error({**one, "loc": one["loc"][within:]}) for one in named[:MAX_PLACES]], len(named) + more


def _field_error(failure: Mapping[str, Any]) -> FieldError:
    """The place as the client wrote it, the rule, and what kind of value came."""
    place, value = ".".join(str(part)[:MAX_NAME] for part in failure["loc"]), failure["input"]
    message = _MESSAGES.get(failure["type"]) or _NOT_FOR_PEOPLE.sub("", failure["msg"])
    if wanted := _TYPE.match(failure["msg"]):
        message = f"expected {_TYPES.get(wanted[1], f'a {wanted[1]}')}"
    if failure["type"] == "literal_error" and not isinstance(value, str):
        message = message.replace("should be", "expected")
    if message.startswith("expected "):
        message += f", not {_KINDS.get(type(value).__name__, 'another value')}"
    if isinstance(value, str):
        message = message.replace(" item", " character")
    return FieldError(place, message if place or value is not None else "an object is required")


def _kebab_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|\s+", "-", name).lower()
