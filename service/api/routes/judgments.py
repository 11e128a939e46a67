"""A collection's own test set, in the shape of BEIR: what every new version is measured on."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, NotRequired

from fastapi import APIRouter, Query
from pydantic import AfterValidator, ConfigDict, Field
from starlette.responses import Response
from typing_extensions import TypedDict

from service.api.bodies import JsonRoute
from service.api.dependencies import Actor, Here, Service
from service.api.problems import documented
from service.api.schemas import answers, requests
from service.core.collections import Collection
from service.core.errors import FieldError, Invalid, NotFound
from service.core.filters import And
from service.core.ids import CollectionName, DocumentId
from service.core.versions import AuditEntry, Judgments

MAX_QUERIES = 10_000
MAX_JUDGMENTS = 200_000
MAX_SCORE = 100
MAX_TOLD = 100
"""Errors of one upload that are told one by one."""
LOOK_UP = 1_000
"""Documents that are looked for at once."""

router = APIRouter(prefix="/v1/collections/{collection}/judgments", tags=["judgments"], route_class=JsonRoute)

QueryId = Annotated[requests.Text, Field(min_length=1, max_length=requests.MAX_ID_LENGTH)]
QueryText = Annotated[requests.Text, Field(min_length=1, max_length=10_000), AfterValidator(requests.not_blank)]


class _Row(requests.Wire):
    """BEIR's files have further columns (`metadata`), which are not of the test set."""

    model_config = ConfigDict(extra="ignore", populate_by_name=False)


class JudgedQueryBody(_Row):
    id: Annotated[QueryId, Field(alias="_id")]
    text: QueryText


class JudgmentBody(_Row):
    query_id: Annotated[QueryId, Field(alias="query-id")]
    corpus_id: Annotated[requests.Id, Field(alias="corpus-id")]
    score: Annotated[int, Field(ge=0, le=MAX_SCORE, description="How relevant; 0: not at all.")]


class JudgmentsBody(requests.Wire):
    queries: Annotated[list[JudgedQueryBody], Field(min_length=1, max_length=MAX_QUERIES)]
    qrels: Annotated[list[JudgmentBody], Field(min_length=1, max_length=MAX_JUDGMENTS)]

    def judgments(self, uploaded_at: datetime) -> Judgments:
        """Without the queries for which nothing is relevant. Invalid where the rows do not fit together."""
        errors = list(self._errors())
        if errors:
            more = "" if len(errors) <= MAX_TOLD else f", of which the first {MAX_TOLD} are told"
            raise Invalid(f"{len(errors)} of the rows cannot be accepted{more}", errors[:MAX_TOLD])
        grades: dict[str, dict[str, int]] = {}
        for row in self.qrels:
            grades.setdefault(row.query_id, {})[row.corpus_id] = row.score
        judged = {query.id: query.text for query in self.queries if any(grades.get(query.id, {}).values())}
        if not judged:
            raise Invalid.at("qrels", "no query has a relevant document (a score above 0)")
        return Judgments(queries=judged, grades={query: grades[query] for query in judged}, uploaded_at=uploaded_at)

    def _errors(self) -> Iterator[FieldError]:
        queries: set[str] = set()
        for at, query in enumerate(self.queries):
            if query.id in queries:
                yield FieldError(f"queries.{at}._id", "the same query twice")
            queries.add(query.id)
        pairs: set[tuple[str, str]] = set()
        for at, row in enumerate(self.qrels):
            if row.query_id not in queries:
                yield FieldError(f"qrels.{at}.query-id", "there is no such query")
            if (row.query_id, row.corpus_id) in pairs:
                yield FieldError(f"qrels.{at}", "the same query and document twice")
            pairs.add((row.query_id, row.corpus_id))


class JudgmentsQuery(requests.QueryParameters):
    full: Annotated[bool, Field(description="Show the queries and judgments themselves.")] = False


class QueryRow(TypedDict):
    _id: str
    text: str


JudgmentRow = TypedDict("JudgmentRow", {"query-id": str, "corpus-id": str, "score": int})


class SetAnswer(TypedDict):
    """As it may be uploaded again."""

    queries: list[QueryRow]
    qrels: list[JudgmentRow]


class JudgmentsAnswer(TypedDict):
    queries: int
    """That have at least one relevant document; others are dropped."""
    judgments: int
    unknown_documents: int
    """Judged documents that are not in the collection (now): no version can find them."""
    uploaded_at: str | None
    set: NotRequired[SetAnswer]


@router.post(
    "",
    summary="Upload the judgments of a collection",
    response_model=JudgmentsAnswer,
    responses=documented(400, 401, 404, 413, 415, 422, 503),
)
async def put(service: Here, actor: Actor, collection: requests.Name, body: JudgmentsBody) -> Response:
    """Replaces the whole set. Versions that wait to be promoted are measured again."""
    found = await service.collections.by_name(CollectionName(collection))
    now = datetime.now(UTC)
    judgments = body.judgments(now)
    counts = {"queries": len(judgments.queries), "judgments": _size(judgments)}
    entry = AuditEntry(at=now, actor=actor, action="judgments", details=counts)
    await service.test_sets.put(found.id, judgments, entry)
    return answers.Json(await _described(service, found, judgments))


@router.get(
    "",
    summary="The judgments of a collection",
    response_model=JudgmentsAnswer,
    responses=documented(401, 404, 422, 503),
)
async def get(service: Here, collection: requests.Name, query: Annotated[JudgmentsQuery, Query()]) -> Response:
    found = await service.collections.by_name(CollectionName(collection))
    judgments = await service.test_sets.get(found.id)
    if judgments is None:
        return answers.Json({"queries": 0, "judgments": 0, "unknown_documents": 0, "uploaded_at": None})
    shown = await _described(service, found, judgments)
    if query.full:
        shown["set"] = _set(judgments)
    return answers.Json(shown)


@router.delete(
    "",
    summary="Delete the judgments of a collection",
    status_code=204,
    response_model=None,
    responses=documented(401, 404, 422, 503),
)
async def delete(service: Here, actor: Actor, collection: requests.Name) -> Response:
    found = await service.collections.by_name(CollectionName(collection))
    if await service.test_sets.uploaded_at(found.id) is None:
        raise NotFound(f"collection {found.name} has no judgments")
    details = {"queries": 0, "judgments": 0}
    entry = AuditEntry(at=datetime.now(UTC), actor=actor, action="judgments", details=details)
    await service.test_sets.delete(found.id, entry)
    return Response(status_code=204)


async def _described(service: Service, collection: Collection, judgments: Judgments) -> JudgmentsAnswer:
    judged = {DocumentId(document) for grades in judgments.grades.values() for document in grades}
    return {
        "queries": len(judgments.queries),
        "judgments": _size(judgments),
        "unknown_documents": len(judged) - await _known(service, collection, sorted(judged)),
        "uploaded_at": judgments.uploaded_at.isoformat(),
    }


def _size(judgments: Judgments) -> int:
    return sum(map(len, judgments.grades.values()))


async def _known(service: Service, collection: Collection, ids: Sequence[DocumentId]) -> int:
    """How many of them there are. By a filter that all pass, which reads no texts."""
    everything = And(())
    known = 0
    for at in range(0, len(ids), LOOK_UP):
        known += len(await service.documents.filter_ids(collection.id, ids[at : at + LOOK_UP], everything))
    return known


def _set(judgments: Judgments) -> SetAnswer:
    return {
        "queries": [{"_id": query, "text": text} for query, text in judgments.queries.items()],
        "qrels": [
            {"query-id": query, "corpus-id": document, "score": score}
            for query, grades in judgments.grades.items()
            for document, score in grades.items()
        ],
    }
