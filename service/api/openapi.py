"""The OpenAPI document: what FastAPI derives from the handlers, and what it cannot know; and the page that shows it."""

from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from service.api import problems
from service.api.middleware import OPEN_PATHS
from service.api.schemas import requests, versions

DESCRIPTION = """\
Vector search that cannot go wrong silently: cosine retrieval over pgvector blended with BM25 and reranking, where
every answer says which embedder version answered, how it ran, and what could not do its part.

Errors are RFC 9457 problem documents (`application/problem+json`) of one shape, `Problem`. Every response carries
`X-Request-ID`. Unknown fields are errors, and nothing is coerced.
"""

PAGE = "/docs"
ASSETS = "/console/swagger"
_KEY = "ApiKey"


def describe(app: FastAPI) -> dict[str, Any]:
    """The document at `/openapi.json`."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = document.setdefault("components", {})
    for shape in (problems.Problem, versions.Refusal, requests.DocumentsBody):
        schema = TypeAdapter[Any](shape).json_schema(ref_template="#/components/schemas/{model}")
        _add(components, schema, shape.__name__)
    components["securitySchemes"] = {
        _KEY: {"type": "http", "scheme": "bearer", "description": "Needed where the service is run with API keys."}
    }
    malformed = problems.documented(400)[400]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].setdefault("400", malformed)  # before any route: see `protocol`
            if path not in OPEN_PATHS:
                operation["security"] = [{_KEY: []}, {}]
    return document


def install(app: FastAPI) -> None:
    """Serve the page with assets of our own: FastAPI's default loads them from a CDN and is blank without internet."""
    app.mount(ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")))

    @app.get(PAGE, include_in_schema=False)
    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=f"{app.title} API",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon.png",
        )


def _add(components: dict[str, Any], schema: dict[str, Any], name: str) -> None:
    """A schema that no handler's signature shows, with those that it refers to."""
    parts = schema.pop("$defs", {})
    components.setdefault("schemas", {}).update(parts | {name: schema})
