"""Samples that a version is measured on: documents of its collection, and queries."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from service.core.collections import Collection
from service.core.documents import StoredDocument
from service.core.errors import Overloaded
from service.core.filters import And
from service.core.ids import DocumentId, Role, Vectors
from service.core.ports.documents import Documents
from service.core.ports.embedder import Embedders, EncoderWithNorms
from service.core.ports.vectors import VectorStore
from service.core.text import meaningful_sentences, sentences
from service.core.vector_math import finite, unit_rows
from service.core.versions import EmbedderVersion, Judgments
from service.spaces.model_verification import ModelVerifier

MIN_QUERIES = 50
"""Where one source has fewer queries than this, the next source adds to them."""
NOISE_LENGTH = 0.5
"""Length of the noise on stored vectors that stand for queries: they end at a cosine of 0.89 to where they were."""
OVERLOAD_RETRIES = 10
_DOCUMENTS_AT_ONCE, _IDS_AT_ONCE, _TEXTS_AT_ONCE = 100, 1_000, 16
SAMPLED_CHARACTERS = 20_000
"""Of a long document sentences are taken from its beginning: finding them takes a second for a million characters."""

T = TypeVar("T")


class CollectionSampler:
    """Draws documents, sentences and query vectors of a collection."""

    def __init__(
        self, *, vectors: VectorStore, documents: Documents, embedders: Embedders, verifier: ModelVerifier
    ) -> None:
        self._vectors = vectors
        self._documents = documents
        self._embedders = embedders
        self._verifier = verifier

    async def documents(self, collection: Collection, ids: Iterable[DocumentId]) -> AsyncIterator[StoredDocument]:
        """Those of the documents that exist, each once. They are read in small batches, to bound memory."""
        distinct = list(dict.fromkeys(ids))
        for at in range(0, len(distinct), _DOCUMENTS_AT_ONCE):
            for document in (await self._documents.get(collection.id, distinct[at : at + _DOCUMENTS_AT_ONCE])).values():
                yield document

    async def random_sentences(
        self, collection: Collection, version: EmbedderVersion, ids: Iterable[DocumentId]
    ) -> list[tuple[DocumentId, str]]:
        """One meaningful sentence of each of the documents; the same choice every time for one version."""
        chance = random.Random(version.number)  # noqa: S311  no secret
        return [
            (document.id, chance.choice(parts))
            async for document in self.documents(collection, ids)
            if (parts := meaningful_sentences(document.text[:SAMPLED_CHARACTERS] or document.title))
        ]

    async def existing_ids(self, collection: Collection, ids: Set[DocumentId]) -> frozenset[DocumentId]:
        """Those of the ids whose documents exist. A filter that all documents pass finds them without reading texts."""
        distinct, found = list(ids), set[DocumentId]()
        for at in range(0, len(distinct), _IDS_AT_ONCE):
            found |= await self._documents.filter_ids(collection.id, distinct[at : at + _IDS_AT_ONCE], And(()))
        return frozenset(found)

    async def query_vectors(
        self,
        collection: Collection,
        version: EmbedderVersion,
        judgments: Judgments | None,
        live: Sequence[str],
        most: int,
    ) -> tuple[Vectors, Mapping[str, int]]:
        """Query vectors of this version, [n, dimensions], and how many of them come from each source.

        Judged queries come first, since they are nearest to what people ask; then live ones, then first sentences of
        documents. Where the client makes the vectors, stored ones with noise stand for queries. Raises SpaceRefused
        and ModelUnavailable as `ModelVerifier.ensure` does.
        """
        if version.spec.external:
            sample = await self._vectors.sample(version, most)
            return perturbed_vectors(sample.vectors), {"disturbed vectors": len(sample.chunks)}
        judged = [] if judgments is None else [judgments.queries[query] for query in sorted(judgments.queries)]
        texts = {"judged queries": stable_sample(judged, most)}
        if len(texts["judged queries"]) < MIN_QUERIES:
            texts["live queries"] = list(live[:most])
        if sum(map(len, texts.values())) < MIN_QUERIES:
            texts["first sentences"] = await self._first_sentences(collection, version, most)
        vectors = await self.embed_queries(version, list(chain(*texts.values())))
        return vectors[finite(vectors)], {source: len(part) for source, part in texts.items() if part}

    async def _first_sentences(self, collection: Collection, version: EmbedderVersion, most: int) -> list[str]:
        """Of random documents. These are easy queries, since the document repeats them word by word."""
        sample = await self._vectors.sample(version, most)
        ids = (document_id for document_id, _ in sample.chunks)
        documents = self.documents(collection, ids)
        return [
            next(iter(sentences(document.text[:SAMPLED_CHARACTERS])), document.title) async for document in documents
        ]

    async def embed_queries(self, version: EmbedderVersion, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts as queries."""
        return await self.embed(version, texts, "query")

    async def embed(self, version: EmbedderVersion, texts: Sequence[str], role: Role) -> Vectors:
        """The vectors of the texts, encoded in small batches so that live searches need not wait long."""
        await self._verifier.ensure(version)
        vectors = np.zeros((len(texts), version.dimensions), np.float32)
        for at in range(0, len(texts), _TEXTS_AT_ONCE):
            embed = partial(self._embedders.embed, version.spec, texts[at : at + _TEXTS_AT_ONCE], role)
            vectors[at : at + _TEXTS_AT_ONCE] = await retry_overloaded(embed)
        return vectors

    async def document_norms(self, version: EmbedderVersion, texts: Sequence[str]) -> npt.NDArray[np.float32] | None:
        """The lengths of the texts' vectors before normalisation; None where the encoder does not know them."""
        encoder = await self._verifier.ensure(version)
        if not isinstance(encoder, EncoderWithNorms):
            return None
        parts = [texts[at : at + _TEXTS_AT_ONCE] for at in range(0, len(texts), _TEXTS_AT_ONCE)]
        norms = [await asyncio.to_thread(encoder.norms, part, "document") for part in parts]
        return np.concatenate(norms) if norms else None


async def retry_overloaded(work: Callable[[], Awaitable[T]]) -> T:
    """Repeat the work while it raises Overloaded, after the pause that the error names. The last error is raised."""
    for _ in range(OVERLOAD_RETRIES):
        try:
            return await work()
        except Overloaded as error:
            await asyncio.sleep(error.retry_after)
    return await work()


def stable_sample(items: Sequence[T], most: int) -> list[T]:
    """All items or, where there are more than `most`, a random choice that is the same every time."""
    return list(items) if len(items) <= most else random.Random(0).sample(items, most)  # noqa: S311  no secret


def perturbed_vectors(vectors: Vectors) -> Vectors:
    """Vectors of length 1 near these. Stored vectors themselves would be unrealistically easy queries for an index."""
    noise = np.random.default_rng(0).normal(size=vectors.shape)
    return unit_rows(vectors + NOISE_LENGTH * unit_rows(noise)).astype(np.float32)
