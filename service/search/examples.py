"""What hits are to be like: the vectors of example documents, and how examples become one vector. No text is read here.

Rocchio, "Relevance Feedback in Information Retrieval" (1971): the mean of the positive examples less a part of the mean
of the negative ones. Examples are of length 1 each, so that none counts more for being longer; a document of several
chunks is one example, in the mean direction of its chunks.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from service.core.errors import FieldError, Invalid
from service.core.ids import DocumentId, Vector
from service.core.ports.documents import Documents
from service.core.ports.vectors import VectorStore
from service.core.search import Like
from service.core.vector_math import direction
from service.spaces.resolver import Space

NEGATIVE_WEIGHT = 0.5
"""As much as leads from the positive mean as far beyond it as it is away from the negative one: p + (p - n), scaled."""


class ExampleVectors:
    def __init__(self, documents: Documents, vectors: VectorStore) -> None:
        self._documents = documents
        self._vectors = vectors

    async def directions(self, space: Space, like: Like) -> Mapping[DocumentId, Vector]:
        """The direction of each example that is a document, in the space that answers.

        Invalid, with the place of each, where there is no such document, or where the space does not have it as it is
        now: before it was encoded, after it was changed, or because it was set aside.
        """
        if not like.ids:
            return {}
        directions = await self._vectors.directions(space.version, list(like.ids))
        missing = like.ids - directions.keys()
        if not missing:
            return directions
        there = await self._documents.get(space.collection.id, list(missing))
        errors = [
            FieldError(place, _why_not(space, example.id, example.id in there))
            for place, example in like.by_field
            if example.id in missing
        ]
        raise Invalid("; ".join(f"{error.field}: {error.message}" for error in errors), errors)


def rocchio(positive: Sequence[Vector], negative: Sequence[Vector]) -> Vector | None:
    """The vector of length 1 in the middle of the positive examples and away from the negative ones.

    All of length 1, at least one positive. None where they cancel each other.
    """
    wide = np.mean(np.asarray(positive, dtype=np.float64), axis=0)
    if negative:
        wide -= NEGATIVE_WEIGHT * np.mean(np.asarray(negative, dtype=np.float64), axis=0)
    return direction(wide)


def _why_not(space: Space, document_id: DocumentId | None, there: bool) -> str:
    if not there:
        return f"there is no document {document_id!r}"
    return f"version {space.version.number} has no vector yet of document {document_id!r} as it is now"
