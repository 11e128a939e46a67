"""Documents, as clients send and get them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.api.schemas.base import (
    DocumentIdField,
    FilterField,
    OneOfBody,
    PageQuery,
    QueryParameters,
    RequestBody,
    VectorField,
    VersionNumberField,
    in_groups,
)
from service.core.documents import Accepted, Document, WriteStatus
from service.core.jobs import FailedDocument
from service.ingest.stream import StreamOutcome

MAX_DELETED = 1_000
MAX_BATCH = 10_000
"""Documents in one request, whatever the settings say."""
MAX_FILTER_IN_URL = 4_096


class DocumentBody(RequestBody):
    """One document. It needs a text or at least a title."""

    id: DocumentIdField
    title: str = ""
    text: str = ""
    metadata: dict[str, Any] = Field({})
    vector: VectorField | None = None

    def document(self) -> Document:
        return Document(
            id=self.id,
            title=self.title,
            text=self.text,
            metadata=self.metadata,
            vector=None if self.vector is None else tuple(self.vector),
        )


class DocumentsBody(RequestBody):
    documents: Annotated[list[DocumentBody], Field(min_length=1, max_length=MAX_BATCH), in_groups(MAX_BATCH)]


class DeletionBody(OneOfBody):
    alternatives = ("ids", "filter")

    ids: Annotated[list[DocumentIdField], Field(max_length=MAX_DELETED)] | None = None
    filter: FilterField | None = None


class WriteQuery(QueryParameters):
    wait: Annotated[bool, Field(description="Answer when both legs can find the documents.")] = False
    embedder_version: Annotated[
        VersionNumberField | None,
        Field(description="The version that the documents' vectors belong to. Default: the external one."),
    ] = None


class ListQuery(PageQuery):
    filter: Annotated[
        str | None,
        Field(max_length=MAX_FILTER_IN_URL, description="A filter as JSON.", examples=['{"year": {"$gte": 2019}}']),
    ] = None


class DocumentAnswer(TypedDict):
    id: str
    title: str
    text: str
    metadata: dict[str, Any]
    revision: int
    created_at: datetime
    updated_at: datetime


class DocumentPage(TypedDict):
    documents: list[DocumentAnswer]
    next_cursor: str | None


class LineError(TypedDict):
    line: int
    error: str


class WrittenAnswer(TypedDict):
    """The outcome of a write. `results` for a JSON body; `errors` and `errors_total` for an NDJSON stream."""

    created: int
    updated: int
    unchanged: int
    results: NotRequired[list[Accepted]]
    errors: NotRequired[list[LineError]]
    errors_total: NotRequired[int]
    searchable: NotRequired[bool]
    """With `wait` alone: whether both legs find everything. False: not within the limit of time, or never, because a
    document was set aside (`documents/failed` says why)."""


class DeletedAnswer(TypedDict):
    deleted: int
    missing: NotRequired[list[str]]
    """With `ids` alone: those that do not exist."""


class FailedPage(TypedDict):
    documents: list[FailedDocument]
    next_cursor: str | None


class RetriedAnswer(TypedDict):
    retried: int


def written_answer(accepted: Sequence[Accepted]) -> WrittenAnswer:
    def count(status: WriteStatus) -> int:
        return sum(one.status == status for one in accepted)

    return {
        "results": list(accepted),
        "created": count("created"),
        "updated": count("updated"),
        "unchanged": count("unchanged"),
    }


def streamed_answer(outcome: StreamOutcome) -> WrittenAnswer:
    return {
        "created": outcome.counts["created"],
        "updated": outcome.counts["updated"],
        "unchanged": outcome.counts["unchanged"],
        "errors": [{"line": line, "error": reason} for line, reason in outcome.errors],
        "errors_total": outcome.failed,
    }
