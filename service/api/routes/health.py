"""Liveness, readiness and metrics."""

import logging
from http import HTTPStatus

from fastapi import APIRouter
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import JsonResponse
from service.api.dependencies import ServiceDep
from service.api.problems import error_responses, problem_response
from service.core.errors import AzimuthError, FieldError

log = logging.getLogger(__name__)
router = APIRouter(tags=["operations"])  # probes and scrapers add parameters of their own, which mean nothing here
metrics_router = APIRouter(tags=["operations"])


class StatusAnswer(TypedDict):
    status: str


@router.get("/livez", summary="The process answers")
async def livez() -> StatusAnswer:
    return {"status": "alive"}


@router.get(
    "/readyz",
    summary="Searches and writes can be answered",
    response_model=StatusAnswer,
    responses=error_responses(503),
)
async def readyz(service: ServiceDep, request: Request) -> Response:
    """503 until everything is there that is needed, and once the process stops. `errors` says what is missing."""
    missing = ["this process is stopping"] if request.app.state.leaving else await service.missing()
    if missing and not (request.state.access.role and request.state.access.whole):
        missing = ["a key for all collections is told what"]  # for it names collections
    if missing:
        return problem_response(
            request.scope,
            kind="not-ready",
            title="The service is not ready yet.",
            status=HTTPStatus.SERVICE_UNAVAILABLE,
            detail="missing: " + "; ".join(missing),
            errors=[FieldError("", one) for one in missing],
            headers={"Retry-After": "2"},
        )
    return JsonResponse(StatusAnswer(status="ready"))


@metrics_router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"description": "Text format of Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(request: Request) -> Response:
    try:
        await request.app.state.refresh_metrics()
    except AzimuthError as error:
        # What this process counted itself is needed most when something else is down.
        log.warning("some metrics are not up to date: %s", error.detail)
    render, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(render(REGISTRY), media_type=content_type)
