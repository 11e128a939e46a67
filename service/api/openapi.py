"""The OpenAPI document: what FastAPI derives from the handlers, what it cannot know, and the page that shows it."""

from dataclasses import is_dataclass
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from service.api import problems
from service.api.middleware import OPEN_PATHS
from service.api.routes.console import console_file
from service.api.schemas.documents import DocumentsBody
from service.api.schemas.versions import Refusal
from service.core import (
    boosts,
    collections,
    documents,
    errors,
    explanation,
    facets,
    jobs,
    recall,
    result_options,
    search,
    versions,
)

DESCRIPTION = """\
Vector search that cannot go wrong silently: cosine retrieval over pgvector blended with BM25 and reranking, where
every answer says which embedder version answered, how it ran, and which stages failed.

Errors are RFC 9457 problem documents (`application/problem+json`) of one shape, `Problem`. Every response carries
`X-Request-ID`. Unknown fields are errors, and nothing is coerced.
"""

_ASSETS = "/console/swagger"
_SECURITY_SCHEME = "ApiKey"
_DOMAIN_VALUES = {
    name
    for module in (
        boosts,
        collections,
        documents,
        errors,
        explanation,
        facets,
        jobs,
        recall,
        result_options,
        search,
        versions,
    )
    for name, kind in vars(module).items()
    if is_dataclass(kind)
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document at `/openapi.json`."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for shape in (problems.Problem, Refusal, DocumentsBody):  # no handler's signature has these
        schema = TypeAdapter[Any](shape).json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        schemas.update(schema.pop("$defs", {}) | {shape.__name__: schema})
    for body in (schema for name, schema in schemas.items() if name.endswith("Body")):
        for name in body["properties"].keys() - set(body.get("required", ())):  # null is the default: `RequestBody`
            field = body["properties"][name]
            if {"type": "null"} not in field.get("anyOf", ()):
                about = {key: field.pop(key) for key in ("title", "description", "default", "examples") if key in field}
                body["properties"][name] = about | {"anyOf": [field, {"type": "null"}]}
    for name in schemas.keys() & _DOMAIN_VALUES:  # answers have all of their fields, also those with a default
        schemas[name]["required"] = list(schemas[name]["properties"])
    components["securitySchemes"] = {
        _SECURITY_SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "Needed where the service runs with API keys.",
        }
    }
    common = {str(status): response for status, response in problems.error_responses(400, 401, 403, 421).items()}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status in ("400", "421"):  # before any route: see `http_protocol` and `web_security`
                operation["responses"].setdefault(status, common[status])
            if path not in OPEN_PATHS or method == "post":
                operation["responses"] |= {"401": common["401"], "403": common["403"]} | operation["responses"]
                operation["security"] = [{_SECURITY_SCHEME: []}, {}]
    return document


def install(app: FastAPI) -> None:
    """Serve the page with assets of our own: FastAPI's loads them from a CDN and has a script within the page."""
    app.mount(_ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")))

    @app.get("/docs", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await console_file(request, "reference.html")
