"""The HTTP application: routes, middleware, and the document that describes them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from service import __version__
from service.api import openapi as reference
from service.api import problems
from service.api.content_coding import CompressionMiddleware
from service.api.dependencies import Service
from service.api.middleware import ApiKeyMiddleware, HeadMiddleware, RequestLogMiddleware
from service.api.routes import (
    audit,
    collections,
    console,
    documents,
    drift,
    embeddings,
    evaluate,
    geometry,
    health,
    indexes,
    judgments,
    models,
    recall,
    rerank,
    search,
    versions,
)

RESOURCES = (
    collections,
    documents,
    search,
    versions,
    indexes,
    judgments,
    evaluate,
    drift,
    recall,
    geometry,
    audit,
    embeddings,
    models,
    rerank,
    health,
    console,
)


class Api(FastAPI):
    """A FastAPI application whose OpenAPI document also has what FastAPI cannot know."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = reference.describe(self)
        return self.openapi_schema


def create_app(service: Service, around: Sequence[Middleware] = ()) -> FastAPI:
    """The HTTP API of one service. `around`: middleware outside of all other, outermost first."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.run():
            yield

    cross_origin = Middleware(  # without cookies: keys are sent as headers
        CORSMiddleware,
        allow_origins=service.cors_origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["*"],
        expose_headers=["ETag", "Location", "Retry-After", "Server-Timing", "X-Request-ID"],
    )
    app = Api(
        title="Azimuth",
        version=__version__,
        description=reference.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            *around,
            Middleware(RequestLogMiddleware),
            *([cross_origin] if service.cors_origins else []),  # before the keys: browsers ask without one
            Middleware(ApiKeyMiddleware, keys=service.api_keys),
            Middleware(HeadMiddleware),
            # Level 1 is several times as fast as 9, and hardly larger. What is smaller fits one packet anyway.
            Middleware(CompressionMiddleware, minimum_size=1_500, compresslevel=1),
        ],
    )
    app.state.service = service
    app.state.leaving = False
    problems.install(app)
    reference.install(app)
    for resource in RESOURCES:
        app.include_router(resource.router)
    return app
