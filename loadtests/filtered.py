"""The collection that filters are measured on: 100,000 documents whose metadata passes exact shares of them.

Each document carries every field twice, under `open` (no index of its own) and under `known` (declared), so that the
same filter is asked both ways:

- `in_2`, `in_10`, ... `in_10000`: equal to 0 in so many parts of the documents, whatever they are about;
- `rank`: a permutation of 0..n-1, so that a range passes an exact share of documents, whatever they are about;
- `near.0` ... `near.3`: the rank of a document by its distance from one query (the pivot), 0 the nearest: a range of
  the low ones is correlated with queries near the pivot, one of the high ones anti-correlated.

Vectors are those of `corpus.py`, in the space of the default model.
"""

import asyncio
import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtests import corpus
from loadtests.figures import heading
from loadtests.prepare import settings_in
from loadtests.sandbox import Sandbox
from loadtests.space import create
from service.core.collections import CollectionSettings, EmbedderSpec
from service.core.ids import Vectors
from service.core.periodic import utc_now
from service.runtime.container import components
from service.store.postgres.vectors import vector_tables

COLLECTION = "filtered"
SEED = 17
QUERIES = 120
PIVOTS = 4
NEIGHBOURS = 8
"""Queries that are asked with the filters around one pivot: those nearest to it."""
PARTS = (2, 10, 100, 1_000, 10_000)
"""One document in so many passes: 50, 10, 1, 0.1, 0.01 %."""


@dataclass(frozen=True)
class Asked:
    queries: Sequence[str]
    near: Sequence[Sequence[str]]
    """For each pivot the queries nearest to it, itself the first."""


def fields(number: int, rank: int, near: Sequence[int]) -> dict[str, Any]:
    """What one document says of itself, under either name."""
    parts = {f"in_{part}": rank % part for part in PARTS}
    return {**parts, "rank": number, "near": {str(pivot): int(place) for pivot, place in enumerate(near)}}


def ready(place: Sandbox, documents: int) -> Asked:
    """Fill the collection unless it is there; answers what to ask."""
    kept = place.folder / f"filtered-{documents}.json"
    if not kept.exists():
        kept.write_text(json.dumps(asyncio.run(_fill(place, documents))))
    return Asked(**json.loads(kept.read_text()))


async def _fill(place: Sandbox, documents: int) -> dict[str, Any]:
    settings = settings_in(place.folder)
    models = components.model_registry(settings)
    started = time.perf_counter()
    async with components.open_store(settings, place.url, "benchmark") as store:
        spec = models.resolve(EmbedderSpec())
        encoder = await models.get(spec)
        made = await asyncio.to_thread(corpus.build, encoder, QUERIES, SEED)
        asked = await asyncio.to_thread(encoder.encode, made.queries, "query")
        pivots = np.random.default_rng(SEED).permutation(len(asked))[:PIVOTS]
        batches = list(made.documents(documents, SEED))
        places = _places(np.concatenate([vectors for _, vectors in batches]), asked[pivots])
        ranks, others = (np.random.default_rng(SEED + more).permutation(documents) for more in (1, 2))
        space = await create(store.pool, COLLECTION, CollectionSettings(embedder=spec), encoder, made.queries[:3])
        at = 0
        for batch, vectors in batches:
            described = []
            for document in batch:
                own = fields(int(ranks[at]), int(others[at]), places[at])
                described.append(dataclasses.replace(document, metadata={"open": own, "known": own}))
                at += 1
            await space.add(described, vectors)
        table = vector_tables.vector_table_of(space.version).table
        await space.run([f"VACUUM ANALYZE {table}", "VACUUM ANALYZE documents", "VACUUM ANALYZE jobs"])
        await components.state_machine(settings, store, components.model_verifier(store, models)).maintain_complete(
            utc_now
        )
    await models.close()
    heading(f"{documents:,} documents prepared in {time.perf_counter() - started:.0f} s")
    cosines = asked @ asked[pivots].T
    near = [[made.queries[at] for at in np.argsort(-cosines[:, pivot])[:NEIGHBOURS]] for pivot in range(PIVOTS)]
    return {"queries": list(made.queries), "near": near}


def _places(vectors: Vectors, pivots: Vectors) -> np.ndarray:
    """[documents, pivots]: the place of each document in the order of distance from each pivot."""
    order = np.argsort(-(vectors @ pivots.T), axis=0)
    places = np.empty_like(order)
    for pivot in range(pivots.shape[0]):
        places[order[:, pivot], pivot] = np.arange(len(vectors))
    return places
