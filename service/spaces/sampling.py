"""What a version is measured on: samples of what its collection holds and of what it is asked."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from service.core.collections import Collection
from service.core.documents import StoredDocument
from service.core.errors import Overloaded
from service.core.filters import And
from service.core.ids import DocumentId, Vectors
from service.core.ports.documents import Documents
from service.core.ports.embedder import Embedders, EncoderWithNorms
from service.core.ports.vectors import VectorStore as Spaces
from service.core.vector_math import finite
from service.core.versions import EmbedderVersion, Judgments
from service.spaces.model_verification import ModelVerifier

FEW = 50
"""Where one source has fewer queries, the next one adds to them."""
DISTURBANCE = 0.5
"""Length of the noise on stored vectors that stand for queries: a cosine of 0.89 to where they were."""
PATIENCE = 10
"""Times that something is tried again while the service is busy with others."""
_PORTION, _LOOKED_UP = 100, 1_000
_BATCH = 16
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s|\n")

T = TypeVar("T")


class CollectionSampler:
    def __init__(self, *, vectors: Spaces, documents: Documents, embedders: Embedders, verifier: ModelVerifier) -> None:
        self._vectors = vectors
        self._documents = documents
        self._embedders = embedders
        self._verifier = verifier

    async def documents(self, collection: Collection, ids: Iterable[DocumentId]) -> AsyncIterator[StoredDocument]:
        """Those that exist, each once, a portion in memory at a time."""
        distinct = list(dict.fromkeys(ids))
        for at in range(0, len(distinct), _PORTION):
            for document in (await self._documents.get(collection.id, distinct[at : at + _PORTION])).values():
                yield document

    async def there(self, collection: Collection, ids: Iterable[DocumentId]) -> frozenset[DocumentId]:
        """Those that exist. By a filter that all pass, which reads no texts."""
        distinct, found = sorted(set(ids)), set[DocumentId]()
        for at in range(0, len(distinct), _LOOKED_UP):
            part = distinct[at : at + _LOOKED_UP]
            found |= await self._documents.filter_ids(collection.id, part, And(()))
        return frozenset(found)

    async def queries(
        self,
        collection: Collection,
        version: EmbedderVersion,
        judgments: Judgments | None,
        live: Sequence[str],
        most: int,
    ) -> tuple[Vectors, Mapping[str, int]]:
        """Query vectors of this version, [n, dimensions], and how many come from where.

        The judged ones, for they are nearest to what people ask; else the live ones; else what documents begin with.
        Disturbed vectors where the client makes them. SpaceRefused and ModelUnavailable as `ModelVerifier.admit`.
        """
        if version.spec.external:
            sample = await self._vectors.sample(version, most)
            return disturbed(sample.vectors), {"disturbed vectors": len(sample.chunks)}
        judged = [] if judgments is None else [judgments.queries[query] for query in sorted(judgments.queries)]
        texts = some(judged, most)
        sources = {"judged queries": len(texts)}
        if len(texts) < FEW:
            texts += live[:most]
            sources["live queries"] = len(live[:most])
        if len(texts) < FEW:
            beginnings = await self._beginnings(collection, version, most)
            texts += beginnings
            sources["first sentences"] = len(beginnings)
        vectors = await self.embedded(version, texts)
        return vectors[finite(vectors)], {source: count for source, count in sources.items() if count}

    async def _beginnings(self, collection: Collection, version: EmbedderVersion, most: int) -> list[str]:
        """Of random documents the first sentence: poor queries, for what they ask for is there word by word."""
        sample = await self._vectors.sample(version, most)
        ids = (document_id for document_id, _ in sample.chunks)
        return [
            _SENTENCE_END.split(document.text.strip(), maxsplit=1)[0] or document.title
            async for document in self.documents(collection, ids)
        ]

    async def embedded(self, version: EmbedderVersion, texts: Sequence[str]) -> Vectors:
        """In small batches, so that live searches need not wait long behind them."""
        await self._verifier.ensure(version)
        vectors = np.zeros((len(texts), version.dimensions), np.float32)
        for at in range(0, len(texts), _BATCH):
            part = texts[at : at + _BATCH]

            async def embed(part: Sequence[str] = part) -> Vectors:
                return await self._embedders.embed(version.spec, part, "query")

            vectors[at : at + _BATCH] = await patiently(embed)
        return vectors

    async def norms(self, version: EmbedderVersion, texts: Sequence[str]) -> npt.NDArray[np.float32] | None:
        """How long the vectors of these texts are before they are brought to length 1; None where nobody can tell."""
        encoder = await self._verifier.ensure(version)
        if not isinstance(encoder, EncoderWithNorms):
            return None
        parts = [texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH)]
        found = [await asyncio.to_thread(encoder.norms, part, "document") for part in parts]
        return np.concatenate(found) if found else None


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Step back while the service is busy with others; Overloaded only where that does not end."""
    for _ in range(PATIENCE):
        try:
            return await ask()
        except Overloaded as error:
            await asyncio.sleep(error.retry_after)
    return await ask()


def some(items: Sequence[T], most: int) -> list[T]:
    """All of them or, where there are more, a random choice that is the same every time."""
    return list(items) if len(items) <= most else random.Random(0).sample(items, most)  # noqa: S311  no secret


def disturbed(vectors: Vectors) -> Vectors:
    """Vectors of length 1 near these: nobody asks for exactly what is stored, and the index would find that easily."""
    noise = np.random.default_rng(0).normal(size=vectors.shape)
    noise *= DISTURBANCE / np.linalg.norm(noise, axis=1, keepdims=True)
    moved = vectors + noise
    rows: Vectors = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    return rows
