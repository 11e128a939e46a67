"""What the vectors of a collection tell besides search: near duplicates, groups with names, labels.

Read is the mean direction of each document's chunks, of the documents that the caller may see and its filter admits.
The rest runs in a child process, one computation at a time (`duplicates.py`, `clusters.py`, `classify.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.analysis import classify, clusters, duplicates
from service.core.child_process import ComputationTurns
from service.core.collections import Collection
from service.core.errors import Conflict, FieldError, Invalid
from service.core.filters import And, Filter
from service.core.ids import DocumentId, Role, Vectors, VersionNumber
from service.core.ports.documents import Documents
from service.core.ports.vectors import VectorStore
from service.core.ports.versions import Versions
from service.core.vector_math import finite, unit_rows
from service.core.versions import EmbedderVersion
from service.spaces.sampling import CollectionSampler

MAX_DOCUMENTS, MAX_VALUES = 50_000, 16_000_000
"""Documents that one computation reads, and numbers that their vectors have: 64 MB."""
NAMING_DOCUMENTS, NAMING_CHARACTERS = 2_000, 2_000
"""Documents whose texts name clusters, and what is read of each."""
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Pair:
    ids: tuple[DocumentId, DocumentId]
    score: float


@dataclass(frozen=True, slots=True)
class Duplicates:
    """`compared`: documents, each with each; `complete`: there are no others that pass. `count`: pairs that reach the
    threshold, of which `pairs` are the nearest."""

    version: VersionNumber
    compared: int
    complete: bool
    count: int
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class NamedCluster:
    """`words`: what tells it from the others, best first. `ids`: of all, the nearest to its centre first."""

    size: int
    words: tuple[str, ...]
    ids: tuple[DocumentId, ...]


@dataclass(frozen=True, slots=True)
class Clusters:
    """`compared`, `complete`: as in `Duplicates`. The largest cluster comes first."""

    version: VersionNumber
    compared: int
    complete: bool
    clusters: tuple[NamedCluster, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """`id` None: a text of the client; these are answered in their order. `margin`: of the score to the next label."""

    id: DocumentId | None
    label: str
    score: float
    margin: float


@dataclass(frozen=True, slots=True)
class Labels:
    """See `classify.Classification`. `complete`: all documents that pass have their label here."""

    version: VersionNumber
    complete: bool
    method: classify.Method
    accuracy: dict[str, float | None]
    majority: float | None
    results: tuple[Labelled, ...]


Example = tuple[str, DocumentId | None, str]
"""A label, and a document of the collection or, where that is None, a text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnalysisService:
    """Looks at active versions. All methods raise Overloaded where too many computations wait."""

    versions: Versions
    vectors: VectorStore
    documents: Documents
    sampling: CollectionSampler
    turns: ComputationTurns

    async def duplicates(
        self, collection: Collection, where: Filter | None, threshold: float, limit: int
    ) -> Duplicates:
        """Pairs of documents with a cosine of at least `threshold`, exactly, the nearest first."""
        async with self.turns.child() as process:
            version, ids, rows, complete = await self._read(collection, where)
            found, count = await process.run(duplicates.nearest_pairs, rows, threshold, limit)
        pairs = (Pair((ids[one], ids[other]), round(score, 4)) for one, other, score in found)
        return Duplicates(version.number, len(ids), complete, count, tuple(pairs))

    async def clusters(
        self, collection: Collection, where: Filter | None, count: int | None, words: int, members: int
    ) -> Clusters:
        """Groups of documents with the ids of `members`. The names of many are made of a part of the texts."""
        async with self.turns.child() as process:
            version, ids, rows, complete = await self._read(collection, where)
            row_of = {id_: row for row, id_ in enumerate(ids)}
            named = self.sampling.documents(collection, ids[:: max(1, -(-len(ids) // NAMING_DOCUMENTS))])
            texts = {row_of[one.id]: f"{one.title}\n{one.text}"[:NAMING_CHARACTERS] async for one in named}
            found = await process.run(clusters.find_clusters, rows, texts, count, words)
        members_of = (tuple(ids[row] for row in one.members[:members]) for one in found)
        answer = (NamedCluster(len(one.members), one.words, of) for one, of in zip(found, members_of, strict=True))
        return Clusters(version.number, len(ids), complete, tuple(answer))

    async def classify(
        self,
        collection: Collection,
        labels: Sequence[str],
        examples: Sequence[Example],
        texts: Sequence[str],
        where: Filter | None,
        limit: int,
    ) -> Labels:
        """Labels for `texts`, or for the first `limit` documents that pass: by the texts of `labels`, or by `examples`.

        Raises Invalid where an example is none of the visible documents; Conflict where a text would have to be encoded
        and the client makes the vectors; ModelUnavailable and SpaceRefused.
        """
        async with self.turns.child() as process:
            version, read, rows, complete = await self._read(collection, where, 0 if texts else limit)
            ids: Sequence[DocumentId | None] = read
            if texts:
                ids, rows, complete = [None] * len(texts), await self._encode(version, texts, "document"), True
            if labels:
                vectors = await self._encode(version, labels, "query")
                found = await process.run(classify.by_label_vectors, rows, labels, vectors)
            else:
                vectors = await self._example_vectors(collection, version, examples)
                found = await process.run(classify.by_examples, rows, vectors, [label for label, _, _ in examples])
        results = map(Labelled, ids, found.labels, found.scores, found.margins)
        return Labels(version.number, complete, found.method, found.accuracy, found.majority, tuple(results))

    async def _read(
        self, collection: Collection, where: Filter | None, limit: int = MAX_DOCUMENTS
    ) -> tuple[EmbedderVersion, list[DocumentId], Vectors, bool]:
        """The active version; the encoded documents that pass, by id; their directions, [n, d]; whether it is all."""
        version = await self.versions.get(collection.id, collection.active_version)
        found: dict[DocumentId, Vectors] = {}
        most, after, more = min(limit, MAX_VALUES // version.dimensions), None, True
        while len(found) < most and more:
            listed = await self.documents.page_ids(collection.id, after, _PAGE, where or And(()))
            directions = await self.vectors.directions(version, listed)
            found |= {id_: directions[id_] for id_ in listed if id_ in directions}
            more = len(listed) == _PAGE
            after = listed[-1] if more else None
        rows = np.array(list(found.values())[:most], np.float32).reshape(-1, version.dimensions)
        return version, list(found)[:most], rows, not more and len(found) <= most

    async def _example_vectors(
        self, collection: Collection, version: EmbedderVersion, examples: Sequence[Example]
    ) -> Vectors:
        wanted = {id_ for _, id_, _ in examples if id_ is not None}
        visible = await self.documents.filter_ids(collection.id, list(wanted), And(()))
        known = await self.vectors.directions(version, list(visible))
        if missing := [(at, id_) for at, (_, id_, _) in enumerate(examples) if id_ in wanted - known.keys()]:
            errors = [FieldError(f"examples.{at}.id", f"there is no encoded document {id_!r}") for at, id_ in missing]
            raise Invalid(f"{errors[0].field}: {errors[0].message}", errors)
        encoded = iter(await self._encode(version, [text for _, id_, text in examples if id_ is None], "document"))
        return np.stack([next(encoded) if id_ is None else known[id_] for _, id_, _ in examples])

    async def _encode(self, version: EmbedderVersion, texts: Sequence[str], role: Role) -> Vectors:
        if version.spec.external and texts:
            raise Conflict("the client makes the vectors of this version, so texts cannot be encoded here")
        vectors = await self.sampling.embed(version, texts, role)
        if not finite(vectors).all():
            raise Conflict("the model gives no usable vector for one of the texts")
        return unit_rows(vectors)
