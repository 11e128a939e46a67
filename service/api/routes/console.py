"""The files of the console for people, small and few, kept in memory."""

import hashlib
from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.api.web_security import PAGE_POLICY

router = APIRouter(include_in_schema=False)

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


class ConsoleFile(NamedTuple):
    body: bytes
    media_type: str
    etag: str


def _read_files() -> dict[str, ConsoleFile]:
    found = {}
    for entry in files("service.api").joinpath("console").iterdir():
        body = entry.read_bytes()
        suffix = entry.name[entry.name.rfind(".") :]
        etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        found[entry.name] = ConsoleFile(body, MEDIA_TYPES[suffix], etag)
    return found


_FILES = _read_files()


@router.get("/")
async def console(request: Request) -> Response:
    return await console_file(request, "index.html")


@router.get("/console/{name}")
async def console_file(request: Request, name: str) -> Response:
    file = _FILES.get(name)
    if file is None:
        raise HTTPException(404)
    headers = {"ETag": file.etag, "Content-Security-Policy": PAGE_POLICY}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers, media_type=file.media_type)
