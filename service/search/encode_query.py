"""The queries and examples of a search as vectors of the embedder version that answers it."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.core.errors import FieldError, Invalid, SpaceRefused
from service.core.examples import Example, Like
from service.core.ids import CollectionId, DocumentId, Role, Vector, VersionNumber
from service.core.images import ImageReader
from service.core.ports.documents import Documents
from service.core.ports.embedder import Embedders, Encoder
from service.core.ports.vectors import VectorStore
from service.core.search import SearchRequest
from service.core.vector_math import direction, finite, unit
from service.core.versions import VersionState
from service.search.context import SearchContext
from service.spaces.model_verification import ModelVerifier
from service.spaces.resolver import Space

NEGATIVE_WEIGHT = 0.5
"""Leads from the positive mean as far beyond it as it is away from the negative one: p + (p - n), scaled."""

EncodedTexts = tuple[Encoder, Mapping[str | bytes, Vector]]
"""Vectors by text, and the encoder that made them."""
Encode = Callable[[Space, Sequence[str | bytes], Role], Coroutine[Any, Any, EncodedTexts]]


@dataclass(slots=True)
class _PendingEncoding:
    task: asyncio.Task[EncodedTexts]
    waiting: int = 0


class SharedQueryEncoding:
    """Encodes the texts of searches that are answered together in one call for each version and role, each text once.

    The first search that needs the call starts it for all; it is cancelled only when all that waited have left.
    """

    def __init__(self, requests: Sequence[SearchRequest]) -> None:
        self._requests = requests
        self._pending: dict[tuple[CollectionId, VersionNumber, Role], _PendingEncoding] = {}

    def including(self, request: SearchRequest) -> "SharedQueryEncoding":
        """Itself, or an encoding of this search alone where it reads its query in another way than at first."""
        return self if request in self._requests else SharedQueryEncoding([request])

    async def get(self, space: Space, role: Role, encode: Encode) -> EncodedTexts:
        """All texts of this role for this version. A failure is a failure of every search that needs them."""
        key = (space.version.collection_id, space.version.number, role)
        pending = self._pending.get(key)
        if pending is None:
            task = asyncio.create_task(encode(space, self._texts(space, role), role))
            pending = self._pending[key] = _PendingEncoding(task)
        pending.waiting += 1
        try:
            return await asyncio.shield(pending.task)
        finally:
            pending.waiting -= 1
            if not pending.waiting and not pending.task.done():
                del self._pending[key]
                pending.task.cancel()

    def _texts(self, space: Space, role: Role) -> list[str]:
        number, active = space.version.number, space.collection.active_version
        here = [request for request in self._requests if (request.embedder_version or active) == number]
        return list(dict.fromkeys(text for request in here for text in _texts_to_encode(request, role)))


@dataclass(eq=False)
class QueryEncoder:
    """Encodes texts with the embedder of the version, checks vectors of the client, and combines examples."""

    embedders: Embedders
    verifier: ModelVerifier
    documents: Documents
    vectors: VectorStore
    images: ImageReader

    async def encode(self, context: SearchContext, shared: SharedQueryEncoding) -> list[Vector | None]:
        """The vector of each query; None where the dense leg is not wanted or had to be given up."""
        request, space, version = context.request, context.space, context.space.version
        shared = shared.including(request)
        vectors: list[Vector | None] = [None] * len(request.effective_queries)
        if request.mode == "lexical":
            return vectors
        if version.state is VersionState.BACKFILLING:
            so_far = f"version {version.number} is still being filled: {space.status.rows:,} chunks so far"
            context.degrade("dense", "incomplete", so_far)
        if request.like is not None:
            return [await self._encode_examples(context, request.like, shared)]
        if request.image:
            return [await context.run_stage("embed", self._encode_image(context, request.image), optional=False)]
        for at, query in enumerate(request.effective_queries):
            if query.vector is not None:
                vectors[at] = _client_vector(context, query.vector, _field(request, at, "vector"))
        texts = _query_texts(request)
        fields = {_field(request, at, "query"): text for at, text in texts.items()}
        if texts and version.spec.external:
            missing = f"version {version.number} has vectors of the client's own: send the query's"
            if request.mode == "dense":
                raise Invalid.at(_field(request, next(iter(texts)), "vector"), missing)
            context.degrade("dense", "no_vector", missing)
        elif texts:
            work = self._encode_texts(context, fields, "query", shared)
            encoded = await context.run_stage("embed", work, optional=request.mode == "hybrid")
            if encoded is not None:
                for at, text in texts.items():
                    vectors[at] = encoded[text]
        return vectors

    async def _encode_texts(
        self, context: SearchContext, texts: Mapping[str, str], role: Role, shared: SharedQueryEncoding
    ) -> Mapping[str | bytes, Vector]:
        """Vectors by text. `texts`: by their field in the request."""
        encoder, vectors = await shared.get(context.space, role, self._encode_verified)
        limit = encoder.identity.max_tokens
        for field, text in texts.items():
            if len(text) + encoder.overhead(role) > limit:  # only then can it have more tokens
                (length,) = await asyncio.to_thread(encoder.lengths, [text], role)
                if length > limit:
                    what = "the query" if field == "query" else field
                    cut = f"{what} has {length} tokens, of which the embedder reads {limit}"
                    context.degrade("embed", "query_truncated", cut)
            if not np.isfinite(vectors[text]).all() or not vectors[text].any():
                raise Invalid.at(field, "the embedder gives no usable vector for this text")
        return vectors

    async def _encode_image(self, context: SearchContext, source: str) -> Vector:
        version = context.space.version
        if not version.identity.takes_images:
            raise Invalid.at(
                "image", f"the embedder of version {version.number}, {version.spec.model}, takes no images"
            )
        image = await self.images.read(source)
        _, vectors = await self._encode_verified(context.space, [image.preview], "query")
        if not finite(vectors[image.preview][None]).all():
            raise Invalid.at("image", "the embedder gives no usable vector for this image")
        return vectors[image.preview]

    async def _encode_verified(self, space: Space, texts: Sequence[str | bytes], role: Role) -> EncodedTexts:
        encoder = await self.verifier.ensure(space.version)
        vectors = await self.embedders.embed(space.version.spec, texts, role)
        if await self.verifier.ensure(space.version) is not encoder:
            # Replaced since it was verified: which of the two models gave these vectors is unknown.
            raise SpaceRefused("the model was replaced while it encoded the query")
        return encoder, dict(zip(texts, vectors, strict=True))

    async def _encode_examples(self, context: SearchContext, like: Like, shared: SharedQueryEncoding) -> Vector:
        """The direction that the examples give: towards the positive ones, away from the negative ones."""
        version = context.space.version
        texts = {f"{field}.text": one.text for field, one in like.by_field if one.text is not None}
        encoded: Mapping[str | bytes, Vector] = {}
        if texts and version.spec.external:
            missing = f"version {version.number} has vectors of the client's own: an example is an id or a vector"
            raise Invalid.at(next(iter(texts)), missing)
        if texts:
            work = self._encode_texts(context, texts, "document", shared)
            encoded = await context.run_stage("embed", work, optional=False) or {}
        with context.timings.stage("examples"):
            directions = await self._document_directions(context.space, like)

        def vector(field: str, example: Example) -> Vector:
            if example.id is not None:
                return directions[example.id]
            if example.vector is not None:
                return _client_vector(context, example.vector, f"{field}.vector")
            return encoded[example.text or ""]

        vectors = [vector(field, example) for field, example in like.by_field]
        combined = rocchio(vectors[: len(like.positive)], vectors[len(like.positive) :])
        if combined is None:
            raise Invalid.at("like", "the examples cancel each other: nothing is in their direction")
        return combined

    async def _document_directions(self, space: Space, like: Like) -> Mapping[DocumentId, Vector]:
        """The mean direction of the chunks of each example that is a document.

        Invalid, naming each field, for a document that does not exist, or that the space does not have in its present
        content: before it was encoded, after it was changed, or because it was set aside.
        """
        if not like.ids:
            return {}
        directions = await self.vectors.directions(space.version, list(like.ids))
        missing = like.ids - directions.keys()
        if not missing:
            return directions
        existing = await self.documents.get(space.collection.id, list(missing))
        lacking = f"version {space.version.number} has no vector yet of document"
        errors = [
            FieldError(field, f"{lacking} {id_!r} as it is now" if id_ in existing else f"there is no document {id_!r}")
            for field, id_ in ((field, one.id) for field, one in like.by_field)
            if id_ in missing
        ]
        raise Invalid("; ".join(f"{error.field}: {error.message}" for error in errors), errors)


def rocchio(positive: Sequence[Vector], negative: Sequence[Vector]) -> Vector | None:
    """The mean of the positive examples less a part of the mean of the negative ones, scaled to length 1.

    Rocchio, "Relevance Feedback in Information Retrieval" (1971). All examples have length 1, so that each counts the
    same; at least one is positive. None where they cancel each other.
    """
    mean = np.mean(np.asarray(positive, dtype=np.float64), axis=0)
    if negative:
        mean -= NEGATIVE_WEIGHT * np.mean(np.asarray(negative, dtype=np.float64), axis=0)
    return direction(mean)


def _texts_to_encode(request: SearchRequest, role: Role) -> list[str]:
    """The texts of a search that are encoded in this role: queries as queries, examples as documents."""
    if request.like is not None:
        return [one.text for _, one in request.like.by_field if one.text is not None and role == "document"]
    return list(_query_texts(request).values()) if role == "query" and request.mode != "lexical" else []


def _query_texts(request: SearchRequest) -> dict[int, str]:
    """The texts of the queries that come without a vector, by position."""
    queries = enumerate(request.effective_queries)
    return {at: request.model_text(query) for at, query in queries if query.vector is None}


def _field(request: SearchRequest, at: int, name: str) -> str:
    return f"queries.{at}.{name}" if request.queries else name


def _client_vector(context: SearchContext, values: Sequence[float], field: str) -> Vector:
    """A vector that the client made, scaled to length 1. Invalid where it may not be of the version's space."""
    space, version = context.space, context.space.version
    if context.request.embedder_version is None:
        if not version.spec.external:
            unnamed = f"a vector must say which space it is of; version {version.number} makes its own, of texts"
            raise Invalid.at("embedder_version", unnamed)
        if space.ambiguous:
            raise Invalid.at("embedder_version", "the active version has changed: say which one the vector is of")
    if len(values) != version.dimensions:
        wrong = f"has {len(values)} numbers; version {version.number} has {version.dimensions} dimensions"
        raise Invalid.at(field, wrong)
    vector = unit(values)
    if vector is None:
        raise Invalid.at(field, "has no direction: its numbers are all zero, or not finite")
    return vector
