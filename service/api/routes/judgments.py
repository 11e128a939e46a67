"""A collection's own test set, in the format of BEIR: every new version is evaluated on it."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, NotRequired

from fastapi import Query
from pydantic import ConfigDict, Field
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import JsonResponse, large_answer
from service.api.dependencies import ActorDep, CollectionDep, Service, ServiceDep
from service.api.problems import error_responses
from service.api.routing import collection_router, require_confirmation
from service.api.schemas.base import (
    MAX_ID_LENGTH,
    ConfirmedQuery,
    DocumentIdField,
    QueryParameters,
    QueryText,
    RequestBody,
    Text,
    in_groups,
)
from service.core.collections import Collection
from service.core.concurrency import off_loop, release
from service.core.errors import MAX_PLACES, FieldError, Invalid, NotFound
from service.core.ids import DocumentId
from service.core.periodic import utc_now
from service.core.versions import AuditEntry, Judgments

MAX_QUERIES = 10_000
MAX_JUDGMENTS = 200_000
MAX_SCORE = 100

router = collection_router("/judgments", "judgments")


class _Row(RequestBody):
    """A row of a BEIR file. Further columns (`metadata`) are ignored."""

    model_config = ConfigDict(extra="ignore", populate_by_name=False)


class JudgedQueryBody(_Row):
    id: Annotated[Text, Field(min_length=1, max_length=MAX_ID_LENGTH, alias="_id")]
    text: QueryText


class JudgmentBody(_Row):
    query_id: Annotated[Text, Field(min_length=1, max_length=MAX_ID_LENGTH, alias="query-id")]
    corpus_id: Annotated[DocumentIdField, Field(alias="corpus-id")]
    score: Annotated[int, Field(ge=0, le=MAX_SCORE, description="How relevant; 0: not at all.")]


QrelsField = Annotated[list[JudgmentBody], Field(min_length=1, max_length=MAX_JUDGMENTS), in_groups(MAX_JUDGMENTS)]


class JudgmentsBody(RequestBody):
    queries: Annotated[list[JudgedQueryBody], Field(min_length=1, max_length=MAX_QUERIES), in_groups(MAX_QUERIES)]
    qrels: QrelsField


def to_judgments(queries: list[JudgedQueryBody], qrels: list[JudgmentBody]) -> Judgments:
    """Without queries for which nothing is relevant; empties `qrels`. Invalid where the rows do not fit together."""
    if errors := list(_row_errors(queries, qrels)):
        raise Invalid(f"{len(errors)} of the rows are invalid", errors[:MAX_PLACES], len(errors))
    grades: dict[str, dict[str, int]] = {}
    for row in qrels:
        grades.setdefault(row.query_id, {})[row.corpus_id] = row.score
    release(qrels)
    judged = {query.id: query.text for query in queries if any(grades.get(query.id, {}).values())}
    if not judged:
        raise Invalid.at("qrels", "no query has a relevant document (a score above 0)")
    return Judgments(queries=judged, grades={query: grades[query] for query in judged}, uploaded_at=utc_now())


def _row_errors(queries: list[JudgedQueryBody], qrels: list[JudgmentBody]) -> Iterator[FieldError]:
    known: set[str] = set()
    for at, query in enumerate(queries):
        if query.id in known:
            yield FieldError(f"queries.{at}._id", "the same query appears twice")
        known.add(query.id)
    pairs: set[tuple[str, str]] = set()
    for at, row in enumerate(qrels):
        if row.query_id not in known:
            yield FieldError(f"qrels.{at}.query-id", "there is no such query")
        if (row.query_id, row.corpus_id) in pairs:
            yield FieldError(f"qrels.{at}", "the same query and document appear twice")
        pairs.add((row.query_id, row.corpus_id))


class JudgmentsQuery(QueryParameters):
    full: Annotated[bool, Field(description="Include the queries and judgments themselves.")] = False


class QueryRow(TypedDict):
    _id: str
    text: str


JudgmentRow = TypedDict("JudgmentRow", {"query-id": str, "corpus-id": str, "score": int})


class JudgmentSet(TypedDict):
    """It can be uploaded again as it is."""

    queries: list[QueryRow]
    qrels: list[JudgmentRow]


class JudgmentsAnswer(TypedDict):
    queries: int
    """Queries with at least one relevant document; others are dropped."""
    judgments: int
    unknown_documents: int
    """Judged documents that are not in the collection now: no version can find them."""
    uploaded_at: datetime | None
    set: NotRequired[JudgmentSet]


@router.post("", summary="Upload the judgments of a collection")
async def put(service: ServiceDep, actor: ActorDep, collection: CollectionDep, body: JudgmentsBody) -> JudgmentsAnswer:
    """Replaces the whole set. Versions that wait for their promotion are evaluated again."""
    judgments = await off_loop(len(body.qrels), to_judgments, body.queries, body.qrels)
    entry = _audit_entry(judgments.uploaded_at, actor, len(judgments.queries), _count(judgments))
    await service.test_sets.put(collection.id, judgments, entry)
    return await _answer(service, collection, judgments)


@router.get("", summary="The judgments of a collection", response_model=JudgmentsAnswer)
async def get(service: ServiceDep, collection: CollectionDep, query: Annotated[JudgmentsQuery, Query()]) -> Response:
    judgments = await service.test_sets.get(collection.id)
    if judgments is None:
        return JsonResponse(JudgmentsAnswer(queries=0, judgments=0, unknown_documents=0, uploaded_at=None))
    answer = await _answer(service, collection, judgments)
    return await large_answer({**answer, "set": judgment_set(judgments)} if query.full else answer)


def judgment_set(judgments: Judgments) -> dict[str, Iterator[Mapping[str, str | int]]]:
    """A `JudgmentSet` whose rows are made when they are written."""
    rows = ((query, *row) for query, grades in judgments.grades.items() for row in grades.items())
    return {
        "queries": ({"_id": query, "text": text} for query, text in judgments.queries.items()),
        "qrels": ({"query-id": query, "corpus-id": document, "score": score} for query, document, score in rows),
    }


@router.delete("", summary="Delete the judgments of a collection", status_code=204, responses=error_responses(428))
async def delete(
    service: ServiceDep, actor: ActorDep, collection: CollectionDep, query: Annotated[ConfirmedQuery, Query()]
) -> Response:
    """`confirm` names the collection."""
    if await service.test_sets.uploaded_at(collection.id) is None:
        raise NotFound(f"collection {collection.name} has no judgments")
    require_confirmation(collection.name, query.confirm, f"the judgments of the collection {collection.name}")
    await service.test_sets.delete(collection.id, _audit_entry(utc_now(), actor, 0, 0))
    return Response(status_code=204)


def _audit_entry(at: datetime, actor: str, queries: int, judgments: int) -> AuditEntry:
    details = {"queries": queries, "judgments": judgments}
    return AuditEntry(at=at, actor=actor, action="judgments", details=details)


async def _answer(service: Service, collection: Collection, judgments: Judgments) -> JudgmentsAnswer:
    # A loop of Python's own, in which the lock can change hands: building the set in one call holds it for .1 s.
    judged = await off_loop(0, lambda: {DocumentId(one) for grades in judgments.grades.values() for one in grades})
    unknown = len(judged) - len(await service.evaluator.sampling.existing_ids(collection, judged))
    return {
        "queries": len(judgments.queries),
        "judgments": _count(judgments),
        "unknown_documents": unknown,
        "uploaded_at": judgments.uploaded_at,
    }


def _count(judgments: Judgments) -> int:
    return sum(map(len, judgments.grades.values()))
