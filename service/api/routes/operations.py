"""Is it alive, is it ready, how is it doing; and the console for people."""

import hashlib
import logging
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files

from fastapi import APIRouter
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api import problems
from service.api.dependencies import Here
from service.api.problems import documented
from service.api.schemas import answers
from service.core.errors import AzimuthError, FieldError

log = logging.getLogger(__name__)
router = APIRouter(tags=["operations"])

CONSOLE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The console loads nothing from elsewhere and runs no inline script, whatever a document contains."""
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


class StatusAnswer(TypedDict):
    status: str


# ---------------------------------------------------------------- health


@router.get("/livez", summary="The process answers", response_model=StatusAnswer)
async def livez() -> Response:
    return answers.Json({"status": "alive"})


@router.get(
    "/readyz", summary="Searches and writes can be answered", response_model=StatusAnswer, responses=documented(503)
)
async def readyz(service: Here, request: Request) -> Response:
    """503 until everything is there that is needed; `errors` says what is missing."""
    missing = await service.missing()
    if missing:
        return problems.problem(
            request.scope,
            kind="not-ready",
            title="The service is not ready yet.",
            status=HTTPStatus.SERVICE_UNAVAILABLE,
            detail="missing: " + "; ".join(missing),
            errors=[FieldError("", one) for one in missing],
            headers={"Retry-After": "2"},
        )
    return answers.Json({"status": "ready"})


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"description": "Text format of Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(401),
    },
)
async def metrics(service: Here, request: Request) -> Response:
    try:
        await service.refresh_metrics()
    except AzimuthError as error:
        # What this process counted itself is most wanted when something else is down.
        log.warning("some metrics are not up to date: %s", error.detail)
    render, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(render(REGISTRY), media_type=content_type)


# ---------------------------------------------------------------- console


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media_type: str
    etag: str


def _read() -> dict[str, _File]:
    """The files of the console, small and few, kept in memory."""
    found = {}
    for entry in files("service.api").joinpath("console").iterdir():
        body = entry.read_bytes()
        suffix = entry.name[entry.name.rfind(".") :]
        etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        found[entry.name] = _File(body, MEDIA_TYPES[suffix], etag)
    return found


_CONSOLE = _read()


@router.get("/", include_in_schema=False)
async def console(request: Request) -> Response:
    return _served(request, "index.html")


@router.get("/console/{name}", include_in_schema=False)
async def console_file(request: Request, name: str) -> Response:
    return _served(request, name)


def _served(request: Request, name: str) -> Response:
    file = _CONSOLE.get(name)
    if file is None:
        raise HTTPException(404)
    headers = {
        "ETag": file.etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": CONSOLE_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers, media_type=file.media_type)
