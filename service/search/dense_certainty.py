"""How sure the dense leg is of its best find: how far that stands out from what chance gives in this space.

An embedder that never learnt the language or the subject of a query still returns the nearest documents, and their
cosines may be high: what tells is whether the best one lies apart from those of random chunks. The signal-to-noise
ratio z = (best - mean) / deviation, over the cosines of random chunks, does not depend on where an embedder's cosines
lie (Arampatzis and Kamps, "A signal-to-noise approach to score normalization", CIKM 2009; how well a query is answered
is predicted from such ratios by Shtok et al., "Predicting query performance by query-drift estimation", TOIS 2012).
"""

import time
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.core.ids import CollectionId, DocumentId, Vector, VersionNumber
from service.core.ports.vectors import VectorStore as VectorTables
from service.core.versions import VectorSample
from service.spaces.resolver import Space

CHANCE, CERTAIN = 2.5, 4.0
"""Deviations above the mean. The best of a few hundred random chunks reaches 2.5 to 3 by chance; where the embedder
knows the language, nearly every query of seven collections has more than 4 (docs/decisions/0024)."""

SIZE, LEAST = 500, 50
"""Random chunks; with fewer than `LEAST` nothing is known and the dense leg is trusted."""
KEPT_SECONDS = 600.0
NEAREST = 25
"""Chunks of the sample that stand for what is near a query: the nearest twentieth of the space."""
GROWN = 2.0
"""Times as many chunks as when it was drawn: drawn again."""
MOST = 256
"""Spaces remembered; half a megabyte each."""

Key = tuple[CollectionId, VersionNumber]


def certainty(best: float, chance: npt.NDArray[np.floating]) -> float:
    """In [0, 1], of the best cosine of a query; `chance`: its cosines with random chunks, shape [n]."""
    if len(chance) < LEAST:
        return 1.0
    deviation = float(chance.std())
    if deviation <= 0.0:
        return 1.0 if best > float(chance.mean()) else 0.0
    ratio = (best - float(chance.mean())) / deviation
    return min(1.0, max(0.0, (ratio - CHANCE) / (CERTAIN - CHANCE)))


class DenseCertainty:
    """Random chunks of the spaces that are searched, drawn now and then."""

    def __init__(self, vectors: VectorTables) -> None:
        self._vectors = vectors
        self._known: OrderedDict[Key, tuple[float, int, VectorSample]] = OrderedDict()

    async def certainty(self, space: Space, vector: Vector, best: float) -> float:
        """Of the dense leg, whose best find for this query has the cosine `best`."""
        if space.status.rows < LEAST:
            return 1.0
        return certainty(best, (await self._of(space)).vectors @ vector)

    async def nearby(self, space: Space, vector: Vector) -> Sequence[DocumentId]:
        """The documents of the chunks of the sample that are nearest to this query."""
        sample = await self._of(space)
        order = np.argsort(-(sample.vectors @ vector))[:NEAREST]
        return [sample.chunks[at][0] for at in order]

    async def _of(self, space: Space) -> VectorSample:
        """About `SIZE` chunks."""
        key = (space.version.collection_id, space.version.number)
        until, rows, known = self._known.get(key, (0.0, 0, None))
        if known is not None and time.monotonic() < until and rows / GROWN < space.status.rows < rows * GROWN:
            return known
        drawn = await self._vectors.sample(space.version, SIZE)
        self._known[key] = (time.monotonic() + KEPT_SECONDS, space.status.rows, drawn)
        self._known.move_to_end(key)
        while len(self._known) > MOST:
            self._known.popitem(last=False)
        return drawn
