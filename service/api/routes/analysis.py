"""What vectors tell besides search: near duplicates, clusters with names, and labels for documents and texts."""

from typing import Annotated, Self

from fastapi import Body
from pydantic import Field, model_validator

from service.analysis import service as analysis
from service.api.dependencies import CollectionDep, ServiceDep
from service.api.routing import QueryRoute, collection_router
from service.api.schemas.base import DocumentIdField, FilterField, QueryText, RequestBody, in_groups, parse_filter

MAX_LABELS, MAX_EXAMPLES = 100, 2_000
"""Learning takes seconds for each, and longer with their product."""
router = collection_router("", "analysis", 409, 429, route_class=QueryRoute)

LabelField = Annotated[QueryText, Field(max_length=1_000)]


class DuplicatesBody(RequestBody):
    threshold: Annotated[float, Field(ge=-1, le=1, description="Least cosine of a pair.")] = 0.95
    limit: Annotated[int, Field(ge=1, le=1_000, description="Most pairs of the answer.")] = 100
    filter: FilterField | None = None


class ClustersBody(RequestBody):
    clusters: Annotated[int, Field(ge=2, le=100, description="Default: by the number of documents.")] | None = None
    words: Annotated[int, Field(ge=1, le=20, description="Most words of a name.")] = 5
    members: Annotated[int, Field(ge=0, le=50_000, description="Most ids of each, nearest to its centre first.")] = 10
    filter: FilterField | None = None


class LabelledBody(RequestBody):
    label: LabelField
    id: DocumentIdField | None = None
    text: QueryText | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.id is None) == (self.text is None):
            raise ValueError("give an id or a text")
        return self


class ClassificationBody(RequestBody):
    """Labels by their texts alone, or examples of them; for texts, or for documents that pass the filter."""

    labels: Annotated[list[LabelField], Field(min_length=2, max_length=MAX_LABELS)] | None = None
    examples: (
        Annotated[list[LabelledBody], Field(min_length=2, max_length=MAX_EXAMPLES), in_groups(MAX_EXAMPLES)] | None
    ) = None
    texts: Annotated[list[QueryText], Field(min_length=1, max_length=100)] | None = None
    filter: FilterField | None = None
    limit: Annotated[int, Field(ge=1, le=10_000, description="Most documents of the answer.")] = 100

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.labels is None) == (self.examples is None):
            raise ValueError("give labels or examples")
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise ValueError("a label is there twice")
        if self.examples is not None and not 2 <= len({one.label for one in self.examples}) <= MAX_LABELS:
            raise ValueError(f"give examples of 2 to {MAX_LABELS} labels")
        if self.texts is not None and self.filter is not None:
            raise ValueError("texts are not filtered: give one or the other")
        return self


@router.post("/duplicates", summary="Pairs of documents that are nearly the same")
async def duplicates(
    service: ServiceDep,
    collection: CollectionDep,
    body: Annotated[DuplicatesBody, Body(default_factory=DuplicatesBody)],
) -> analysis.Duplicates:
    """All with all, exactly, by the mean of each document's chunks. The body may be left out."""
    where = parse_filter(body.filter, collection.settings.field_types)
    return await service.analysis.duplicates(collection, where, body.threshold, body.limit)


@router.post("/clusters", summary="Groups of documents, with names")
async def clusters(
    service: ServiceDep, collection: CollectionDep, body: Annotated[ClustersBody, Body(default_factory=ClustersBody)]
) -> analysis.Clusters:
    """By k-means over the mean of each document's chunks, named by c-TF-IDF. The body may be left out."""
    where = parse_filter(body.filter, collection.settings.field_types)
    return await service.analysis.clusters(collection, where, body.clusters, body.words, body.members)


@router.post("/classify", summary="Labels for documents or texts")
async def classify(service: ServiceDep, collection: CollectionDep, body: ClassificationBody) -> analysis.Labels:
    """By the texts of labels (zero-shot), or learnt from examples, with the accuracy in cross-validation."""
    where = parse_filter(body.filter, collection.settings.field_types)
    examples = [(one.label, one.id, one.text or "") for one in body.examples or ()]
    return await service.analysis.classify(collection, body.labels or (), examples, body.texts or (), where, body.limit)
