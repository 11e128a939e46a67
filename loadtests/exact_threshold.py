"""Up to how many rows is looking at all of them as fast as HNSW? `python -m loadtests.exact_threshold`.

Both ways through the adapter that serves searches, query by query in turns, with the limit and the `ef_search` that
the dense leg chooses for a search of 100 candidates. Decides the default of AZIMUTH_EXACT_BELOW.
"""

import argparse
import asyncio
import time
from urllib.parse import quote

from loadtests.figures import heading, median, percentile, table
from loadtests.sandbox import sandbox
from loadtests.space import clustered, create
from service.core.collections import CollectionSettings, EmbedderSpec
from service.core.documents import Document
from service.core.ids import DocumentId
from service.core.ports.vectors import VectorQuery
from service.core.search import DensePlan
from service.embedder.models.hashing_encoder import HashingEncoder
from service.search.filter_planner import DEFAULT_EF_SEARCH
from service.store.postgres.connection.pool import open_pool
from service.store.postgres.vectors import vector_tables
from service.store.postgres.vectors.vectors import PostgresVectors
from service.store.postgres.versions.versions import PostgresVersions

SIZES = (1_000, 2_000, 5_000, 7_500, 10_000, 20_000, 50_000)
DIMENSIONS = 384
LIMIT = 100
EXACT = DensePlan(kind="exact")
HNSW = DensePlan(kind="hnsw", ef_search=DEFAULT_EF_SEARCH)

PARALLEL = {"min_parallel_table_scan_size": "0", "parallel_setup_cost": "0", "parallel_tuple_cost": "0"}
ALONE = {"max_parallel_workers_per_gather": "0"}


def with_options(url: str, options: dict[str, str]) -> str:
    return f"{url}&options={quote(' '.join(f'-c {name}={value}' for name, value in options.items()))}"


async def measure(url: str, sizes: tuple[int, ...], queries: int) -> None:
    async with (
        await open_pool(url, size=2, statement_timeout_seconds=60, application_name="as it is") as pool,
        await open_pool(with_options(url, ALONE), size=2, statement_timeout_seconds=60, application_name="a") as alone,
        await open_pool(with_options(url, PARALLEL), size=2, statement_timeout_seconds=60, application_name="p") as two,
    ):
        spec = EmbedderSpec(model=f"hashing:{DIMENSIONS}")
        settings = CollectionSettings(embedder=spec)
        space = await create(pool, "exact", settings, HashingEncoder(spec), ["canary"])
        rows = clustered(max(sizes) + queries, DIMENSIONS, seed=5)
        asked, rows = rows[:queries], rows[queries:]
        versions = PostgresVersions(pool)
        ways: dict[str, tuple[PostgresVectors, DensePlan]] = {
            "exact": (PostgresVectors(pool), EXACT),
            "one process": (PostgresVectors(alone), EXACT),
            "parallel": (PostgresVectors(two), EXACT),
            "hnsw": (PostgresVectors(pool), HNSW),
        }
        shown, there = [], 0
        for size in sizes:
            documents = [Document(id=DocumentId(f"d{number:07d}"), text="x") for number in range(there, size)]
            await space.run([f"DROP INDEX IF EXISTS {vector_tables.vector_table_of(space.version).index}"])
            await space.add(documents, rows[there:size])
            there = size
            await space.run([f"VACUUM ANALYZE {vector_tables.vector_table_of(space.version).table}"])
            await versions.build_index(space.version)
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            found = 0
            for vector in asked:
                answers = {}
                for way, (vectors, plan) in ways.items():
                    started = time.perf_counter()
                    answers[way] = await vectors.nearest(VectorQuery(space.version, vector, LIMIT, plan))
                    seconds[way].append(time.perf_counter() - started)
                truth = {one.document_id for one in answers["exact"][:10]}
                found += len(truth & {one.document_id for one in answers["hnsw"][:10]})
            figures = [median(own) for own in seconds.values()]
            shown.append([size, *figures, percentile(seconds["exact"], 0.95), found / 10 / len(asked)])
        heading(
            f"Nearest {LIMIT} of n halfvec({DIMENSIONS}): ms, median of {queries} queries; "
            f"ef_search {DEFAULT_EF_SEARCH}"
        )
        table(["rows", *ways, "exact p95", "recall@10 of hnsw"], shown)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    arguments.add_argument("--queries", type=int, default=200)
    chosen = arguments.parse_args()
    with sandbox() as place:
        asyncio.run(measure(place.url, tuple(chosen.sizes), chosen.queries))


if __name__ == "__main__":
    main()
