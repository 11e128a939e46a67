"""What a search asks for, as a vector of the space that it is asked in."""

import asyncio
from collections.abc import Sequence

import numpy as np

from service.course import Course
from service.domain import Vector, unit
from service.errors import Invalid, SpaceRefused
from service.ports import Embedders, Encoder
from service.proof import Proof
from service.query import Request
from service.space import Space
from service.version import VersionState


class Asking:
    """Encodes the query with the embedder of the version, or takes the vector that the client brought."""

    def __init__(self, embedders: Embedders, proof: Proof) -> None:
        self._embedders = embedders
        self._proof = proof

    async def vector(self, space: Space, course: Course) -> Vector | None:
        """The query as a vector of this version; None where the dense leg is not asked for or had to be given up."""

        async def embed() -> Vector:
            encoder = await self._proof.admit(space.version)
            await self._note_cut(course, encoder)
            vectors = await self._embedders.embed(space.version.spec, [course.request.text], "query")
            if await self._proof.admit(space.version) is not encoder:
                # Swapped since it was admitted: which of the two models gave this vector cannot be told any more.
                raise SpaceRefused("the model was replaced while it encoded the query")
            vector: Vector = vectors[0]
            if not np.isfinite(vector).all() or not vector.any():
                raise Invalid.at("query", "the embedder gives no usable vector for this text")
            return vector

        request, version = course.request, space.version
        if request.mode == "lexical":
            return None
        if version.state is VersionState.BACKFILLING:
            so_far = f"version {version.number} is still being filled: {space.status.rows:,} chunks so far"
            course.note("dense", "incomplete", so_far)
        if request.vector is not None:
            return _brought(space, request, request.vector)
        if version.spec.external:
            missing = f"version {version.number} has vectors of the client's own: send the query's"
            if request.mode == "dense":
                raise Invalid.at("vector", missing)
            course.note("dense", "no_vector", missing)
            return None
        return await course.attempt("embed", embed, optional=request.mode == "hybrid")

    async def _note_cut(self, course: Course, encoder: Encoder) -> None:
        """No text is cut silently. Only one of more characters than the model takes tokens can be too long."""
        text, most = course.request.text, encoder.identity.max_tokens
        if len(text) + encoder.overhead("query") > most:
            (length,) = await asyncio.to_thread(encoder.lengths, [text], "query")
            if length > most:
                course.note("embed", "truncated", f"the query has {length} tokens, of which the embedder reads {most}")


def _brought(space: Space, request: Request, values: Sequence[float]) -> Vector:
    """The query's vector as the client made it. Invalid where it is not, or might not be, of the version's space."""
    version = space.version
    if request.embedder_version is None:
        if not version.spec.external:
            unnamed = f"a vector must say which space it is of; version {version.number} makes its own, of texts"
            raise Invalid.at("embedder_version", unnamed)
        if space.ambiguous:
            raise Invalid.at("embedder_version", "the active version has changed: say which one the vector is of")
    if len(values) != version.dimensions:
        dimensions = f"version {version.number} has {version.dimensions} dimensions"
        raise Invalid.at("vector", f"has {len(values)} numbers; {dimensions}")
    vector = unit(values)
    if vector is None:
        raise Invalid.at("vector", "has no direction: its numbers are all zero, or not finite")
    return vector
