"""What clients send, and how it becomes domain values. Nothing is coerced: "3" is no number, an unknown field an error.

What they get is in `answers`. Limits that an operator can set are not here but in `ingest.Limits`.
"""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from service.core import filters
from service.core.collections import (
    ChunkingSettings,
    CollectionSettings,
    EmbedderSpec,
    FusionSettings,
    MeasuredGain,
    RerankSettings,
    TuningRecord,
)
from service.core.documents import Document
from service.core.filters import Filter
from service.core.ids import DocumentId, VersionNumber
from service.ingest.validation import DocumentLimits

MAX_ID_LENGTH = DocumentLimits().id_length
MAX_PAGE = 1_000
MAX_DELETED = 1_000
MAX_FILTER_IN_URL = 4_096
MAX_DIMENSIONS = 4_000
"""What pgvector's halfvec can index."""
MAX_CANDIDATES = 1_000
MAX_TUNED_QUERIES = 10_000
MAX_FOLDS = 100

NAME_PATTERN = "^[a-z0-9][a-z0-9_-]{0,62}$"
EXAMPLE_FILTER = {"year": {"$gte": 2019}}


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains a NUL character")
    return text


def not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Id = Annotated[Text, Field(min_length=1, max_length=MAX_ID_LENGTH, description="Any text, unique in its collection.")]
Name = Annotated[str, Field(pattern=NAME_PATTERN, description="Name of a collection.", examples=["papers"])]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
VectorField = Annotated[
    list[float],
    Field(
        min_length=1,
        max_length=MAX_DIMENSIONS,
        fail_fast=True,  # one reason is enough: thousands of wrong numbers must not become thousands of errors
        description="As many numbers as the version has dimensions; of any length but zero.",
    ),
]
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
    identity: (
        Annotated[Text, Field(min_length=1, max_length=300, description="Of `external`: what makes the vectors.")]
        | None
    ) = None

    def spec(self) -> EmbedderSpec:
        return EmbedderSpec(**self.model_dump())


def embedder_input(value: Any) -> Any:
    """An embedder may be named by its model alone."""
    return {"model": value} if isinstance(value, str) else value


class ChunkingBody(Wire):
    """How documents are cut, in tokens of the embedder; null: as long as it takes. At most half a chunk overlaps."""

    max_tokens: Annotated[int, Field(ge=16, le=100_000)] | None = None
    overlap_tokens: Annotated[int, Field(ge=0, le=1_000)] = ChunkingSettings().overlap_tokens

    def over(self, base: ChunkingSettings) -> ChunkingSettings:
        """`base` with what the client named changed."""
        return replace(base, **self.model_dump(exclude_unset=True))


class FusionBody(Wire):
    """How the two legs become one ranking: `convex` reads `alpha` (the weight of dense), `rrf` reads `k`."""

    method: Literal["convex", "rrf"] = "convex"
    alpha: Annotated[float, Field(ge=0, le=1)] = FusionSettings().alpha
    k: Annotated[int, Field(ge=1, le=10_000)] = FusionSettings().k

    def over(self, base: FusionSettings) -> FusionSettings:
        """`base` with what the client named changed."""
        return replace(base, **self.model_dump(exclude_unset=True))


class RerankingBody(Wire):
    """How far a cross-encoder reads, and how much it counts. What is left out is as the collection's settings say."""

    depth: Annotated[int, Field(ge=1, le=1_000, description="Hits that the cross-encoder reads.")] = (
        RerankSettings().depth
    )
    weight: Annotated[float, Field(ge=0, le=1, description="Its share in the final score.")] = RerankSettings().weight

    def over(self, base: RerankSettings) -> RerankSettings:
        """`base` with what the client named changed."""
        return replace(base, **self.model_dump(exclude_unset=True))


class GainBody(Wire):
    """Mean nDCG@10 over held-out queries before and after, and the interval of the difference (95 %)."""

    before: Annotated[float, Field(ge=0, le=1)]
    after: Annotated[float, Field(ge=0, le=1)]
    low: Annotated[float, Field(ge=-1, le=1)]
    high: Annotated[float, Field(ge=-1, le=1)]


class TunedBody(Wire):
    """On what `fusion`, `candidates` and `rerank` of the same request were chosen; `azimuth tune` sends it."""

    version: Annotated[Number, Field(description="The embedder version that answered; the one that is active.")]
    queries: Annotated[int, Field(ge=1, le=MAX_TUNED_QUERIES)]
    folds: Annotated[int, Field(ge=2, le=MAX_FOLDS)]
    fusion: GainBody | None = None
    rerank: GainBody | None = None

    def tuned(self, now: datetime) -> TuningRecord:
        return TuningRecord(
            version=VersionNumber(self.version),
            at=now,
            queries=self.queries,
            folds=self.folds,
            fusion=None if self.fusion is None else MeasuredGain(**self.fusion.model_dump()),
            rerank=None if self.rerank is None else MeasuredGain(**self.rerank.model_dump()),
        )


class CollectionBody(Wire):
    """Settings of a collection. What is left out keeps its value, or gets its default in a new collection."""

    embedder: Annotated[
        EmbedderBody,
        BeforeValidator(embedder_input, json_schema_input_type=Annotated[str, Field(max_length=300)] | EmbedderBody),
    ] = EmbedderBody()
    language: Annotated[str, Field(max_length=32, description="Decides stemming and stop words.")] = (
        CollectionSettings().language
    )
    recall_target: Annotated[float, Field(gt=0, le=1)] = CollectionSettings().recall_target
    chunking: ChunkingBody = ChunkingBody()
    fusion: FusionBody = FusionBody()
    candidates: Annotated[int, Field(ge=1, le=MAX_CANDIDATES)] = CollectionSettings().candidates
    rerank: RerankingBody = RerankingBody()
    tuned: TunedBody | None = None
    indexed: Annotated[
        list[str],
        Field(
            max_length=filters.MAX_DECLARED,
            description="Fields of the metadata that filters find by an index of their own; nested ones by dots.",
            examples=[["year", "author.name"]],
        ),
    ] = []

    def over(self, base: CollectionSettings, now: datetime) -> CollectionSettings:
        """`base` with what the client named changed. An embedder is one value: it is replaced as a whole.

        What the ranking was tuned on is forgotten where the ranking becomes another without such evidence.
        """
        named: dict[str, Any] = {field: getattr(self, field) for field in self.model_fields_set}
        if "embedder" in named:
            named["embedder"] = self.embedder.spec()
        if "chunking" in named:
            named["chunking"] = self.chunking.over(base.chunking)
        if "fusion" in named:
            named["fusion"] = self.fusion.over(base.fusion)
        if "rerank" in named:
            named["rerank"] = self.rerank.over(base.rerank)
        if "indexed" in named:
            named["indexed"] = filters.declared(self.indexed, "indexed")
        if self.tuned is not None:
            named["tuned"] = self.tuned.tuned(now)
        changed = replace(base, **named)
        if "tuned" not in named and ranking(changed) != ranking(base):
            changed = replace(changed, tuned=None)
        return changed


def ranking(settings: CollectionSettings) -> tuple[FusionSettings, int, RerankSettings]:
    """The settings that `tuned` speaks of."""
    return settings.fusion, settings.candidates, settings.rerank


# ---------------------------------------------------------------- documents


class DocumentBody(Wire):
    """One document. It needs a text or at least a title."""

    id: Id
    title: str = ""
    text: str = ""
    metadata: dict[str, Any] = {}
    vector: VectorField | None = None

    def document(self) -> Document:
        return Document(
            id=DocumentId(self.id),
            title=self.title,
            text=self.text,
            metadata=self.metadata,
            vector=None if self.vector is None else tuple(self.vector),
        )


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


class QueryParameters(BaseModel):
    """Parameters of a query string, where everything is text: read as what it says, but nothing unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Cursor = Annotated[str, Field(max_length=8 * MAX_ID_LENGTH, description="`next_cursor` of the page before.")]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]


class WriteQuery(QueryParameters):
    wait: Annotated[bool, Field(description="Answer when both legs can find the documents.")] = False
    embedder_version: (
        Annotated[Number, Field(description="Which version the documents' vectors are of. Default: the external one.")]
        | None
    ) = None


class PageQuery(QueryParameters):
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


def where(raw: Any) -> Filter | None:
    """A filter of the wire; Invalid with the exact place in it. An empty one means none."""
    return filters.parse(raw) if raw else None
