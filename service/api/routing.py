"""Routes that read JSON bodies strictly, write answers as JSON, and document how they can fail."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial, wraps
from typing import Any, TypeVar, cast

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.api.bodies import JSON, JsonResponse, media_type, read_json
from service.api.disconnect import run_until_disconnect
from service.api.permissions import authorize
from service.api.problems import error_responses, invalid_from_pydantic
from service.api.web_security import FORM_TYPES, SAFE_METHODS
from service.core.errors import Invalid

T = TypeVar("T")


class IdConvertor(PathConvertor):
    """Any text. Starlette's own `path` stops before a line break, and would take "a\n" for "a"."""

    regex = "(?s:.*)"


register_url_convertor("id", IdConvertor())


class JsonRoute(APIRoute):
    """A handler returns its answer, whose shape is its return annotation, or a Response with status and headers."""

    changes_nothing = False
    """Whether a POST only reads. The work of what only reads ends as soon as the client disconnects."""

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Any]], **options: Any) -> None:
        super().__init__(path, _rendered(endpoint), **options)
        of_body = () if set(self.methods or ()) <= SAFE_METHODS else (415,) if self.body_field is None else (413, 415)
        self.responses = error_responses(*of_body, 422) | self.responses

    def takes_form(self, request: Request) -> bool:
        return False

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = _field_names(self.dependant.query_params)
        listed = ", ".join(sorted(known)) or "none"
        body: TypeAdapter[Any] | None = None
        if self.body_field is not None:
            body = TypeAdapter(cast(Any, self.body_field.field_info.annotation))
        in_body = _field_names([] if self.body_field is None else [self.body_field])

        async def read_and_handle(request: Request) -> Response:
            await authorize(request)  # the app does it for every route, but after the body was read
            if unknown := [name for name in request.query_params if name not in known]:
                hint = "it is a field of the body" if unknown[0] in in_body else f"this route takes {listed}"
                raise Invalid.at(unknown[0], f"unknown query parameter; {hint}")
            if (
                request.method not in SAFE_METHODS
                and media_type(request) in FORM_TYPES
                and not self.takes_form(request)
            ):
                raise HTTPException(415, f"this route takes {JSON}, not {media_type(request)}")
            if body is not None:
                max_bytes = request.app.state.service.limits.body_bytes
                request = _ParsedRequest(request, await read_json(request, max_bytes, partial(validated, body)))
            if self.changes_nothing or "GET" in (self.methods or ()):
                return await run_until_disconnect(request, handle(request))
            return await handle(request)

        return read_and_handle


class QueryRoute(JsonRoute):
    """A route that changes nothing, whatever its method is."""

    changes_nothing = True


class UploadRoute(JsonRoute):
    """A route that takes bodies of any type, forms among them."""

    def takes_form(self, request: Request) -> bool:
        """Not from a browser that does not tell where the form comes from; the names of all browsers begin so."""
        headers = request.headers
        return (
            "origin" in headers
            or "sec-fetch-site" in headers
            or "mozilla/" not in headers.get("user-agent", "").lower()
        )


class OtherApiRoute(QueryRoute):
    """A route of another API. Some of its clients send JSON without saying so (litellm to Voyage)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_as_json(request: Request) -> Response:
            if not media_type(request):
                headers = [*request.scope["headers"], (b"content-type", JSON.encode())]
                request = Request({**request.scope, "headers": headers}, request.receive)
            return await handle(request)

        return handle_as_json


def validated(adapter: TypeAdapter[T], content: Any) -> T:
    """The content of a body as what the route takes. Invalid names what is wrong with it."""
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        raise invalid_from_pydantic(error.errors(include_url=False)) from error


def other_api_router(*statuses: int) -> APIRouter:
    """A router for routes of another API. `statuses`: as for `collection_router`."""
    responses = error_responses(429, 503, *statuses)
    return APIRouter(tags=["other APIs"], route_class=OtherApiRoute, responses=responses)


def collection_router(path: str, tag: str, *statuses: int, route_class: type[JsonRoute] = JsonRoute) -> APIRouter:
    """A router for `path` below a collection. `statuses`: errors of all its routes beside the usual ones."""
    return APIRouter(
        prefix=f"/v1/collections/{{collection}}{path}",
        tags=[tag],
        route_class=route_class,
        responses=error_responses(404, 422, 503, *statuses),
    )


def require_confirmation(name: object, confirm: str, loss: str) -> None:
    """428 unless the request says the name of what it deletes twice. For what nobody could bring back.

    A client or proxy resolves `..`, so a URL that was to delete one document may arrive as that of its collection.
    """
    if confirm != str(name):
        raise HTTPException(428, f"this deletes {loss} for good; if you mean it, add ?confirm={name} to the URL")


def _rendered(endpoint: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Response]]:
    """FastAPI passes a Response on as it is; anything else it would validate and convert first."""

    @wraps(endpoint)
    async def render(**arguments: Any) -> Response:
        answer = await endpoint(**arguments)
        return answer if isinstance(answer, Response) else JsonResponse(answer)

    return render


def _field_names(fields: Iterable[Any]) -> set[str]:
    """Of parameters; of one that is a model, the names of its fields."""
    return {name for one in fields for name in getattr(one.field_info.annotation, "model_fields", (one.alias,))}


class _ParsedRequest(Request):
    """A request whose body was read, parsed and validated already; FastAPI, which asks for both, takes it as it is."""

    def __init__(self, request: Request, body: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._parsed = body

    async def body(self) -> bytes:
        return b"" if self._parsed is None else b"parsed"

    async def json(self) -> Any:
        return self._parsed
