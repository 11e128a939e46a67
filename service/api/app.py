"""The HTTP application: routes, what surrounds them, and the document that describes them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from service import __version__
from service.api import openapi as reference
from service.api import problems
from service.api.dependencies import Service
from service.api.middleware import ApiKeyAuth, RequestLog
from service.api.routes import (
    audit,
    collections,
    documents,
    drift,
    evaluate,
    geometry,
    indexes,
    judgments,
    operations,
    recall,
    rerank,
    search,
    versions,
)


class Api(FastAPI):
    """A FastAPI application whose OpenAPI document also tells what FastAPI cannot know."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = reference.describe(self)
        return self.openapi_schema


def create_app(service: Service, around: Sequence[Middleware] = ()) -> FastAPI:
    """Everything that answers HTTP, over one service. `around`: middleware beyond all other, outermost first."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.run():
            yield

    app = Api(
        title="Azimuth",
        version=__version__,
        description=reference.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[*around, Middleware(RequestLog), Middleware(ApiKeyAuth, keys=service.api_keys)],
    )
    app.state.service = service
    problems.install(app)
    reference.install(app)
    for resource in (
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
        rerank,
        operations,
    ):
        app.include_router(resource.router)
    return app
