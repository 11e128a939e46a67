"""The HTTP application: routes, middleware, and the document that describes them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from service import __version__
from service.api import openapi as reference
from service.api import problems
from service.api.admission import AdmissionMiddleware, limited_routes
from service.api.compatible import cohere, dify, ollama, tei
from service.api.content_coding import CompressionMiddleware
from service.api.dependencies import Service
from service.api.key_ring import RATE_HEADERS, KeyRing
from service.api.middleware import (
    REVISION_HEADER,
    ApiKeyMiddleware,
    HeadMiddleware,
    RequestLogMiddleware,
    UnhandledErrorMiddleware,
)
from service.api.permissions import authorize
from service.api.routes import (
    aliases,
    analysis,
    audit,
    collections,
    console,
    document_reads,
    documents,
    drift,
    embeddings,
    evaluate,
    feedback,
    geometry,
    health,
    images,
    indexes,
    jobs,
    judgments,
    keys,
    mcp,
    models,
    recall,
    rerank,
    search,
    upload,
    versions,
)
from service.api.web_security import WebSecurityMiddleware

RESOURCES = (
    search,  # the first one: routes are tried in this order, and no other is asked as often
    collections,
    aliases,
    documents,
    upload,
    document_reads,
    versions,
    indexes,
    jobs,
    keys,
    judgments,
    feedback,
    evaluate,
    drift,
    recall,
    geometry,
    images,
    analysis,
    audit,
    embeddings,
    models,
    rerank,
    cohere,
    tei,
    ollama,
    dify,
    mcp,
    health,
    console,
)


class Api(FastAPI):
    """A FastAPI application whose OpenAPI document also has what FastAPI cannot know."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = reference.describe(self)
        return self.openapi_schema


EXPOSED_HEADERS = ("ETag", "Location", "Retry-After", "Server-Timing", "X-Request-ID", REVISION_HEADER)


def create_app(service: Service, around: Sequence[Middleware] = ()) -> FastAPI:
    """The HTTP API of one service. `around`: middleware outside of all other, outermost first."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.run():
            yield

    limited = limited_routes(route for resource in RESOURCES for route in resource.router.routes)
    app = Api(
        title="Azimuth",
        version=__version__,
        description=reference.DESCRIPTION,
        lifespan=lifespan,
        dependencies=[Depends(authorize)],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        openapi_url="/openapi.json" if service.docs else None,
        generate_unique_id_function=reference.operation_id,
        middleware=[
            *around,
            *_protections(service.allowed_hosts, service.cors_origins, service.keys),
            Middleware(AdmissionMiddleware, routes=limited, most=service.limits.concurrent),
            Middleware(HeadMiddleware),
            # Level 1 is several times as fast as 9, and hardly larger. What is smaller fits one packet anyway.
            Middleware(CompressionMiddleware, minimum_size=1_500, compresslevel=1),
        ],
    )
    app.state.service = service
    app.state.refresh_metrics = service.refresh_metrics
    app.state.leaving = False
    problems.install(app)
    if service.docs:
        reference.install(app)
    for resource in RESOURCES:
        app.include_router(resource.router)
    if service.metrics:
        app.include_router(health.metrics_router)
    return app


def create_worker_app(*, keys: KeyRing, allowed_hosts: Sequence[str], with_metrics: bool) -> FastAPI:
    """What a worker answers: whether it lives, and its metrics, behind the same checks as the API."""

    async def nothing_to_refresh() -> None: ...

    protections = [*_protections(allowed_hosts, (), keys), Middleware(HeadMiddleware)]
    app = FastAPI(openapi_url=None, dependencies=[Depends(authorize)], middleware=protections)
    app.state.refresh_metrics = nothing_to_refresh
    problems.install(app)
    app.add_api_route("/livez", health.livez)
    if with_metrics:
        app.include_router(health.metrics_router)
    return app


def _protections(allowed_hosts: Sequence[str], origins: Sequence[str], keys: KeyRing) -> list[Middleware]:
    cors = Middleware(  # without cookies: keys are sent as headers
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["*"],
        expose_headers=[*EXPOSED_HEADERS, *RATE_HEADERS],
    )
    return [
        Middleware(RequestLogMiddleware),
        Middleware(WebSecurityMiddleware, hosts=allowed_hosts, origins=origins),
        *([cors] if origins else []),  # before the keys: browsers ask without one
        Middleware(UnhandledErrorMiddleware),
        Middleware(ApiKeyMiddleware, keys=keys),
    ]
