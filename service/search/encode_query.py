"""What a search asks for, as vectors of the space that it is asked in."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.core.errors import Invalid, SpaceRefused
from service.core.ids import CollectionId, Role, Vector, VersionNumber
from service.core.ports.embedder import Embedders, Encoder
from service.core.search import Example, Like, Query, SearchRequest
from service.core.vector_math import unit
from service.core.versions import VersionState
from service.search.context import SearchContext
from service.search.examples import ExampleVectors, rocchio
from service.spaces.model_verification import ModelVerifier
from service.spaces.resolver import Space


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """Texts with their vectors, and what made them."""

    encoder: Encoder
    vectors: Mapping[str, Vector]


Encode = Callable[[Space, Sequence[str], Role], Coroutine[Any, Any, EncodedTexts]]


@dataclass(slots=True)
class _Call:
    task: asyncio.Task[EncodedTexts]
    waiting: int = 0


class SharedQueryEncoding:
    """Searches that are answered together, one or many: what they have to say is encoded in one call.

    In one for each version that they go to and each role, to be exact, each text once. The first search that needs it
    starts it for all; it ends early only where all that waited for it have left.
    """

    def __init__(self, requests: Sequence[SearchRequest]) -> None:
        self._requests = requests
        self._calls: dict[tuple[CollectionId, VersionNumber, Role], _Call] = {}

    async def encoded(self, space: Space, role: Role, encode: Encode) -> EncodedTexts:
        """All texts of this role that go to this version. What fails, fails for every search that needs it."""
        key = (space.version.collection_id, space.version.number, role)
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = _Call(asyncio.create_task(encode(space, self._texts(space, role), role)))
        call.waiting += 1
        try:
            return await asyncio.shield(call.task)
        finally:
            call.waiting -= 1
            if not call.waiting and not call.task.done():
                del self._calls[key]
                call.task.cancel()

    def _texts(self, space: Space, role: Role) -> list[str]:
        number, active = space.version.number, space.collection.active_version
        here = [request for request in self._requests if (request.embedder_version or active) == number]
        return list(dict.fromkeys(text for request in here for text in _texts(request, role)))


class QueryEncoder:
    """Encodes the queries with the embedder of the version, takes vectors that the client brought, reads examples."""

    def __init__(self, embedders: Embedders, verifier: ModelVerifier, examples: ExampleVectors) -> None:
        self._embedders = embedders
        self._verifier = verifier
        self._examples = examples

    async def vectors(self, space: Space, context: SearchContext, shared: SharedQueryEncoding) -> list[Vector | None]:
        """Each question as a vector of this version; None where the dense leg is not asked or had to be given up."""
        request, version = context.request, space.version
        vectors: list[Vector | None] = [None] * len(request.effective_queries)
        if request.mode == "lexical":
            return vectors
        if version.state is VersionState.BACKFILLING:
            so_far = f"version {version.number} is still being filled: {space.status.rows:,} chunks so far"
            context.note("dense", "incomplete", so_far)
        if request.like is not None:
            return [await self._middle(space, context, request.like, shared)]
        for at, query in enumerate(request.effective_queries):
            if query.vector is not None:
                vectors[at] = _brought(space, request, query.vector, _place(request, at, "vector"))
        texts = {_place(request, at, "query"): request.model_text(query) for at, query in _unread(request)}
        if texts and version.spec.external:
            missing = f"version {version.number} has vectors of the client's own: send the query's"
            if request.mode == "dense":
                raise Invalid.at(next(iter(texts)).removesuffix("query") + "vector", missing)
            context.note("dense", "no_vector", missing)
        elif texts:
            work = self._read(space, context, texts, "query", shared)
            read = await context.attempt("embed", lambda: work, optional=request.mode == "hybrid")
            if read is not None:
                for at, query in _unread(request):
                    vectors[at] = read[request.model_text(query)]
        return vectors

    async def _middle(self, space: Space, context: SearchContext, like: Like, shared: SharedQueryEncoding) -> Vector:
        """Where examples point to: positive ones towards, negative ones away."""
        texts = {f"{place}.text": one.text for place, one in like.by_field if one.text is not None}
        read: Mapping[str, Vector] = {}
        if texts and space.version.spec.external:
            missing = f"version {space.version.number} has vectors of the client's own: an example is an id or a vector"
            raise Invalid.at(next(iter(texts)), missing)
        if texts:
            work = self._read(space, context, texts, "document", shared)
            read = await context.attempt("embed", lambda: work, optional=False) or {}
        with context.timings.stage("examples"):
            directions = await self._examples.directions(space, like)

        def vector(place: str, example: Example) -> Vector:
            if example.id is not None:
                return directions[example.id]
            if example.vector is not None:
                return _brought(space, context.request, example.vector, f"{place}.vector")
            return read[example.text or ""]

        vectors = [vector(place, example) for place, example in like.by_field]
        middle = rocchio(vectors[: len(like.positive)], vectors[len(like.positive) :])
        if middle is None:
            raise Invalid.at("like", "the examples cancel each other: nothing is in their direction")
        return middle

    # ------------------------------------------------------------ texts

    async def _read(
        self, space: Space, context: SearchContext, texts: Mapping[str, str], role: Role, shared: SharedQueryEncoding
    ) -> Mapping[str, Vector]:
        """The vectors of these texts, given by their places in the request."""
        encoded = await shared.encoded(space, role, self._encode)
        for place, text in texts.items():
            await self._note_cut(context, encoded.encoder, place, text, role)
            vector = encoded.vectors[text]
            if not np.isfinite(vector).all() or not vector.any():
                raise Invalid.at(place, "the embedder gives no usable vector for this text")
        return encoded.vectors

    async def _encode(self, space: Space, texts: Sequence[str], role: Role) -> EncodedTexts:
        encoder = await self._verifier.ensure(space.version)
        vectors = await self._embedders.embed(space.version.spec, texts, role)
        if await self._verifier.ensure(space.version) is not encoder:
            # Swapped since it was admitted: which of the two models gave these vectors cannot be told any more.
            raise SpaceRefused("the model was replaced while it encoded the query")
        return EncodedTexts(encoder, dict(zip(texts, vectors, strict=True)))

    async def _note_cut(self, context: SearchContext, encoder: Encoder, place: str, text: str, role: Role) -> None:
        """No text is cut silently. Only one of more characters than the model takes tokens can be too long."""
        most = encoder.identity.max_tokens
        if len(text) + encoder.overhead(role) > most:
            (length,) = await asyncio.to_thread(encoder.lengths, [text], role)
            if length > most:
                what = "the query" if place == "query" else place
                context.note("embed", "truncated", f"{what} has {length} tokens, of which the embedder reads {most}")


def _texts(request: SearchRequest, role: Role) -> list[str]:
    """What the embedder has to read of a search in this role: questions as queries, examples as documents."""
    if request.like is not None:
        texts = [one.text for _, one in request.like.by_field if one.text is not None]
        return texts if role == "document" else []
    questions = _unread(request) if role == "query" and request.mode != "lexical" else []
    return [request.model_text(query) for _, query in questions]


def _unread(request: SearchRequest) -> list[tuple[int, Query]]:
    """The questions that come without a vector, with their numbers."""
    return [(at, query) for at, query in enumerate(request.effective_queries) if query.vector is None]


def _place(request: SearchRequest, at: int, field: str) -> str:
    return f"queries.{at}.{field}" if request.queries else field


def _brought(space: Space, request: SearchRequest, values: Sequence[float], place: str) -> Vector:
    """A vector as the client made it. Invalid where it is not, or might not be, of the version's space."""
    version = space.version
    if request.embedder_version is None:
        if not version.spec.external:
            unnamed = f"a vector must say which space it is of; version {version.number} makes its own, of texts"
            raise Invalid.at("embedder_version", unnamed)
        if space.ambiguous:
            raise Invalid.at("embedder_version", "the active version has changed: say which one the vector is of")
    if len(values) != version.dimensions:
        dimensions = f"version {version.number} has {version.dimensions} dimensions"
        raise Invalid.at(place, f"has {len(values)} numbers; {dimensions}")
    vector = unit(values)
    if vector is None:
        raise Invalid.at(place, "has no direction: its numbers are all zero, or not finite")
    return vector
