"""What clients ask of a search, and how it becomes a request of the story."""

from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from service.api.schemas.requests import (
    MAX_CANDIDATES,
    FilterObject,
    FusionBody,
    Id,
    Number,
    RerankingBody,
    Text,
    VectorField,
    Wire,
    not_blank,
    where,
)
from service.core.collections import FusionSettings
from service.core.errors import Invalid
from service.core.ids import DocumentId, VersionNumber
from service.core.query_syntax import Syntax, TypoTolerance
from service.core.search import Example, Group, Include, Like, Mode, Query, RerankRequest, SearchRequest

MAX_SEARCHES = 64
MAX_QUERIES = 16
MAX_EXAMPLES = 64
"""Positive ones, and negative ones."""
MAX_WEIGHT = 1_000
MAX_BUDGET_MS = 60_000


def _rerank(value: Any) -> Any:
    return ({} if value else None) if isinstance(value, bool) else value


Question = Annotated[
    Text, Field(min_length=1, max_length=10_000, examples=["cancel a task"]), AfterValidator(not_blank)
]


class ExampleBody(Wire):
    """A document by its id, a text, or a vector in the space of the version: one of the three."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["id"]}, {"required": ["text"]}, {"required": ["vector"]}]}
    )

    id: Id | None = None
    text: Question | None = None
    vector: VectorField | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(one is not None for one in (self.id, self.text, self.vector)) != 1:
            raise ValueError("give either an id, a text or a vector")
        return self

    def example(self) -> Example:
        return Example(
            id=None if self.id is None else DocumentId(self.id),
            text=self.text,
            vector=None if self.vector is None else tuple(self.vector),
        )


def _named(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


Examples = list[Annotated[ExampleBody, BeforeValidator(_named, json_schema_input_type=Id | ExampleBody)]]


class LikeBody(Wire):
    """Hits near the positive examples and away from the negative ones."""

    positive: Annotated[Examples, Field(min_length=1, max_length=MAX_EXAMPLES, examples=[["doc-1"]])]
    negative: Examples = Field([], max_length=MAX_EXAMPLES)

    def like(self) -> Like:
        return Like(
            positive=tuple(one.example() for one in self.positive),
            negative=tuple(one.example() for one in self.negative),
        )


class QueryBody(Wire):
    """One of several queries: words, a vector in the space of the version, or both."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["query"]}, {"required": ["vector"]}]})

    query: Question | None = None
    vector: VectorField | None = None
    weight: Annotated[float, Field(gt=0, le=MAX_WEIGHT, description="How much it counts beside the others.")] = 1.0

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.query is None and self.vector is None:
            raise ValueError("give a query, a vector or both")
        return self

    def asked(self) -> Query:
        vector = None if self.vector is None else tuple(self.vector)
        return Query(text=self.query or "", vector=vector, weight=self.weight)


class TyposBody(Wire):
    """How words that no document says may differ from those that they stand for."""

    max_edits: Annotated[int, Field(ge=1, le=2, description="Letters wrong, missing, too many or swapped.")] = (
        TypoTolerance().max_edits
    )


def _typos(value: Any) -> Any:
    return ({} if value else None) if isinstance(value, bool) else value


def _worded(value: Any) -> Any:
    return {"query": value} if isinstance(value, str) else value


Queries = list[Annotated[QueryBody, BeforeValidator(_worded, json_schema_input_type=Question | QueryBody)]]


class AnswerBody(Wire):
    """Among what is looked, and what the answer is to be like."""

    k: Annotated[int, Field(ge=1, le=1_000, description="Most hits of the answer.")] = 10
    filter: FilterObject | None = None
    candidates: (
        Annotated[
            int,
            Field(ge=1, le=MAX_CANDIDATES, description="Hits that each leg brings. Default: the collection's."),
        ]
        | None
    ) = None
    exact: Annotated[bool, Field(description="Scan the vectors exactly, without their index.")] = False
    ef_search: Annotated[int, Field(ge=1, le=1_000, description="Effort of the index scan.")] | None = None
    embedder_version: Annotated[Number, Field(description="Default: the active one.")] | None = None
    group_by: Annotated[Group, Field(description="A hit is a document with its best chunk, or a chunk.")] = "document"
    diversity: Annotated[
        float, Field(ge=0, le=1, description="How much hits should differ (MMR): 0 not at all, 1 as far as they can.")
    ] = 0.0
    budget_ms: (
        Annotated[
            float,
            Field(gt=0, le=MAX_BUDGET_MS, description="Optional stages that would outlast it are left out, and named."),
        ]
        | None
    ) = None
    include: list[Include] = Field(["text", "metadata", "highlights"])
    explain: Annotated[bool, Field(description="Show how each hit came by its score.")] = False

    def _shaped(self) -> SearchRequest:
        """All of a request but what is asked. Invalid where the filter is not one."""
        return SearchRequest(
            k=self.k,
            where=where(self.filter),
            candidates=self.candidates,
            exact=self.exact,
            ef_search=self.ef_search,
            embedder_version=None if self.embedder_version is None else VersionNumber(self.embedder_version),
            group_by=self.group_by,
            diversity=self.diversity,
            budget_ms=self.budget_ms,
            include=frozenset(self.include),
        )


class SimilarBody(AnswerBody):
    """What is like one document. There are no words, and so no highlights."""

    def request(self, id: str) -> SearchRequest:
        """Invalid where the filter is not one."""
        like = Like(positive=(Example(id=DocumentId(id)),))
        return _without_highlights(replace(self._shaped(), like=like, mode="dense"))


class SearchBody(AnswerBody):
    """With `query`, `vector` or both; or with several `queries`; or with examples that hits are to be `like`."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name]} for name in ("query", "vector", "queries", "like")]}
    )

    query: Question | None = None
    vector: Annotated[VectorField | None, Field(description="The query in the space of the version.")] = None
    queries: Annotated[Queries, Field(min_length=2, max_length=MAX_QUERIES)] | None = None
    like: LikeBody | None = None
    mode: Annotated[Mode, Field(description="Which legs run. Without words: `dense`.")] = "hybrid"
    syntax: Annotated[
        Syntax, Field(description='Are `"a phrase"`, `+term` and `-term` in the query wishes, or only words?')
    ] = "wishes"
    typos: Annotated[TyposBody | None, BeforeValidator(_typos, json_schema_input_type=bool | TyposBody)] = Field(
        None, json_schema_extra={"default": False}
    )
    min_confidence: Annotated[
        float | None, Field(ge=0, le=1, description="No hits where `confidence.in_domain` is below this.")
    ] = None
    fusion: Annotated[FusionBody, Field(description="Default: as the collection's settings say.")] | None = None
    rerank: Annotated[RerankingBody | None, BeforeValidator(_rerank, json_schema_input_type=bool | RerankingBody)] = (
        Field(None, json_schema_extra={"default": False})
    )

    def request(self) -> SearchRequest:
        """Invalid where the filter is not one, words are missing, or parts do not go together."""
        request = replace(
            self._shaped(),
            text=self.query or "",
            vector=None if self.vector is None else tuple(self.vector),
            queries=tuple(one.asked() for one in self.queries or ()),
            like=None if self.like is None else self.like.like(),
            syntax=self.syntax,
            typos=None if self.typos is None else TypoTolerance(max_edits=self.typos.max_edits),
            min_confidence=self.min_confidence,
            fusion=None if self.fusion is None else self.fusion.over(FusionSettings()),
            rerank=None if self.rerank is None else RerankRequest(**self.rerank.model_dump(exclude_unset=True)),
        )
        request = replace(request, mode=self._mode(request))
        if request.mode == "lexical" and request.group_by == "chunk":
            raise Invalid.at("group_by", "words find documents: chunks need the dense leg")
        # Highlights are of the query's words.
        return request if any(query.text for query in request.effective_queries) else _without_highlights(request)

    def _mode(self, request: SearchRequest) -> Mode:
        """As it is asked for, or as it has to be where words are missing."""
        self._one_way_to_ask()
        named = self.mode if "mode" in self.model_fields_set else None
        if request.like is not None:
            if named not in (None, "dense"):
                raise Invalid.at("mode", f"examples have a place, but no words: they are for dense, not for {named}")
            if request.rerank is not None:
                raise Invalid.at("rerank", "the reranker reads a query, and examples are none")
            return "dense"
        unworded = [at for at, query in enumerate(request.effective_queries) if not query.text]
        all_unworded = len(unworded) == len(request.effective_queries)
        place = f"queries.{unworded[0]}.query" if request.queries and unworded else "query"
        if all_unworded and request.rerank is not None:
            raise Invalid.at(place, "is required: the reranker reads it")
        if unworded and (self.mode == "lexical" or (all_unworded and named == "hybrid")):
            raise Invalid.at(place, f"is required: a {self.mode} search looks for words")
        return "dense" if all_unworded else self.mode

    def _one_way_to_ask(self) -> None:
        if self.like is not None and (self.query, self.vector, self.queries) != (None, None, None):
            raise Invalid.at("like", "takes the place of a query: give one or the other")
        if self.queries is not None and (self.query, self.vector) != (None, None):
            raise Invalid.at("queries", "takes the place of query and vector: make them one of the queries")
        if (self.query, self.vector, self.queries, self.like) == (None, None, None, None):
            raise Invalid.at("query", "is required, unless there is a vector, or queries, or like")


def _without_highlights(request: SearchRequest) -> SearchRequest:
    return replace(request, include=request.include - {"highlights"})


class BatchBody(Wire):
    searches: Annotated[list[SearchBody], Field(min_length=1, max_length=MAX_SEARCHES)]
