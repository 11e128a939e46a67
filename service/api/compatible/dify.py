"""Dify's external knowledge: its applications search a collection."""

import re
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from service.api.bodies import JsonResponse
from service.api.compatible.encoding import text_list
from service.api.dependencies import ServiceDep
from service.api.routes.search import with_budget
from service.api.routing import other_api_router
from service.api.schemas.base import QueryText, RequestBody, Text, parse_filter
from service.core.errors import Invalid
from service.core.ids import CollectionName
from service.core.search import RerankRequest, SearchRequest

router = other_api_router(404, 409)

_OPERATORS: Final = {
    "is": "$eq",
    "is not": "$ne",
    "=": "$eq",
    "≠": "$ne",
    ">": "$gt",
    "<": "$lt",
    "≥": "$gte",
    "≤": "$lte",
    "after": "$gt",
    "before": "$lt",
    "in": "$in",
    "not in": "$nin",
    "contains": "$contains",
    "not contains": "$contains",
}
_Names = Annotated[list[Text], Field(min_length=1, max_length=10)]
_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,15})?")


class RetrievalSettingBody(RequestBody):
    top_k: Annotated[int, Field(ge=1, le=1_000)] = 10
    score_threshold: float | None = None


class ConditionBody(RequestBody):
    """What one of the fields `name` has to be."""

    name: Annotated[_Names, BeforeValidator(text_list, _Names | str)]
    comparison_operator: Text
    value: str | float | int | Annotated[list[str], Field(max_length=1_000)] | None = None

    def filter(self) -> dict[str, Any]:
        """In our own words. Invalid where there is no such operator."""
        operator, value = self.comparison_operator, self.value
        if operator in ("empty", "not empty"):
            condition: dict[str, Any] = {"$exists": operator == "not empty"}
        elif operator in _OPERATORS:
            if len(operator) == 1 and isinstance(value, str) and _NUMBER.fullmatch(value):
                value = float(value)  # Dify may send a number as it was typed
            condition = {_OPERATORS[operator]: value}
        else:
            raise Invalid.at("metadata_condition", f"there is no operator {operator!r} here")
        wanted = {"$or": [{name: condition} for name in self.name]}
        return {"$not": wanted} if operator == "not contains" else wanted


class ConditionsBody(RequestBody):
    logical_operator: Literal["and", "or"] = "and"
    conditions: Annotated[list[ConditionBody], Field(max_length=100)] = Field([])


class RetrievalBody(RequestBody):
    """`knowledge_id` is the name of a collection."""

    knowledge_id: Annotated[Text, Field(max_length=63)]
    query: QueryText
    retrieval_setting: RetrievalSettingBody = RetrievalSettingBody()
    metadata_condition: ConditionsBody = ConditionsBody()

    def request(self) -> SearchRequest:
        """A search whose hits have what a score is made of."""
        parts = [one.filter() for one in self.metadata_condition.conditions]
        where = parse_filter({f"${self.metadata_condition.logical_operator}": parts} if parts else {})
        included: frozenset[Any] = frozenset({"text", "metadata"})
        k = self.retrieval_setting.top_k
        return SearchRequest(text=self.query, k=k, where=where, explain=True, include=included)


@router.post("/retrieval", summary="Search a collection, in the shape of Dify", response_model=dict[str, Any])
async def retrieval(service: ServiceDep, request: Request, body: RetrievalBody) -> Response:
    """Scores mean the same in all answers: the `relevance` of the hits, or their cosine where not all have one.

    `X-Azimuth-Score` says which. Hits with a score below `score_threshold` are left out.
    """
    collection, search_request = CollectionName(body.knowledge_id), with_budget(service, body.request())
    if service.reranker is not None:
        search_request = replace(search_request, rerank=RerankRequest())
    result = await service.search.run(collection, search_request)
    service.shadow.add(collection, search_request)
    request.state.searches = (result.timings,)
    judged = all(hit.relevance is not None for hit in result.hits)
    cosines = [max(0.0, leg.score) if (leg := hit.explanation.dense) else 0.0 for hit in result.hits]
    records = [
        {"content": hit.text, "score": score, "title": hit.title, "metadata": {"id": hit.id, **hit.metadata}}
        for hit, cosine in zip(result.hits, cosines, strict=True)
        if (score := (hit.relevance or 0.0) if judged else cosine) >= (body.retrieval_setting.score_threshold or 0.0)
    ]
    headers = {"X-Azimuth-Score": "relevance" if judged else "cosine"}
    return JsonResponse({"records": records}, headers=headers)
