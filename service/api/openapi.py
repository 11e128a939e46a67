"""The OpenAPI document: what FastAPI derives from the handlers, what it cannot know, and the page that shows it."""

import sys
from dataclasses import is_dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from service.api import problems
from service.api.middleware import OPEN_PATHS
from service.api.routes.console import console_file
from service.api.schemas.documents import DocumentsBody
from service.api.schemas.versions import Refusal

DESCRIPTION = """\
Vector search that cannot go wrong silently: cosine retrieval over pgvector blended with BM25 and reranking, where
every answer says which embedder version answered, how it ran, and which stages failed.

Errors are RFC 9457 problem documents (`application/problem+json`) of one shape, `Problem`. Every response carries
`X-Request-ID`. Unknown fields are errors, and nothing is coerced.
"""

TAGS = {
    "collections": "Named sets of documents, their settings, aliases and copies.",
    "documents": "Write, read, count, export and delete.",
    "search": "Searches of every kind, and counts of values.",
    "versions": "Embedder versions, their indexes, promotion and roll back.",
    "jobs": "What goes on for longer than a request.",
    "keys": "Who may use the service.",
    "judgments": "A collection's own test set.",
    "feedback": "Queries that users marked as answered or not.",
    "truth": "How good the answers are.",
    "recall": "What the index misses.",
    "geometry": "Whether vectors make sense.",
    "analysis": "Duplicates, clusters and classes of documents.",
    "audit": "Who changed what, and on which evidence.",
    "models": "Embeddings and reranking.",
    "other APIs": "The routes of other services, for their clients.",
    "operations": "Whether the service lives and is ready, and its metrics.",
}
KEPT = frozenset({"CollectionBody", "ChunkingBody", "FusionBody", "RerankingBody"})
"""Bodies of settings: what is left out of them keeps its value, so they have no defaults."""
COMMON_VERBS = frozenset({"get", "put", "delete", "change", "patch", "write", "retry", "register", "rebuild"})
"""Names of handlers that say nothing without their resource."""
_ASSETS = "/console/swagger"
_SECURITY_SCHEME = "ApiKey"


def describe(app: FastAPI) -> dict[str, Any]:
    """The document at `/openapi.json`."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        servers=[{"url": "/"}],
        license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for shape in (problems.Problem, Refusal, DocumentsBody):  # no handler's signature has these
        schema = TypeAdapter[Any](shape).json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        schemas.update(schema.pop("$defs", {}) | {shape.__name__: schema})
    for name, body in schemas.items():
        if name.endswith("Body"):
            body["properties"] = {
                field: schema if field in body.get("required", ()) else _optional(schema, kept=name in KEPT)
                for field, schema in body["properties"].items()
            }
    modules = [module for name, module in sys.modules.items() if name.startswith("service.core.")]
    values = {name for module in modules for name, kind in vars(module).items() if is_dataclass(kind)}
    for name in schemas.keys() & values:  # answers have all of their fields, also those with a default
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
            operation.get("parameters", []).sort(key=partial(_place_in, path))
            for status in ("400", "421"):  # before any route: see `http_protocol` and `web_security`
                operation["responses"].setdefault(status, common[status])
            if path not in OPEN_PATHS or method == "post":
                operation["responses"] |= {"401": common["401"], "403": common["403"]} | operation["responses"]
                operation["security"] = [{_SECURITY_SCHEME: []}, {}]
            else:
                operation["security"] = []
    return document


def _place_in(path: str, parameter: dict[str, Any]) -> int:
    """Generated clients take parameters in the order of the document; FastAPI puts last what a dependency reads."""
    at = path.find(f"{{{parameter['name']}}}")
    return len(path) if at < 0 else at


def _optional(schema: dict[str, Any], *, kept: bool) -> dict[str, Any]:
    """An optional field of a body, in which null stands for the default (`RequestBody`).

    Generated clients send the defaults that they know, and what is sent is no longer left out: a setting that was to be
    kept is reset, and a mode that was to fit the query contradicts it. So defaults are told in words.
    """
    default = schema.pop("default", None)
    if default is not None and default != [] and default != {} and not kept:
        told = f"Default: `{orjson.dumps(default).decode()}`."
        schema["description"] = f"{schema['description']} {told}" if "description" in schema else told
    about = {key: schema.pop(key) for key in ("title", "description", "examples") if key in schema}
    if not schema or {"type": "null"} in schema.get("anyOf", ()):
        return about | schema
    return about | {"anyOf": [schema, {"type": "null"}]}


def operation_id(route: APIRoute) -> str:
    """The name of the handler; before that of a verb the resource that it is about, where several have the verb."""
    name, resource = route.name, route.endpoint.__module__.rpartition(".")[2]
    if name in COMMON_VERBS:
        return f"{name}_{resource}"
    first = route.path.split("/")[1]
    return f"{name}_{first}" if name in ("cohere_embed", "rerank") and first in ("v1", "v2") else name


def install(app: FastAPI) -> None:
    """Serve the page with assets of our own: FastAPI's loads them from a CDN and has a script within the page."""
    app.mount(_ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")))

    @app.get("/docs", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await console_file(request, "reference.html")
