"""Files that are uploaded become documents, as `azimuth ingest` makes them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from itertools import islice
from mimetypes import guess_extension
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NotRequired

from fastapi import Query
from pydantic import Field, Json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from typing_extensions import TypedDict

from service.api import problems
from service.api.bodies import media_type
from service.api.content_coding import unpacked_body
from service.api.dependencies import CollectionDep, Service, ServiceDep
from service.api.routes.documents import parse_line
from service.api.routing import UploadRoute, collection_router
from service.api.schemas.base import QueryParameters, parse_filter
from service.core.collections import Collection
from service.core.documents import Document
from service.core.errors import FieldError, Invalid, TooLarge
from service.core.ids import DocumentId
from service.ingest.files.found import FoundFile, checked
from service.ingest.files.read import FILE, SOURCE, FileReader
from service.ingest.service import DELETE_BATCH

MULTIPART = "multipart/form-data"
MAX_FILES = 1_000
FILES_IN_FILTER = 50
READ_AT_ONCE = 100
"""Documents that go from the reader to ingest together."""
_SOURCE_NAME = "upload"
_FILE = {"type": "string", "format": "binary"}
_FILES = {"type": "array", "maxItems": MAX_FILES, "items": _FILE}
_FORM = {"type": "object", "properties": {"file": _FILES}}

router = collection_router("/documents/upload", "documents", route_class=UploadRoute)


class UploadQuery(QueryParameters):
    name: Annotated[
        str, Field(max_length=400, description="Name of the file, where it is the body; it tells the kind of file.")
    ] = ""
    metadata: Annotated[
        Json[dict[str, Any]], Field(description="A JSON object that is added to each document's metadata.")
    ] = Field(default_factory=dict)
    wait: Annotated[bool, Field(description="Answer when both legs can find the documents.")] = False


class FileReason(TypedDict):
    file: str
    error: str


class UploadedAnswer(TypedDict):
    """`files`: that were read. `errors`: those that were not, and documents that were refused; `skipped`: no text."""

    files: int
    created: int
    updated: int
    unchanged: int
    deleted: int
    errors: list[FileReason]
    skipped: list[FileReason]
    searchable: NotRequired[bool]


@router.post(
    "",
    summary="Write the documents of files",
    responses=problems.error_responses(400, 413, 415, 429),
    openapi_extra={
        "requestBody": {"required": True, "content": {MULTIPART: {"schema": _FORM}, "*/*": {"schema": _FILE}}}
    },
)
async def upload(
    service: ServiceDep, request: Request, collection: CollectionDep, query: Annotated[UploadQuery, Query()]
) -> UploadedAnswer:
    """Files of a multipart form, or one as the body with its `name`: PDF, office formats, archives, text and more.

    Documents of an earlier upload of the same file are replaced; what the file no longer has is deleted. 422 where no
    file could be read, 415 where all are of a kind that has no text.
    """
    try:
        with TemporaryDirectory() as folder:
            files = await _received(request, service.limits.upload_bytes, query.name, Path(folder))
            async with service.uploads:
                ids, answer = await _write(service, collection, files, FileReader(query.metadata))
    finally:
        request.state.admission.finish(answered=False)  # how long it takes is up to the files
    if query.wait:
        answer["searchable"] = await service.ingest.wait_until_searchable(collection, ids)
    return answer


async def _received(request: Request, max_bytes: int, name: str, folder: Path) -> list[FoundFile]:
    """The files of the request, below `folder`."""

    async def body() -> AsyncGenerator[bytes, None]:
        size = 0
        async for part in unpacked_body(request):
            size += len(part)
            if size > max_bytes:
                raise TooLarge(f"the upload is larger than {max_bytes} bytes")
            yield part

    if media_type(request) != MULTIPART:
        name = name or f"upload{guess_extension(media_type(request)) or '.txt'}"
        with (folder / "0").open("wb") as file:
            async for part in body():
                file.write(part)
        return [_named(name, folder / "0")]
    try:
        form = await MultiPartParser(request.headers, body(), max_files=MAX_FILES, max_fields=MAX_FILES).parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the body is no multipart form: {error.message}") from error
    files = [one for _, one in form.multi_items() if isinstance(one, UploadFile) and one.filename]
    for number, one in enumerate(files):
        with (folder / str(number)).open("wb") as file:
            while part := await one.read(2**20):
                file.write(part)
    await form.close()
    if not files:
        raise Invalid.at("file", "the form has no file: each needs a filename")
    return [_named(str(one.filename), folder / str(number)) for number, one in enumerate(files)]


def _named(name: str, path: Path) -> FoundFile:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith("/") or ".." in parts or not parts:
        raise Invalid.at("name", "a relative path is needed, without '..'")
    return checked(FoundFile(name="/".join(parts), path=path))


async def _write(
    service: Service, collection: Collection, files: list[FoundFile], reader: FileReader
) -> tuple[list[DocumentId], UploadedAnswer]:
    ids: list[DocumentId] = []

    async def groups() -> AsyncIterator[list[tuple[int, Document | str]]]:
        lines = enumerate((line for file in files for line in reader.documents_of(file, _SOURCE_NAME)), start=1)
        while group := await asyncio.to_thread(_parsed, lines):
            ids.extend(one.id for _, one in group if isinstance(one, Document))
            yield group

    with reader:
        outcome = await service.ingest.stream(collection, groups())
    errors: list[FileReason] = [{"file": name, "error": reason} for name, reason in reader.problems.items()]
    skipped: list[FileReason] = [{"file": name, "error": reason} for name, reason in reader.skipped.items()]
    if not reader.read:
        reasons = [FieldError(one["file"], one["error"]) for one in [*errors, *skipped]]
        if skipped and not errors and all(one["error"].startswith("has no text (") for one in skipped):
            raise HTTPException(415, "; ".join(f"{one.field} {one.message}" for one in reasons[:20]))
        raise Invalid("no file could be read", reasons)
    errors += [{"file": reader.file_of(line), "error": reason} for line, reason in outcome.errors]
    return ids, {
        "files": len(reader.read),
        "created": outcome.counts["created"],
        "updated": outcome.counts["updated"],
        "unchanged": outcome.counts["unchanged"],
        "deleted": await _delete_gone(service, collection, list(reader.read), set(ids)),
        "errors": errors,
        "skipped": skipped,
    }


def _parsed(lines: Iterator[tuple[int, bytes]]) -> list[tuple[int, Document | str]]:
    return [(number, parse_line(line)) for number, line in islice(lines, READ_AT_ONCE)]


async def _delete_gone(service: Service, collection: Collection, files: list[str], ids: set[DocumentId]) -> int:
    """Delete what earlier uploads of these files had, and these have no longer. Returns how many."""
    deleted = 0
    for start in range(0, len(files), FILES_IN_FILTER):
        of_files = {SOURCE: _SOURCE_NAME, FILE: {"$in": files[start : start + FILES_IN_FILTER]}}
        where, after = parse_filter(of_files, collection.settings.field_types), None
        assert where is not None
        while page := await service.documents.page_ids(collection.id, after, DELETE_BATCH, where):
            gone = [one for one in page if one not in ids]
            deleted += len(await service.ingest.delete(collection, gone, where)) if gone else 0
            after = page[-1]
    return deleted
