"""How certain the dense leg is of its best candidate: how far that stands out from random chunks of the space.

An embedder that never learnt the language or the subject of a query still returns the nearest documents, and their
cosines may be high. What tells is the signal-to-noise ratio z = (best - mean) / deviation over the cosines of random
chunks, which does not depend on where an embedder's cosines lie (Arampatzis and Kamps, "A signal-to-noise approach to
score normalization", CIKM 2009; such ratios predict how well a query is answered: Shtok et al., "Predicting query
performance by query-drift estimation", TOIS 2012).
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from service.core.ids import CollectionId, DocumentId, Vector, VersionNumber
from service.core.ports.vectors import VectorStore
from service.core.versions import VectorSample
from service.spaces.resolver import Space
from service.spaces.sample_cache import SampleCache

Z_CHANCE, Z_CERTAIN = 2.5, 4.0
"""Deviations above the mean. The best of a few hundred random chunks reaches 2.5 to 3 by chance; where the embedder
knows the language, nearly every query of seven collections exceeds 4 (docs/decisions/0024)."""
FLOOR_DEVIATIONS = 2.0
"""Below the mean of random chunks: there lies what has nothing to do with a query, at 0 where cosines spread around 0,
at .7 in a space that is a narrow cone (docs/decisions/0059)."""
SAMPLE_SIZE, MIN_SAMPLE_SIZE = 500, 50
"""Random chunks. With fewer than `MIN_SAMPLE_SIZE` nothing is known, and the dense leg is trusted."""
SAMPLE_SECONDS = 600.0
MAX_GROWTH = 2.0
"""A sample is drawn again when the space has grown or shrunk by this factor."""
MAX_SAMPLES = 256
"""Spaces remembered, half a megabyte each."""
NEAREST_CHUNKS = 25
"""Sampled chunks that stand for the neighbourhood of a query: the nearest twentieth of the space."""


def certainty(best: float, sample: npt.NDArray[np.floating]) -> float:
    """The certainty in [0, 1] of the best cosine of a query; `sample`: its cosines with random chunks, shape [n]."""
    if len(sample) < MIN_SAMPLE_SIZE:
        return 1.0
    mean, deviation = float(sample.mean()), float(sample.std())
    if deviation <= 0.0:
        return 1.0 if best > mean else 0.0
    return min(1.0, max(0.0, ((best - mean) / deviation - Z_CHANCE) / (Z_CERTAIN - Z_CHANCE)))


class DenseCertainty:
    """Compares queries with random chunks of their space; the samples are kept between searches."""

    def __init__(self, vectors: VectorStore) -> None:
        self._vectors = vectors
        self._samples: SampleCache[tuple[CollectionId, VersionNumber], VectorSample] = SampleCache(
            seconds=SAMPLE_SECONDS, growth=MAX_GROWTH, capacity=MAX_SAMPLES
        )

    async def certainty(self, space: Space, vector: Vector, best: float) -> float:
        """The certainty of the dense leg, whose best candidate for this query has the cosine `best`."""
        if space.status.rows < MIN_SAMPLE_SIZE:
            return 1.0
        return certainty(best, (await self._sample(space)).vectors @ vector)

    async def floor(self, space: Space, vector: Vector) -> float:
        """The cosine that says nothing for a document, at least 0."""
        if space.status.rows < MIN_SAMPLE_SIZE:
            return 0.0
        cosines = (await self._sample(space)).vectors @ vector
        return max(0.0, float(cosines.mean() - FLOOR_DEVIATIONS * cosines.std()))

    async def nearest_sampled(self, space: Space, vector: Vector) -> Sequence[DocumentId]:
        """The documents of those sampled chunks that are nearest to this query."""
        sample = await self._sample(space)
        nearest = np.argsort(-(sample.vectors @ vector))[:NEAREST_CHUNKS]
        return [sample.chunks[at][0] for at in nearest]

    async def _sample(self, space: Space) -> VectorSample:
        key = (space.version.collection_id, space.version.number)
        draw = partial(self._vectors.sample, space.version, SAMPLE_SIZE)
        return await self._samples.get_or_compute(key, draw, space.status.rows)
