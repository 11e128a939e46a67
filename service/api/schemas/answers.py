"""What clients get: the shapes (checked by mypy, shown in the OpenAPI document) and how domain values become them.

The answer to a search has a module of its own: `hits`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, NotRequired

import orjson
from starlette.responses import Response
from typing_extensions import TypedDict

from service.core.collections import Collection, CollectionCounts, FieldState, IndexedField
from service.core.documents import Accepted, StoredDocument, WriteStatus
from service.core.jobs import FailedDocument
from service.core.ports.lexicon import LexiconState
from service.core.versions import EmbedderVersion, VersionState
from service.ingest.stream import StreamOutcome


class Json(Response):
    """A response of plain dicts, lists, strings, numbers and times."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_UTC_Z)


# ---------------------------------------------------------------- collections


class EmbedderAnswer(TypedDict):
    model: str
    revision: str | None
    query_prompt: str
    document_prompt: str
    dimensions: int | None
    identity: str | None
    """Of `external` alone: what makes the vectors that the client brings."""


class ChunkingAnswer(TypedDict):
    max_tokens: int | None
    overlap_tokens: int


class FusionAnswer(TypedDict):
    method: Literal["convex", "rrf"]
    alpha: float
    k: int


class RerankingAnswer(TypedDict):
    depth: int
    weight: float


class GainAnswer(TypedDict):
    """Mean nDCG@10 over held-out queries before and after, and the interval of the difference (95 %)."""

    before: float
    after: float
    low: float
    high: float


class TunedAnswer(TypedDict):
    version: int
    at: str
    queries: int
    folds: int
    fusion: GainAnswer | None
    """What fusion and candidates gained; null where they were left as they were."""
    rerank: GainAnswer | None
    outdated: bool
    """Another embedder version is active now: tune again."""


class SettingsAnswer(TypedDict):
    embedder: EmbedderAnswer
    language: str
    recall_target: float
    chunking: ChunkingAnswer
    fusion: FusionAnswer
    candidates: int
    rerank: RerankingAnswer
    tuned: TunedAnswer | None
    """On what fusion, candidates and rerank were chosen; null where they were set by hand or are as they come."""
    indexed: list[str]


class FieldAnswer(TypedDict):
    field: str
    state: FieldState
    """`building`: filters look at the documents instead, until it is `ready`."""


class CountsAnswer(TypedDict):
    documents: int
    chunks: int
    pending: int
    """Documents that the active version waits for."""
    failed: int
    """Documents that it has set aside: `documents/failed` says why."""


class VersionSummary(TypedDict):
    number: int
    state: VersionState
    fingerprint: str


class CollectionAnswer(TypedDict):
    name: str
    settings: SettingsAnswer
    fields: list[FieldAnswer]
    """The declared fields (`settings.indexed`), and whether filters can use their indexes yet."""
    counts: CountsAnswer
    active_version: int
    previous_version: int | None
    """The version that a roll back would make active again."""
    versions: list[VersionSummary]
    lexical_state: LexiconState
    """`rebuilding`: its former language answers until the index of the new one is complete."""
    lexical_lag_seconds: float | None
    """Age of the oldest committed change that lexical search cannot see yet; null before the first look."""
    created_at: str


class CollectionsAnswer(TypedDict):
    collections: list[CollectionAnswer]


def collection(
    one: Collection,
    counts: CollectionCounts,
    fields: Sequence[IndexedField],
    versions: Sequence[EmbedderVersion],
    lexical_state: LexiconState,
    lag_seconds: float | None,
) -> CollectionAnswer:
    settings: Any = asdict(one.settings)
    if one.settings.tuned is not None:
        tuned = one.settings.tuned
        settings["tuned"] |= {"at": tuned.at.isoformat(), "outdated": tuned.version != one.active_version}
    return {
        "name": one.name,
        "settings": settings,
        "fields": [{"field": field.name, "state": field.state} for field in fields],
        "counts": _counts(counts),
        "active_version": one.active_version,
        "previous_version": one.previous_version,
        "versions": [summary(version) for version in versions],
        "lexical_state": lexical_state,
        "lexical_lag_seconds": lag_seconds,
        "created_at": one.created_at.isoformat(),
    }


def _counts(counts: CollectionCounts) -> CountsAnswer:
    return {
        "documents": counts.documents,
        "chunks": counts.chunks,
        "pending": counts.pending,
        "failed": counts.failed,
    }


def summary(version: EmbedderVersion) -> VersionSummary:
    return {"number": version.number, "state": version.state, "fingerprint": version.fingerprint}


# ---------------------------------------------------------------- documents


class DocumentAnswer(TypedDict):
    id: str
    title: str
    text: str
    metadata: dict[str, Any]
    revision: int
    created_at: str
    updated_at: str


class DocumentPage(TypedDict):
    documents: list[DocumentAnswer]
    next_cursor: str | None


class AcceptedAnswer(TypedDict):
    id: str
    status: WriteStatus
    revision: int


class WrittenAnswer(TypedDict):
    """The outcome of a write. `results` for a JSON body; `errors` and `errors_total` for an NDJSON stream."""

    created: int
    updated: int
    unchanged: int
    results: NotRequired[list[AcceptedAnswer]]
    errors: NotRequired[list["LineError"]]
    errors_total: NotRequired[int]
    searchable: NotRequired[bool]
    """With `wait` alone: whether both legs find everything. False: not within the limit of time, or never, because a
    document was set aside (`documents/failed` says why)."""


class LineError(TypedDict):
    line: int
    error: str


class DeletedAnswer(TypedDict):
    deleted: int
    missing: NotRequired[list[str]]
    """With `ids` alone: those that were not there."""


class FailedAnswer(TypedDict):
    id: str
    version: int
    attempts: int
    reason: str
    failed_at: str


class FailedPage(TypedDict):
    documents: list[FailedAnswer]
    next_cursor: str | None


class RetriedAnswer(TypedDict):
    retried: int


def document(stored: StoredDocument) -> DocumentAnswer:
    return {
        "id": stored.id,
        "title": stored.title,
        "text": stored.text,
        "metadata": dict(stored.metadata),
        "revision": stored.revision,
        "created_at": stored.created_at.isoformat(),
        "updated_at": stored.updated_at.isoformat(),
    }


def written(accepted: Sequence[Accepted]) -> WrittenAnswer:
    def count(status: WriteStatus) -> int:
        return sum(one.status == status for one in accepted)

    return {
        "results": [{"id": one.id, "status": one.status, "revision": one.revision} for one in accepted],
        "created": count("created"),
        "updated": count("updated"),
        "unchanged": count("unchanged"),
    }


def streamed(outcome: StreamOutcome) -> WrittenAnswer:
    return {
        "created": outcome.counts["created"],
        "updated": outcome.counts["updated"],
        "unchanged": outcome.counts["unchanged"],
        "errors": [{"line": line, "error": reason} for line, reason in outcome.errors],
        "errors_total": outcome.failed,
    }


def failed(one: FailedDocument) -> FailedAnswer:
    return {
        "id": one.id,
        "version": one.version,
        "attempts": one.attempts,
        "reason": one.reason,
        "failed_at": one.failed_at.isoformat(),
    }
