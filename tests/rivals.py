"""A collection in memory whose active version has rivals, with documents and judgments that tell good ones from bad.

Each subject has words of its own. A document has half of them among words that say nothing, a query three of them: an
embedder with room finds the documents of the subject, one without mixes them up.
"""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from service.core.collections import ChunkingSettings, Collection, CollectionSettings, EmbedderSpec, IndexSettings
from service.core.documents import Document
from service.core.errors import SpaceRefused
from service.core.ids import CollectionName, DocumentId, Vector, Vectors, VersionNumber
from service.core.ports.embedder import Encoder
from service.core.search import Candidate
from service.core.versions import AuditEntry, EmbedderVersion, Judgments, SpaceStatus, VersionState
from service.embedder.models.registry import ModelRegistry
from service.search.pipeline import SearchPipeline
from service.spaces.model_verification import ModelVerifier
from service.versions.shadow_traffic import ShadowTraffic
from tests.fakes import FakeAdapters, FakeVectors, StoredChunk
from tests.fakes.vectors import candidate_of

NAME = CollectionName("subjects")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
SUBJECTS, DOCUMENTS_EACH, QUERIES_EACH = 15, 4, 2
GOOD = EmbedderSpec(model="hashing:256")
OTHER = EmbedderSpec(model="hashing:250")
"""As good as GOOD, and different in every single answer."""
BAD = EmbedderSpec(model="hashing:8")


def _texts() -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    """Documents, queries and grades; the same every time."""
    chance = random.Random(5)
    documents, queries, grades = {}, {}, {}
    for subject in range(SUBJECTS):
        words = [f"{chance.getrandbits(40):x}" for _ in range(10)]
        for number in range(DOCUMENTS_EACH):
            filler = [f"filler{chance.randrange(30)}" for _ in range(4)]
            documents[f"s{subject:02}-{number}"] = " ".join(chance.sample(words, 5) + filler) + ". And more."
        for number in range(QUERIES_EACH):
            queries[f"q{subject:02}-{number}"] = " ".join(chance.sample(words, 3))
            grades[f"q{subject:02}-{number}"] = {f"s{subject:02}-{one}": 1 for one in range(DOCUMENTS_EACH)}
    return documents, queries, grades


DOCUMENTS, QUERIES, GRADES = _texts()


def judgments(queries: Mapping[str, str] = QUERIES, grades: Mapping[str, Mapping[str, int]] = GRADES) -> Judgments:
    return Judgments(queries=queries, grades=grades, uploaded_at=NOW)


class ScannedVectors(FakeVectors):
    """The same exact scan in one product: evidence searches hundreds of times."""

    def _ranked(self, version: EmbedderVersion, vector: Vector) -> list[Candidate]:
        space = self._store.space(version)
        rows = np.array([row.embedding for row in space.values()], np.float32).reshape(-1, len(vector))
        scores = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ (vector / np.linalg.norm(vector))
        ranked = zip(space.items(), scores.tolist(), strict=True)
        return sorted((candidate_of(*item, score) for item, score in ranked), key=lambda one: -one.score)


class Rivals(FakeAdapters):
    vectors: ScannedVectors

    def __init__(self) -> None:
        super().__init__()
        self.vectors = ScannedVectors(self.store)
        self.registry = ModelRegistry(default=GOOD.model)
        self.verifier = ModelVerifier(collections=self.collections, versions=self.versions, embedders=self.registry)

    async def collection(self) -> Collection:
        """As it stands now."""
        return await self.collections.by_name(NAME)

    async def active(self) -> EmbedderVersion:
        collection = await self.collection()
        return await self.versions.get(collection.id, collection.active_version)

    async def create(self, spec: EmbedderSpec = GOOD, texts: Mapping[str, str] = DOCUMENTS) -> Collection:
        """The collection with its documents, all encoded by `spec`."""
        resolved, identity, canary = await self.verifier.register(spec)
        settings = CollectionSettings(embedder=resolved)
        collection = await self.collections.create(NAME, settings, identity, canary, NOW)
        await self.documents.put(collection.id, [Document(id=DocumentId(id_), text=texts[id_]) for id_ in texts], NOW)
        await self.encode(await self.active())
        return collection

    async def add(
        self, spec: EmbedderSpec, state: VersionState = VersionState.VERIFYING, vectors: Vectors | None = None
    ) -> EmbedderVersion:
        """Another version with vectors for all documents: its own, or those given, in the order of the ids."""
        resolved, identity, canary = await self.verifier.register(spec)
        entry = AuditEntry(at=NOW, actor="test", action="registered")
        version = await self.versions.register(
            await self.collection(), resolved, ChunkingSettings(), IndexSettings(), identity, canary, entry
        )
        for step in (VersionState.INDEXING, VersionState.VERIFYING, VersionState.READY):
            if version.state is not state:
                version = await self.versions.move(version, step, None)
        await self.encode(version, vectors)
        return version

    async def encode(self, version: EmbedderVersion, vectors: Vectors | None = None) -> None:
        living = sorted(self.store.living(version.collection_id), key=lambda document: document.id)
        if vectors is None:
            vectors = await self.registry.embed(version.spec, [document.text for document in living], "document")
        for document, vector in zip(living, vectors, strict=True):
            self.store.space(version)[document.id, 0] = StoredChunk(
                document.content_revision, 0, len(document.text), vector.astype(np.float16)
            )
        await self.set_status(version, indexed=False)

    async def set_status(self, version: EmbedderVersion, *, indexed: bool) -> None:
        status = SpaceStatus(rows=len(self.store.space(version)), indexed=indexed, chunks_per_document=1.0)
        self.versions.statuses[version.collection_id, version.number] = status

    def search(self, **replaced: object) -> SearchPipeline:
        parts: dict[str, object] = {
            "collections": self.collections,
            "versions": self.versions,
            "documents": self.documents,
            "vectors": self.vectors,
            "lexicon": self.lexicon,
            "changes": self.changes,
            "embedders": self.registry,
            "verifier": self.verifier,
            "reranker": None,
            "passing_cap": 100,
            "max_concurrent": 10,
        }
        return SearchPipeline(**{**parts, **replaced})  # type: ignore[arg-type]

    def shadow(self, *, share: float = 1.0, search: SearchPipeline | None = None) -> ShadowTraffic:
        search = search or self.search()
        return ShadowTraffic(search=search, collections=self.collections, versions=self.versions, share=share)

    def refusing(self, *numbers: VersionNumber) -> "Refusing":
        """A verifier that does not admit these versions."""
        verifier = Refusing(collections=self.collections, versions=self.versions, embedders=self.registry)
        verifier.refused = frozenset(numbers)
        return verifier

    def judge(self, **parts: Any) -> None:
        (collection,) = self.collections.rows
        self.collections.judgments[collection] = judgments(**parts)


class Refusing(ModelVerifier):
    """ModelVerifier that does not admit some versions."""

    refused: frozenset[VersionNumber] = frozenset()

    async def ensure(self, version: EmbedderVersion) -> Encoder:
        if version.number in self.refused:
            raise SpaceRefused(f"version {version.number}: the weights differ")
        return await super().ensure(version)
