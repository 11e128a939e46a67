"""What clients send, and how it becomes domain values. Nothing is coerced: "3" is no number, an unknown field an error.

What they get is in `answers`. Limits that an operator can set are not here but in `ingest.Limits`.
"""

from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from service import filters, ingest
from service.domain import (
    Chunking,
    CollectionSettings,
    Document,
    DocumentId,
    EmbedderSpec,
    Filter,
    Fusion,
    VersionNumber,
)
from service.query import Include, Mode, Request, Rerank

MAX_ID_LENGTH = ingest.Limits().id_length
MAX_SEARCHES = 64
MAX_PAGE = 1_000
MAX_DELETED = 1_000
MAX_FILTER_IN_URL = 4_096
MAX_DIMENSIONS = 4_000
"""What pgvector's halfvec can index."""
MAX_BUDGET_MS = 60_000

NAME_PATTERN = "^[a-z0-9][a-z0-9_-]{0,62}$"
EXAMPLE_FILTER = {"year": {"$gte": 2019}}


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains a NUL character")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Id = Annotated[Text, Field(min_length=1, max_length=MAX_ID_LENGTH, description="Any text, unique in its collection.")]
Name = Annotated[str, Field(pattern=NAME_PATTERN, description="Name of a collection.", examples=["papers"])]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
FilterObject = Annotated[
    dict[str, Any],
    Field(
        description="Fields of the metadata and what must hold of them: `$eq $ne $gt $gte $lt $lte $in $nin $exists "
        "$contains`, combined by `$and $or $not`; nested fields by dots.",
        examples=[EXAMPLE_FILTER],
    ),
]


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


# ---------------------------------------------------------------- collections


class EmbedderBody(Wire):
    """A model and everything that decides where it puts a text."""

    model: Annotated[Text, Field(min_length=1, max_length=300)] = "default"
    revision: Annotated[Text, Field(min_length=1, max_length=100)] | None = None
    query_prompt: Annotated[Text, Field(max_length=2_000)] = ""
    document_prompt: Annotated[Text, Field(max_length=2_000)] = ""
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None = None

    def spec(self) -> EmbedderSpec:
        return EmbedderSpec(**self.model_dump())


def _embedder(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class ChunkingBody(Wire):
    """How documents are cut, in tokens of the embedder; null: as long as it takes. At most half a chunk overlaps."""

    max_tokens: Annotated[int, Field(ge=16, le=100_000)] | None = None
    overlap_tokens: Annotated[int, Field(ge=0, le=1_000)] = Chunking().overlap_tokens


class FusionBody(Wire):
    """How the two legs become one ranking: `convex` reads `alpha` (the weight of dense), `rrf` reads `k`."""

    method: Literal["convex", "rrf"] = "convex"
    alpha: Annotated[float, Field(ge=0, le=1)] = Fusion().alpha
    k: Annotated[int, Field(ge=1, le=10_000)] = Fusion().k

    def over(self, base: Fusion) -> Fusion:
        """`base` with what the client named changed."""
        return replace(base, **self.model_dump(exclude_unset=True))


class CollectionBody(Wire):
    """Settings of a collection. What is left out keeps its value, or gets its default in a new collection."""

    embedder: Annotated[
        EmbedderBody,
        BeforeValidator(_embedder, json_schema_input_type=Annotated[str, Field(max_length=300)] | EmbedderBody),
    ] = EmbedderBody()
    language: Annotated[str, Field(max_length=32, description="Decides stemming and stop words.")] = (
        CollectionSettings().language
    )
    recall_target: Annotated[float, Field(gt=0, le=1)] = CollectionSettings().recall_target
    chunking: ChunkingBody = ChunkingBody()
    fusion: FusionBody = FusionBody()

    def over(self, base: CollectionSettings) -> CollectionSettings:
        """`base` with what the client named changed. An embedder is one value: it is replaced as a whole."""
        named: dict[str, Any] = {field: getattr(self, field) for field in self.model_fields_set}
        if "embedder" in named:
            named["embedder"] = self.embedder.spec()
        if "chunking" in named:
            named["chunking"] = replace(base.chunking, **self.chunking.model_dump(exclude_unset=True))
        if "fusion" in named:
            named["fusion"] = self.fusion.over(base.fusion)
        return replace(base, **named)


# ---------------------------------------------------------------- documents


class DocumentBody(Wire):
    """One document. It needs a text or at least a title."""

    id: Id
    title: str = ""
    text: str = ""
    metadata: dict[str, Any] = {}

    def document(self) -> Document:
        return Document(id=DocumentId(self.id), title=self.title, text=self.text, metadata=self.metadata)


class DocumentsBody(Wire):
    documents: Annotated[list[DocumentBody], Field(min_length=1)]


class DeletionBody(Wire):
    """Either `ids` or `filter`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["ids"]}, {"required": ["filter"]}]})

    ids: Annotated[list[Id], Field(max_length=MAX_DELETED)] | None = None
    filter: FilterObject | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either ids or filter")
        return self


class _Query(BaseModel):
    """Parameters of a query string, where everything is text: read as what it says, but nothing unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Cursor = Annotated[str, Field(max_length=8 * MAX_ID_LENGTH, description="`next_cursor` of the page before.")]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]


class WriteQuery(_Query):
    wait: Annotated[bool, Field(description="Answer when both legs can find the documents.")] = False


class PageQuery(_Query):
    cursor: Cursor | None = None
    limit: Limit = 100


class ListQuery(PageQuery):
    filter: (
        Annotated[
            str,
            Field(max_length=MAX_FILTER_IN_URL, description="A filter as JSON.", examples=['{"year": {"$gte": 2019}}']),
        ]
        | None
    ) = None


# ---------------------------------------------------------------- search


class RerankBody(Wire):
    depth: Annotated[int, Field(ge=1, le=1_000, description="Hits that the cross-encoder reads.")] = Rerank().depth
    weight: Annotated[float, Field(ge=0, le=1, description="Its share in the final score.")] = Rerank().weight


def _rerank(value: Any) -> Any:
    return ({} if value else None) if isinstance(value, bool) else value


class SearchBody(Wire):
    query: Annotated[
        Text, Field(min_length=1, max_length=10_000, examples=["cancel a task"]), AfterValidator(_not_blank)
    ]
    k: Annotated[int, Field(ge=1, le=1_000, description="Most hits of the answer.")] = 10
    mode: Annotated[Mode, Field(description="Which legs run.")] = "hybrid"
    filter: FilterObject | None = None
    fusion: Annotated[FusionBody, Field(description="Default: as the collection's settings say.")] | None = None
    candidates: Annotated[int, Field(ge=1, le=1_000, description="Documents that each leg brings.")] = 100
    rerank: Annotated[RerankBody | None, BeforeValidator(_rerank, json_schema_input_type=bool | RerankBody)] = Field(
        None, json_schema_extra={"default": False}
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
    include: list[Include] = ["text", "metadata", "highlights"]
    explain: Annotated[bool, Field(description="Show how each hit came by its score.")] = False

    def request(self) -> Request:
        """Invalid where the filter is not one."""
        return Request(
            text=self.query,
            k=self.k,
            mode=self.mode,
            where=where(self.filter),
            fusion=None if self.fusion is None else self.fusion.over(Fusion()),
            candidates=self.candidates,
            rerank=None if self.rerank is None else Rerank(depth=self.rerank.depth, weight=self.rerank.weight),
            exact=self.exact,
            ef_search=self.ef_search,
            embedder_version=None if self.embedder_version is None else VersionNumber(self.embedder_version),
            budget_ms=self.budget_ms,
            include=frozenset(self.include),
        )


class BatchBody(Wire):
    searches: Annotated[list[SearchBody], Field(min_length=1, max_length=MAX_SEARCHES)]


def where(raw: Any) -> Filter | None:
    """A filter of the wire; Invalid with the exact place in it. An empty one means none."""
    return filters.parse(raw) if raw else None
