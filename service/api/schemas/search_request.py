"""What clients send to a search, and how it becomes a request of the domain."""

import re
from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from service.api.schemas.base import (
    DocumentIdField,
    FilterField,
    ImageField,
    OneOfBody,
    QueryText,
    RequestBody,
    VectorField,
    VersionNumberField,
    in_groups,
    parse_filter,
    text_as,
)
from service.api.schemas.boosts import BoostBody, BoostList
from service.api.schemas.collections import MAX_CANDIDATES, FusionBody, RerankingBody
from service.api.schemas.result_options import (
    MAX_FIELDS,
    MAX_OFFSET,
    MAX_RANKED,
    MAX_SORT_KEYS,
    AroundField,
    FacetsField,
    FieldName,
    MinScoreField,
    SortKeyField,
    facets,
    field_name,
    one_or_several,
    text_around,
)
from service.core.collections import FusionSettings
from service.core.errors import Invalid
from service.core.examples import Example, Like
from service.core.ids import DocumentId
from service.core.query_syntax import Syntax, TypoTolerance
from service.core.result_options import MinScore
from service.core.search import Group, Include, Mode, Query, RerankRequest, SearchRequest

MAX_SEARCHES = 64
MAX_QUERIES = 16
MAX_EXAMPLES = 64
"""Positive ones, and negative ones."""
MAX_WEIGHT = 1_000
MAX_BUDGET_MS = 60_000
MAX_INCLUDED = 20
"""More than there are names, for some clients repeat them."""

MAX_REVISION = 2**63 - 1
RevisionText = Annotated[str, Field(pattern=r"^[0-9]{1,18}$")]


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value, re.ASCII) else value


Revision = Annotated[
    int, Field(ge=0, le=MAX_REVISION), BeforeValidator(_number, json_schema_input_type=int | RevisionText)
]
"""As a number, or as the text of the header that it came in."""


def _object_from_bool(value: Any) -> Any:
    """`true` stands for an object with all defaults, `false` for none."""
    if not isinstance(value, bool | dict | None):
        raise ValueError("expected true, false or an object")
    return ({} if value else None) if isinstance(value, bool) else value


class ExampleBody(OneOfBody):
    """A document by its id, a text, or a vector in the space of the version: one of the three."""

    alternatives = ("id", "text", "vector")

    id: DocumentIdField | None = None
    text: QueryText | None = None
    vector: VectorField | None = None

    def example(self) -> Example:
        return Example(id=self.id, text=self.text, vector=None if self.vector is None else tuple(self.vector))


ExampleField = Annotated[ExampleBody, text_as("id", DocumentIdField | ExampleBody)]


class LikeBody(RequestBody):
    """Hits near the positive examples and away from the negative ones."""

    positive: Annotated[list[ExampleField], Field(min_length=1, max_length=MAX_EXAMPLES, examples=[["doc-1"]])]
    negative: list[ExampleField] = Field([], max_length=MAX_EXAMPLES)

    def like(self) -> Like:
        return Like(
            positive=tuple(one.example() for one in self.positive),
            negative=tuple(one.example() for one in self.negative),
        )


class QueryBody(RequestBody):
    """One of several queries: words, a vector in the space of the version, or both."""

    query: QueryText | None = None
    vector: VectorField | None = None
    weight: Annotated[float, Field(gt=0, le=MAX_WEIGHT, description="How much it counts beside the others.")] = 1.0

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.query is None and self.vector is None:
            raise ValueError("give a query, a vector or both")
        return self

    def domain_query(self) -> Query:
        vector = None if self.vector is None else tuple(self.vector)
        return Query(text=self.query or "", vector=vector, weight=self.weight)


QueryField = Annotated[QueryBody, text_as("query", QueryText | QueryBody)]


class TyposBody(RequestBody):
    """How much words of the query that occur in no document may differ from the words that they stand for."""

    max_edits: Annotated[int, Field(ge=1, le=2, description="Letters wrong, missing, too many or swapped.")] = (
        TypoTolerance().max_edits
    )


class ResultOptionsBody(RequestBody):
    """Which documents are searched, and what the answer contains."""

    k: Annotated[int, Field(ge=1, le=1_000, description="Most hits of the answer.")] = 10
    filter: FilterField | None = None
    candidates: Annotated[
        int | None,
        Field(ge=1, le=MAX_CANDIDATES, description="Hits that each leg contributes. Default: the collection's."),
    ] = None
    exact: Annotated[bool, Field(description="Scan the vectors exactly, without their index.")] = False
    ef_search: Annotated[int | None, Field(ge=1, le=1_000, description="Effort of the index scan.")] = None
    embedder_version: Annotated[VersionNumberField | None, Field(description="Default: the active one.")] = None
    group_by: Annotated[Group, Field(description="A hit is a document with its best chunk, or a chunk.")] = "document"
    diversity: Annotated[
        float, Field(ge=0, le=1, description="How much hits should differ (MMR): 0 not at all, 1 as far as they can.")
    ] = 0.0
    budget_ms: Annotated[
        float | None,
        Field(gt=0, le=MAX_BUDGET_MS, description="Optional stages that would exceed it are left out, and named."),
    ] = None
    min_revision: Annotated[
        Revision, Field(description="`X-Azimuth-Revision` of a write: wait until it is found, or say so in `degraded`.")
    ] = 0
    include: list[Include] = Field(["text", "metadata", "highlights"], max_length=MAX_INCLUDED)
    explain: Annotated[bool, Field(description="Show how each hit got its score.")] = False
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, description="Hits that are left out before the first.")] = 0
    min_score: Annotated[
        MinScoreField | None, Field(description="A number is about `score`.", examples=[{"cosine": 0.3}])
    ] = None
    sort: Annotated[
        Annotated[list[SortKeyField], Field(min_length=1, max_length=MAX_SORT_KEYS)] | None,
        BeforeValidator(one_or_several),
        Field(description="By declared fields in place of the score.", examples=[["-year"]]),
    ] = None
    facets: FacetsField = Field([])
    context: Annotated[
        AroundField | None,
        Field(description="The text around each hit.", examples=[{"before": 1, "after": 1}, "parent"]),
    ] = None
    boost: Annotated[
        BoostList,
        BeforeValidator(one_or_several, json_schema_input_type=BoostBody | BoostList),
        Field(description="What the metadata adds to the score."),
    ] = Field([])
    fields: Annotated[
        list[FieldName] | None,
        Field(max_length=MAX_FIELDS, description="Of the metadata, in hits. Default: all.", examples=[["year"]]),
    ] = None

    def _options(self) -> SearchRequest:
        """A request with these options and nothing to search for yet. Invalid where the filter is not one."""
        return SearchRequest(
            k=self.k,
            where=parse_filter(self.filter),
            candidates=self.candidates,
            exact=self.exact,
            ef_search=self.ef_search,
            embedder_version=self.embedder_version,
            group_by=self.group_by,
            diversity=self.diversity,
            budget_ms=self.budget_ms,
            min_revision=self.min_revision,
            explain=self.explain,
            include=frozenset(self.include),
            offset=self.offset,
            min_score=None if self.min_score is None else self.min_score.min_score(),
            sort=tuple(one.sort_key(at) for at, one in enumerate(self.sort or ())),
            facets=facets(self.facets),
            around=text_around(self.context),
            boosts=tuple(one.boost(f"boost.{at}") for at, one in enumerate(self.boost)),
            fields=None if self.fields is None else tuple(field_name(one, "fields") for one in self.fields),
        )


class SimilarBody(ResultOptionsBody):
    """Documents that are similar to one document. There are no words, and so no highlights."""

    def request(self, id: DocumentId) -> SearchRequest:
        """Invalid where the filter is not one, or fields contradict each other."""
        like = Like(positive=(Example(id=id),))
        return _drop_highlights(_checked(replace(self._options(), like=like, mode="dense")))


class SearchBody(ResultOptionsBody):
    """With `query`, `vector` or both; or with several `queries`; or with examples that hits are to be `like`; or with
    `sort` alone, which lists the documents that pass the filter."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "cancel a task", "k": 3, "filter": {"kind": "function"}}]}
    )

    query: QueryText | None = None
    vector: Annotated[VectorField | None, Field(description="The query in the space of the version.")] = None
    queries: Annotated[list[QueryField], Field(min_length=2, max_length=MAX_QUERIES)] | None = None
    like: LikeBody | None = None
    image: Annotated[ImageField | None, Field(description="In place of a query; the mode is `dense`.")] = None
    mode: Annotated[Mode, Field(description="Which legs run. Without words: `dense`.")] = "hybrid"
    syntax: Annotated[
        Syntax, Field(description='Are `"a phrase"`, `+term` and `-term` in the query operators, or only words?')
    ] = "wishes"
    typos: Annotated[
        TyposBody | None, BeforeValidator(_object_from_bool, json_schema_input_type=bool | TyposBody | None)
    ] = Field(None, json_schema_extra={"default": False})
    min_confidence: Annotated[
        float | None, Field(ge=0, le=1, description="No hits where `confidence.in_domain` is below this.")
    ] = None
    fusion: Annotated[FusionBody | None, Field(description="Default: as the collection's settings say.")] = None
    rerank: Annotated[
        RerankingBody | None, BeforeValidator(_object_from_bool, json_schema_input_type=bool | RerankingBody | None)
    ] = Field(None, json_schema_extra={"default": False})

    def request(self) -> SearchRequest:
        """Invalid where the filter is not one, words are missing, or fields contradict each other."""
        request = replace(
            self._options(),
            text=self.query or "",
            vector=None if self.vector is None else tuple(self.vector),
            queries=tuple(one.domain_query() for one in self.queries or ()),
            like=None if self.like is None else self.like.like(),
            image=self.image or "",
            syntax=self.syntax,
            typos=None if self.typos is None else TypoTolerance(max_edits=self.typos.max_edits),
            min_confidence=self.min_confidence,
            fusion=None if self.fusion is None else self.fusion.apply_to(FusionSettings()),
            rerank=None if self.rerank is None else self.rerank.apply_to(RerankRequest()),
        )
        request = _checked(replace(request, mode=self._mode(request)))
        if request.mode == "lexical" and request.group_by == "chunk":
            raise Invalid.at("group_by", "lexical search finds documents: chunks need the dense leg")
        return request if any(query.text for query in request.effective_queries) else _drop_highlights(request)

    def _mode(self, request: SearchRequest) -> Mode:
        """The mode that was sent, or `dense` where there are no words and no mode was sent."""
        self._check_one_way_to_ask()
        sent = self.mode if "mode" in self.model_fields_set else None
        if request.like is not None or request.image:
            if sent not in (None, "dense"):
                raise Invalid.at("mode", f"examples and images are searched in the mode dense, not {sent}")
            if request.rerank is not None:
                raise Invalid.at("rerank", "the reranker needs a query in words")
            return "dense"
        if request.browses:
            if sent is not None:
                raise Invalid.at("mode", "nothing is searched for: give a query, or leave it out")
            return "dense"
        wordless = [at for at, query in enumerate(request.effective_queries) if not query.text]
        all_wordless = len(wordless) == len(request.effective_queries)
        place = f"queries.{wordless[0]}.query" if request.queries and wordless else "query"
        if all_wordless and request.rerank is not None:
            raise Invalid.at(place, "is required: the reranker reads it")
        if wordless and (self.mode == "lexical" or (all_wordless and sent == "hybrid")):
            raise Invalid.at(place, f"is required: a {self.mode} search looks for words")
        return "dense" if all_wordless else self.mode

    def _check_one_way_to_ask(self) -> None:
        for name in ("like", "image"):
            others = {"query", "vector", "queries", "like", "image"} - {name}
            if getattr(self, name) is not None and any(getattr(self, other) is not None for other in others):
                raise Invalid.at(name, "replaces a query: give one or the other")
        if self.queries is not None and (self.query, self.vector) != (None, None):
            raise Invalid.at("queries", "replaces query and vector: make them one of the queries")
        if (self.query, self.vector, self.queries, self.like, self.image, self.sort) == (None,) * 6:
            raise Invalid.at("query", "is required, unless there is a vector, or queries, or like, or image, or sort")


def _checked(request: SearchRequest) -> SearchRequest:
    """Invalid where what the answer shall be contradicts how it is found."""
    least = request.min_score or MinScore()
    if request.offset and request.diversity:
        raise Invalid.at("offset", "cannot be combined with diversity, which chooses the hits of one answer")
    if request.offset + request.k > MAX_RANKED and not request.browses:
        raise Invalid.at("offset", f"offset + k is at most {MAX_RANKED} where anything is searched for")
    if request.sort:
        for name, given in (("rerank", request.rerank), ("diversity", request.diversity), ("boost", request.boosts)):
            if given:
                raise Invalid.at(name, "cannot be combined with sort, which orders the hits")
    if request.browses and (request.min_score or request.min_confidence is not None):
        raise Invalid.at("sort", "lists documents, which have no scores: give a query, or no threshold")
    if least.cosine is not None and request.mode == "lexical":
        raise Invalid.at("min_score.cosine", "a lexical search has no cosine")
    if least.bm25 is not None and request.mode == "dense":
        raise Invalid.at("min_score.bm25", "a dense search has no BM25 score")
    if least.relevance is not None and request.rerank is None:
        raise Invalid.at("min_score.relevance", "needs rerank")
    return request


def _drop_highlights(request: SearchRequest) -> SearchRequest:
    """Highlights mark words of the query; without words there are none."""
    return replace(request, include=request.include - {"highlights"})


class BatchBody(RequestBody):
    searches: Annotated[list[SearchBody], Field(min_length=1, max_length=MAX_SEARCHES), in_groups(MAX_SEARCHES, size=4)]
