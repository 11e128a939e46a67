"""The metrics of the process that answers."""

import logging

from fastapi import APIRouter
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from service.core.errors import AzimuthError

log = logging.getLogger(__name__)
router = APIRouter(tags=["operations"])  # scrapers add parameters of their own, which mean nothing here


@router.get(
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
