"""Collections and their settings, as clients send and get them."""

import re
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, TypeAdapter
from typing_extensions import TypedDict

from service.api.schemas.base import MAX_DIMENSIONS, CollectionNameField, RequestBody, Text, VersionNumberField, text_as
from service.core import filters
from service.core.collections import (
    INDEXED_STORAGES,
    ChunkingSettings,
    CollectionCounts,
    CollectionSettings,
    DeclaredField,
    EmbedderSpec,
    FieldState,
    FusionSettings,
    IndexKind,
    IndexSettings,
    MeasuredGain,
    RerankSettings,
    Storage,
    SynonymRule,
    TuningRecord,
)
from service.core.errors import Invalid
from service.core.metadata import FieldType
from service.core.ports.lexicon import LexiconState
from service.core.versions import VersionState

MAX_CANDIDATES = 1_000
MAX_SYNONYM_RULES, MAX_SYNONYMS, MAX_SYNONYM_LENGTH = 1_000, 10, 50
"""Rules of a collection, words or phrases of a list, and characters of one."""

_DEFAULTS = CollectionSettings()


class ModelBody(RequestBody):
    """A model and what decides where it places a text. An empty prompt: the model's own, where it has one."""

    model: Annotated[Text, Field(min_length=1, max_length=300)] = "default"
    revision: Annotated[Text, Field(min_length=1, max_length=100)] | None = None
    query_prompt: Annotated[Text, Field(max_length=2_000)] = ""
    document_prompt: Annotated[Text, Field(max_length=2_000)] = ""
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None = None

    def spec(self) -> EmbedderSpec:
        return EmbedderSpec(**self.model_dump(include={field.name for field in fields(EmbedderSpec)}))


class EmbedderBody(ModelBody):
    """A model and everything that decides where it places a text."""

    identity: (
        Annotated[Text, Field(min_length=1, max_length=300, description="Of `external`: what makes the vectors.")]
        | None
    ) = None


EmbedderField = Annotated[EmbedderBody, text_as("model", Annotated[str, Field(max_length=300)] | EmbedderBody)]
"""An embedder, or the name of its model alone."""


class ChunkingBody(RequestBody):
    """How documents are cut, in tokens of the embedder; null: as long as it takes. At most half a chunk overlaps."""

    max_tokens: Annotated[int, Field(ge=16, le=100_000)] | None = None
    overlap_tokens: Annotated[int, Field(ge=0, le=1_000)] = _DEFAULTS.chunking.overlap_tokens


class IndexBody(RequestBody):
    """How the vectors are stored and indexed. What is left out is as in the active version.

    `halfvec` has 16 bits a dimension, `vector` 32; `binary` indexes one bit a dimension and `scalar` four levels, in
    three bits, and both score what they find again with 16 bits.
    """

    kind: Annotated[
        IndexKind, Field(description="`vchordrq` (VectorChord), `diskann` (pgvectorscale): where the server has it.")
    ] = IndexSettings().kind
    m: Annotated[int, Field(ge=2, le=100, description="Links of each node of the HNSW graph.")] = IndexSettings().m
    ef_construction: Annotated[int, Field(ge=4, le=1_000, description="Effort of building it; at least twice `m`.")] = (
        IndexSettings().ef_construction
    )
    storage: Storage = IndexSettings().storage

    def on(self, base: IndexSettings) -> IndexSettings:
        """Invalid where the index could not be built."""
        index = self.apply_to(base)
        if index.storage not in INDEXED_STORAGES[index.kind]:
            known = " or ".join(INDEXED_STORAGES[index.kind])
            raise Invalid.at("index.storage", f"must be {known} for an index of the kind {index.kind}")
        if index.ef_construction < 2 * index.m:
            raise Invalid.at("index.ef_construction", f"must be at least twice m, which is {index.m}")
        return index


class FusionBody(RequestBody):
    """How the two legs become one ranking: `convex` reads `alpha` (the weight of dense), `rrf` reads `k`."""

    method: Literal["convex", "rrf"] = _DEFAULTS.fusion.method
    alpha: Annotated[float, Field(ge=0, le=1)] = _DEFAULTS.fusion.alpha
    k: Annotated[int, Field(ge=1, le=10_000)] = _DEFAULTS.fusion.k


class RerankingBody(RequestBody):
    """How far a cross-encoder reads, and how much it counts. What is left out is as the collection's settings say."""

    depth: Annotated[int, Field(ge=1, le=1_000, description="Hits that the cross-encoder reads.")] = (
        _DEFAULTS.rerank.depth
    )
    weight: Annotated[float, Field(ge=0, le=1, description="Its share in the final score.")] = _DEFAULTS.rerank.weight


class GainBody(RequestBody):
    """Mean nDCG@10 over held-out queries before and after, and the interval of the difference (95 %)."""

    before: Annotated[float, Field(ge=0, le=1)]
    after: Annotated[float, Field(ge=0, le=1)]
    low: Annotated[float, Field(ge=-1, le=1)]
    high: Annotated[float, Field(ge=-1, le=1)]


class TunedBody(RequestBody):
    """On what `fusion`, `candidates` and `rerank` of the same request were chosen; `azimuth tune` sends it."""

    version: Annotated[VersionNumberField, Field(description="The embedder version that answered: the active one.")]
    queries: Annotated[int, Field(ge=1, le=10_000)]
    folds: Annotated[int, Field(ge=2, le=100)]
    fusion: GainBody | None = None
    rerank: GainBody | None = None

    def record(self, now: datetime) -> TuningRecord:
        return TypeAdapter(TuningRecord).validate_python(self.model_dump() | {"at": now})


class DeclaredFieldBody(RequestBody):
    """A field of the metadata that has an index for filters: its name and the type of its values."""

    field: str
    type: FieldType | None = None

    def declared(self) -> str | DeclaredField:
        return self.field if self.type is None else DeclaredField(field=self.field, type=self.type)


def _has_word(text: str) -> str:
    if not re.search(r"[^\W_]", text):
        raise ValueError("has no letter or digit")
    return text


Synonym = Annotated[Text, AfterValidator(_has_word), Field(max_length=MAX_SYNONYM_LENGTH)]


class SynonymRuleBody(RequestBody):
    """A search for one of `from` is also one for all of `to`, but not the reverse."""

    words: Annotated[list[Synonym], Field(alias="from", min_length=1, max_length=MAX_SYNONYMS)]
    to: Annotated[list[Synonym], Field(min_length=1, max_length=MAX_SYNONYMS)]


Synonyms = Annotated[
    Annotated[list[Synonym], Field(min_length=2, max_length=MAX_SYNONYMS), Tag("group")]
    | Annotated[SynonymRuleBody, Tag("rule")],
    Discriminator(lambda value: "group" if isinstance(value, list) else "rule"),
]
"""A list of what stands for each other, or a rule in one direction."""


class CollectionBody(RequestBody):
    """Settings of a collection. What is left out keeps its value, or gets its default in a new collection."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"language": "en", "indexed": ["year"]}]})

    embedder: EmbedderField = EmbedderBody()
    language: Annotated[str, Field(max_length=32, description="Decides stemming and stop words.")] = _DEFAULTS.language
    recall_target: Annotated[float, Field(gt=0, le=1)] = _DEFAULTS.recall_target
    chunking: ChunkingBody = ChunkingBody()
    index: Annotated[IndexBody, Field(description="Of a new collection; later it is a new version.")] = IndexBody()
    fusion: FusionBody = FusionBody()
    candidates: Annotated[int, Field(ge=1, le=MAX_CANDIDATES)] = _DEFAULTS.candidates
    rerank: RerankingBody = RerankingBody()
    tuned: TunedBody | None = None
    indexed: Annotated[
        list[Annotated[DeclaredFieldBody, text_as("field", str | DeclaredFieldBody)]],
        Field(
            max_length=filters.MAX_DECLARED,
            description="Fields of the metadata that filters find by an index of their own, by name or with a type.",
            examples=[["year", {"field": "published", "type": "datetime"}]],
        ),
    ] = Field([])
    synonyms: Annotated[
        list[Synonyms],
        Field(
            max_length=MAX_SYNONYM_RULES,
            description="Words and phrases that stand for each other in the lexical leg, or for others.",
            examples=[[["car", "automobile"], {"from": ["tv"], "to": ["television"]}]],
        ),
    ] = Field([])

    def settings(self, base: CollectionSettings, now: datetime) -> CollectionSettings:
        """`base` with the fields changed that the client sent. An embedder is one value and is replaced as a whole.

        The record of tuning is dropped where the ranking changes without a new record.
        """
        changes: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set - {"index"}}
        for name in changes.keys() & {"chunking", "fusion", "rerank"}:
            changes[name] = changes[name].apply_to(getattr(base, name))
        if "embedder" in changes:
            changes["embedder"] = self.embedder.spec()
        if "indexed" in changes:
            changes["indexed"] = filters.declared([one.declared() for one in self.indexed], "indexed")
        if "synonyms" in changes:
            changes["synonyms"] = tuple(
                SynonymRule(words=tuple(one))
                if isinstance(one, list)
                else SynonymRule(words=tuple(one.words), to=tuple(one.to))
                for one in self.synonyms
            )
        if self.tuned is not None:
            changes["tuned"] = self.tuned.record(now)
        changed = replace(base, **changes)
        if "tuned" not in changes and _ranking(changed) != _ranking(base):
            changed = replace(changed, tuned=None)
        return changed


def _ranking(settings: CollectionSettings) -> tuple[FusionSettings, int, RerankSettings]:
    """The settings that a record of tuning is about."""
    return settings.fusion, settings.candidates, settings.rerank


class TunedAnswer(TypedDict):
    version: int
    at: datetime
    queries: int
    folds: int
    fusion: MeasuredGain | None
    """What fusion and candidates gained; null where they were left as they were."""
    rerank: MeasuredGain | None
    outdated: bool
    """Another embedder version is active now: tune again."""


SynonymRuleAnswer = TypedDict("SynonymRuleAnswer", {"from": Sequence[str], "to": Sequence[str]})


def settings_as_sent(settings: CollectionSettings) -> dict[str, Any]:
    """All settings, in the form in which a PUT takes them."""
    synonyms = [{"from": one.words, "to": one.to} if one.to else one.words for one in settings.synonyms]
    return asdict(settings) | {"synonyms": synonyms}


class SettingsAnswer(TypedDict):
    embedder: EmbedderSpec
    language: str
    recall_target: float
    chunking: ChunkingSettings
    fusion: FusionSettings
    candidates: int
    rerank: RerankSettings
    tuned: TunedAnswer | None
    """On what fusion, candidates and rerank were chosen; null where they are the defaults or were set by hand."""
    indexed: list[str | DeclaredField]
    synonyms: list[Sequence[str] | SynonymRuleAnswer]


class FieldAnswer(TypedDict):
    field: str
    state: FieldState
    """`building`: filters look at the documents instead, until it is `ready`."""


class VersionSummary(TypedDict):
    number: int
    state: VersionState
    fingerprint: str


class CollectionAnswer(TypedDict):
    name: str
    settings: SettingsAnswer
    fields: list[FieldAnswer]
    """The declared fields (`settings.indexed`), and whether filters can use their indexes yet."""
    counts: CollectionCounts
    active_version: int
    previous_version: int | None
    """The version that a roll back would make active again."""
    versions: list[VersionSummary]
    lexical_state: LexiconState
    """`rebuilding`: the former index answers until the new one is complete."""
    lexical_lag_seconds: float | None
    """Age of the oldest committed change that lexical search cannot see yet; null while it is not known."""
    created_at: datetime


class CollectionsAnswer(TypedDict):
    collections: list[CollectionAnswer]


class NameBody(RequestBody):
    name: CollectionNameField


class AliasBody(RequestBody):
    collection: CollectionNameField


class AliasAction(RequestBody):
    alias: CollectionNameField
    collection: CollectionNameField | None


class AliasesBody(RequestBody):
    actions: Annotated[list[AliasAction], Field(min_length=1, max_length=100)]


class AliasAnswer(TypedDict):
    alias: str
    collection: str


class AliasesAnswer(TypedDict):
    aliases: list[AliasAnswer]
