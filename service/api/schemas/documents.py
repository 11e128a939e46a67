"""Documents, as clients send and get them."""

from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired, cast

import orjson
from pydantic import Field
from typing_extensions import TypedDict

from service.api.schemas.base import (
    DocumentIdField,
    FilterField,
    ImageField,
    OneOfBody,
    PageQuery,
    QueryParameters,
    RequestBody,
    VectorField,
    VersionNumberField,
    in_groups,
)
from service.core.concurrency import give_way
from service.core.documents import Accepted, Document, IfExists, StoredDocument, WriteStatus
from service.core.ids import DocumentId, Vector
from service.core.images import Image, image_path
from service.core.jobs import FailedDocument
from service.core.search import Candidate
from service.ingest.stream import StreamOutcome

MAX_IDS = 1_000
MAX_BATCH = 10_000
"""Documents in one request, whatever the settings say."""
MAX_FILTER_IN_URL = 4_096


Part = Literal["text", "metadata", "vectors"]
IncludeField = Annotated[list[Part], Field(max_length=3, description="What comes with id, title, revision and times.")]
EVERYTHING: list[Part] = ["text", "metadata"]
IGNORED = Field(None, description="Ignored: a document may be sent as it was read.")


class DocumentBody(RequestBody):
    """One document. It needs a text, a title or an image."""

    id: DocumentIdField
    title: str = ""
    text: str = ""
    metadata: dict[str, Any] = Field({})
    image: ImageField | None = None
    vector: VectorField | None = None
    vectors: Annotated[Any, IGNORED] = None
    revision: Annotated[Any, IGNORED] = None
    created_at: Annotated[Any, IGNORED] = None
    updated_at: Annotated[Any, IGNORED] = None

    def document(self) -> Document:
        return Document(
            id=self.id,
            title=self.title,
            text=self.text,
            metadata=self.metadata,
            image=self.image,
            vector=None if self.vector is None else tuple(self.vector),
        )


class DocumentsBody(RequestBody):
    documents: Annotated[list[DocumentBody], Field(min_length=1, max_length=MAX_BATCH), in_groups(MAX_BATCH)]


class PatchBody(RequestBody):
    """A JSON merge patch (RFC 7396): objects are merged, null removes. What is left out stays as it is."""

    title: str | None = None
    text: str | None = None
    metadata: dict[str, Any] | None = None
    image: ImageField | None = None


class FetchBody(RequestBody):
    ids: Annotated[list[DocumentIdField], Field(min_length=1, max_length=MAX_IDS)]
    include: IncludeField = EVERYTHING


class CountBody(RequestBody):
    filter: FilterField | None = None


class DeletionBody(OneOfBody):
    alternatives = ("ids", "filter", "all")

    ids: Annotated[list[DocumentIdField], Field(max_length=MAX_IDS)] | None = None
    filter: FilterField | None = None
    all: Annotated[Literal[True], Field(description="All of them; `?confirm=` names the collection.")] | None = None


class WriteQuery(QueryParameters):
    if_exists: Annotated[
        IfExists, Field(description="Of a document whose id is there: `skip` leaves it, `fail` refuses the new one.")
    ] = "replace"
    generate_ids: Annotated[bool, Field(description="A document without `id` gets a new one.")] = False
    wait: Annotated[bool, Field(description="Answer when both legs can find the documents.")] = False
    embedder_version: Annotated[
        VersionNumberField | None,
        Field(description="The version that the documents' vectors belong to. Default: the external one."),
    ] = None


FilterInUrl = Annotated[
    str, Field(max_length=MAX_FILTER_IN_URL, description="A filter as JSON.", examples=['{"year": {"$gte": 2019}}'])
]


class ReadQuery(QueryParameters):
    include: IncludeField = EVERYTHING


class FetchQuery(ReadQuery):
    ids: Annotated[list[DocumentIdField], Field(min_length=1, max_length=MAX_IDS)]


class ListQuery(PageQuery):
    include: IncludeField = EVERYTHING
    filter: FilterInUrl | None = None


class ExportQuery(QueryParameters):
    filter: FilterInUrl | None = None
    vectors: Annotated[
        bool | None, Field(description="With those of the active version. Default: if clients brought them.")
    ] = None
    header: Annotated[
        bool, Field(description="First a line with settings, index, aliases and judgments, for `azimuth import`.")
    ] = False


class ChunkAnswer(TypedDict):
    """A chunk of the text, from `start` to `end` in code points, and its vector as it is stored."""

    chunk: int
    start: int
    end: int
    vector: list[float]


class DocumentAnswer(TypedDict):
    id: str
    title: str
    text: NotRequired[str]
    metadata: NotRequired[dict[str, Any]]
    image: NotRequired[str]
    """Where it is, below the collection; only where there is one. Sent back, it stays."""
    vector: NotRequired[list[float]]
    """With `vectors`, where the active version is `external`."""
    vectors: NotRequired[list[ChunkAnswer]]
    """Of the active version; empty where it has not encoded the document yet."""
    revision: int
    created_at: datetime
    updated_at: datetime


class DocumentsAnswer(TypedDict):
    documents: list[DocumentAnswer]
    """In the order of the ids."""
    missing: list[str]


class CountAnswer(TypedDict):
    count: int


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


def document_answer(document: StoredDocument, include: Sequence[Part]) -> DocumentAnswer:
    """Without vectors."""
    names = ("id", "title", *dict.fromkeys(include), "revision", "created_at", "updated_at")
    image = {"image": image_path(document.id)} if document.image else {}
    return cast(DocumentAnswer, {**{name: getattr(document, name) for name in names if name != "vectors"}, **image})


def answers_with_vectors(
    documents: Iterable[StoredDocument],
    include: Sequence[Part],
    chunks: Sequence[tuple[Candidate, Vector]],
    external: bool,
) -> list[DocumentAnswer]:
    found: defaultdict[tuple[DocumentId, int], list[Any]] = defaultdict(list)
    for one, vector in chunks:
        give_way()
        numbers = orjson.Fragment(orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY))
        chunk = {"chunk": one.chunk, "start": one.start, "end": one.end, "vector": numbers}
        found[one.document_id, one.content_revision].append(chunk)
    answers = []
    for document in documents:
        answer, own = document_answer(document, include), found[document.id, document.content_revision]
        if external and own:
            answer["vector"] = own[0]["vector"]
        answers.append(cast(DocumentAnswer, {**answer, "vectors": own}))
    return answers


def exported(answer: DocumentAnswer, image: Image | None) -> dict[str, Any]:
    """What has to be written again. The vector that a client brought is its only one."""
    data = {} if image is None else {"image": f"data:{image.type};base64,{b64encode(image.content).decode()}"}
    dropped = {"image", "revision", "created_at", "updated_at", *(["vectors"] if "vector" in answer else [])}
    return {name: value for name, value in answer.items() if name not in dropped} | data
