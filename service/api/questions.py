"""What clients ask of a search, and how it becomes a request of the story."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from service.api.schemas import (
    FilterObject,
    FusionBody,
    Number,
    RerankingBody,
    Text,
    VectorField,
    Wire,
    not_blank,
    where,
)
from service.domain import Fusion, VersionNumber
from service.errors import Invalid
from service.query import Include, Mode, Request, Rerank

MAX_SEARCHES = 64
MAX_BUDGET_MS = 60_000


def _rerank(value: Any) -> Any:
    return ({} if value else None) if isinstance(value, bool) else value


class SearchBody(Wire):
    """With `query`, `vector` or both."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["query"]}, {"required": ["vector"]}]})

    query: (
        Annotated[Text, Field(min_length=1, max_length=10_000, examples=["cancel a task"]), AfterValidator(not_blank)]
        | None
    ) = None
    vector: Annotated[VectorField | None, Field(description="The query in the space of the version.")] = None
    k: Annotated[int, Field(ge=1, le=1_000, description="Most hits of the answer.")] = 10
    mode: Annotated[Mode, Field(description="Which legs run. Without `query`: `dense`.")] = "hybrid"
    filter: FilterObject | None = None
    fusion: Annotated[FusionBody, Field(description="Default: as the collection's settings say.")] | None = None
    candidates: Annotated[int, Field(ge=1, le=1_000, description="Documents that each leg brings.")] = 100
    rerank: Annotated[RerankingBody | None, BeforeValidator(_rerank, json_schema_input_type=bool | RerankingBody)] = (
        Field(None, json_schema_extra={"default": False})
    )
    exact: Annotated[bool, Field(description="Scan the vectors exactly, without their index.")] = False
    ef_search: Annotated[int, Field(ge=1, le=1_000, description="Effort of the index scan.")] | None = None
    embedder_version: Annotated[Number, Field(description="Default: the active one.")] | None = None
    group_by: Annotated[Literal["document"], Field(description="One hit a document, its best chunk.")] = "document"
    budget_ms: (
        Annotated[
            float,
            Field(gt=0, le=MAX_BUDGET_MS, description="Optional stages that would outlast it are left out, and named."),
        ]
        | None
    ) = None
    include: list[Include] = Field(["text", "metadata", "highlights"])
    explain: Annotated[bool, Field(description="Show how each hit came by its score.")] = False

    def request(self) -> Request:
        """Invalid where the filter is not one, or words are missing."""
        return Request(
            text=self.query or "",
            vector=None if self.vector is None else tuple(self.vector),
            k=self.k,
            mode=self._mode(),
            where=where(self.filter),
            fusion=None if self.fusion is None else self.fusion.over(Fusion()),
            candidates=self.candidates,
            rerank=None if self.rerank is None else Rerank(**self.rerank.model_dump(exclude_unset=True)),
            exact=self.exact,
            ef_search=self.ef_search,
            embedder_version=None if self.embedder_version is None else VersionNumber(self.embedder_version),
            budget_ms=self.budget_ms,
            # Highlights are of the query's words.
            include=frozenset(self.include if self.query else set(self.include) - {"highlights"}),
        )

    def _mode(self) -> Mode:
        if self.query is not None:
            return self.mode
        if self.vector is None:
            raise Invalid.at("query", "is required, unless there is a vector")
        if self.mode != "dense" and "mode" in self.model_fields_set:
            raise Invalid.at("query", f"is required: a {self.mode} search looks for words")
        if self.rerank is not None:
            raise Invalid.at("query", "is required: the reranker reads it")
        return "dense"


class BatchBody(Wire):
    searches: Annotated[list[SearchBody], Field(min_length=1, max_length=MAX_SEARCHES)]
