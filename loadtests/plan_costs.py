"""What the plans of a filtered search cost, for the constants of `service/search/filter_planner.py`.

    python -m loadtests.plan_costs

Each constant is a slope: the same search with more and with less of one thing, through the adapter of the service and
in turns, so that whatever else the machine does falls on both. The collection is that of `loadtests.filters`.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from loadtests import filtered
from loadtests.figures import heading, table
from loadtests.prepare import settings_in
from loadtests.sandbox import Sandbox, sandbox
from service.core.filters import Filter, parse
from service.core.ids import CollectionName, DocumentId, Vector
from service.core.ports.vectors import VectorQuery
from service.core.search import DensePlan
from service.core.versions import EmbedderVersion
from service.runtime.container import components
from service.search import filter_planner
from service.store.postgres.vectors.vectors import PostgresVectors

EVERYTHING, NOTHING = parse({"open.rank": {"$gte": 0}}), parse({"open.rank": {"$lt": 0}})


class Bench:
    """Times in microseconds: the median over queries, each the best of a few."""

    def __init__(self, vectors: PostgresVectors, version: EmbedderVersion, queries: Sequence[Vector]) -> None:
        self._vectors = vectors
        self._version = version
        self._queries = queries

    async def slope(self, less: "Way", more: "Way", steps: float) -> float:
        """What one step from `less` to `more` costs."""
        differences = []
        for query in self._queries:
            best = {way: float("inf") for way in (less, more)}
            for _ in range(3):
                for way in (less, more):
                    started = time.perf_counter()
                    await self._vectors.nearest(
                        VectorQuery(self._version, query, way.limit, way.plan, within=way.within, where=way.where)
                    )
                    best[way] = min(best[way], time.perf_counter() - started)
            differences.append(1e6 * (best[more] - best[less]) / steps)
        return float(np.median(differences))


class Way:
    def __init__(
        self, plan: DensePlan, limit: int = 100, within: Sequence[DocumentId] | None = None, where: Filter | None = None
    ) -> None:
        self.plan, self.limit, self.within, self.where = plan, limit, within, where


async def measure(place: Sandbox, documents: int, queries: int) -> None:
    async with components.open_store(settings_in(place.folder), place.url, "benchmark") as store:
        collection = await store.collections.by_name(CollectionName(filtered.COLLECTION))
        (version,) = await store.versions.of(collection.id)
        sample = await store.vectors.sample(version, queries)
        bench = Bench(store.vectors, version, list(sample.vectors[:queries]))
        ids = [DocumentId(f"doc-{number:07d}") for number in np.random.default_rng(3).permutation(documents)]
        exact, some = DensePlan(kind="exact"), documents // 20

        def along(ef_search: int, where: Filter | None = None) -> Way:
            return Way(DensePlan(kind="hnsw", ef_search=ef_search), limit=ef_search, where=where)

        def stuck(tuples: int) -> Way:
            plan = DensePlan(kind="hnsw_iterative", ef_search=filter_planner.DEFAULT_EF_SEARCH, max_scan_tuples=tuples)
            return Way(plan, where=NOTHING)

        measured = {
            "ROW_BY_ID_COST": await bench.slope(
                Way(exact, within=sorted(ids[:some])), Way(exact, within=sorted(ids[: 3 * some])), 2 * some
            ),
            "INDEX_ROW_COST": await bench.slope(along(200), along(800), 600),
            "FILTER_CHECK_COST": await bench.slope(along(800), along(800, EVERYTHING), 800),
            "INDEX_ROW_COST + FILTER_CHECK_COST, iterative scan": await bench.slope(stuck(1_000), stuck(4_000), 3_000),
        }
    heading(f"Microseconds, median of {queries} queries over {documents:,} chunks")
    used = {name: getattr(filter_planner, name) for name in measured if hasattr(filter_planner, name)}
    used["INDEX_ROW_COST + FILTER_CHECK_COST, iterative scan"] = (
        filter_planner.INDEX_ROW_COST + filter_planner.FILTER_CHECK_COST
    )
    table(["cost", "measured", "used"], [[name, value, used[name]] for name, value in measured.items()])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=100_000)
    arguments.add_argument("--queries", type=int, default=15)
    arguments.add_argument("--folder", type=Path, help="keep the collection here, or use the one that is here")
    chosen = arguments.parse_args()
    with sandbox(chosen.folder) as place:
        filtered.ready(place, chosen.documents)
        asyncio.run(measure(place, chosen.documents, chosen.queries))


if __name__ == "__main__":
    main()
