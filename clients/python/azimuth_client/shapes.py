"""Shapes of requests and answers, as dictionaries; the API reference of the service explains each field."""

from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, Required, TypedDict

Json = dict[str, Any]
Filter = dict[str, Any]
"""What must hold of the metadata: `{"year": {"$gte": 2019}}`."""


class Document(TypedDict, total=False):
    """A document to write. It needs a text, a title, or both."""

    id: Required[str]
    title: str
    text: str
    metadata: Json
    vector: list[float]
    """Only where the embedder of the collection is `external`."""


class StoredDocument(TypedDict):
    id: str
    title: str
    text: NotRequired[str]
    metadata: NotRequired[Json]
    vectors: NotRequired[list[Json]]
    """Those of its chunks, where `include` asks for them."""
    revision: int
    created_at: str
    updated_at: str


class Suggestion(TypedDict):
    """The input with its last word completed, or the title of a document."""

    text: str
    kind: Literal["word", "title"]
    documents: int


class Hit(TypedDict):
    id: str
    chunk: int
    score: float
    """Orders the hits of one answer; it is no probability."""
    relevance: float | None
    """The probability that the hit answers the query; None where no calibrated reranker read it."""
    cosine: float | None
    bm25: float | None
    title: str
    start: int
    end: int
    revision: int
    text: NotRequired[str]
    metadata: NotRequired[Json]
    highlights: NotRequired[list[str]]
    vector: NotRequired[list[float] | None]
    explain: NotRequired[Json]


def similarity(hit: Hit) -> float:
    """A score that means the same for all queries, as thresholds need it: relevance, else cosine, else the score."""
    known = (one for one in (hit["relevance"], hit["cosine"]) if one is not None)
    return next(known, hit["score"])


class SearchAnswer(TypedDict):
    hits: list[Hit]
    confidence: Json
    """`in_domain`: the probability that the question is one for this collection at all; None: not known yet."""
    embedder_version: int
    plan: Json
    degraded: list[Json]
    """Stages that could not do their part, and why."""
    facets: NotRequired[Json]
    took_ms: float
    timings_ms: dict[str, float]


class MarkedQuery(TypedDict):
    id: str
    query: str
    answered: bool
    documents: list[str]
    """Those that helped."""
    actor: str
    tenant: str
    at: str


class SearchOptions(TypedDict, total=False):
    k: int
    mode: Literal["hybrid", "dense", "lexical"]
    filter: Filter | None
    vector: list[float]
    queries: list[Json]
    like: Json
    fusion: Json
    rerank: bool | Json
    candidates: int
    exact: bool
    ef_search: int
    embedder_version: int
    group_by: Literal["document", "chunk"]
    diversity: float
    min_confidence: float
    budget_ms: float
    offset: int
    sort: list[str | Json]
    min_score: float | Json
    fields: list[str]
    facets: list[str | Json]
    boost: list[Json]
    min_revision: int
    include: list[str]
    explain: bool
    syntax: str
    typos: bool | Json


class Written(TypedDict):
    created: int
    updated: int
    unchanged: int
    results: list[Json]
    """For each document `id`, `status` and `revision`, in their order."""
    searchable: NotRequired[bool]


class Deleted(TypedDict):
    deleted: int
    missing: NotRequired[list[str]]


class ImportedBatch(TypedDict):
    """What became of the documents of one request."""

    lines: int
    created: int
    updated: int
    unchanged: int
    errors: list[Json]
    """`line`, counted from 1 over the whole import, and `error`."""


@dataclass(slots=True)
class ImportResult:
    """What became of all documents. `errors`: `line`, counted from 1, and `error`."""

    sent: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: list[Json] = field(default_factory=list)


class Collection(TypedDict):
    name: str
    settings: Json
    fields: list[Json]
    counts: dict[str, int]
    """`documents`, `chunks`, `pending` and `failed`."""
    active_version: int
    versions: list[Json]
    lexical_lag_seconds: float | None


class KeySettings(TypedDict, total=False):
    """What an API key may do; the service's documentation explains each."""

    name: str
    role: Literal["read", "write", "admin"]
    collections: list[str]
    filter: Filter | None
    rate: str | None
    expires: str | None
    """After how long: `90d`."""


class Key(TypedDict):
    id: str
    name: str
    role: Literal["read", "write", "admin"]
    collections: list[str]
    filter: Filter | None
    rate: str | None
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    requests: int
    active: bool


class NewKey(Key):
    secret: str
    """Shown this once."""
    notice: str | None
    """What the new key changes for everybody."""
