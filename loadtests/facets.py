"""Facets of five fields over 100,000 documents, beside a count of the same documents: `python -m loadtests.facets`.

Whole requests within the process, without HTTP; the count is one statement to the same PostgreSQL. They take turns. The
last columns are with one document changed before each. Processor time is that of this process. The values are read
ahead, as an API process does it.
"""

import argparse
import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable

from loadtests.figures import heading, median, table
from loadtests.sandbox import sandbox
from service.core.facets import FacetRequest
from service.core.filters import parse
from service.store.postgres.connection.pool import open_pool
from tests.world import World, build, doc, later

FIELDS = {
    "kind": "to_jsonb('kind ' || n %% 8)",
    "year": "to_jsonb(1990 + n %% 35)",
    "tags": "jsonb_build_array('tag ' || n %% 50, 'tag ' || n %% 7, 'tag ' || n %% 11)",
    "author": "to_jsonb('author ' || n %% 5000)",
    "price": "to_jsonb(round((n * 7919 %% 100000) / 100.0, 2))",
}
FILTERS = {"none": None, "half": {"year": {"$gte": 2008}}, "an eighth": {"kind": "kind 3"}}
ROUNDS = 30


async def measure(url: str, documents: int) -> None:
    pool = await open_pool(url, size=2, statement_timeout_seconds=60, application_name="facets")
    async with pool:
        world = await build(pool)
        settings = dataclasses.replace(world.collection.settings, indexed=tuple(sorted(FIELDS)))
        world.collection = await world.collections.update(world.collection, settings)
        pairs = ", ".join(f"'{name}', {value}" for name, value in FIELDS.items())
        await world.execute(
            "INSERT INTO documents (collection_id, document_id, title, text, metadata, content_hash, revision,"
            " content_revision, created_at, updated_at) SELECT %s, 'd' || n, '', repeat('some words ', 40),"
            f" jsonb_build_object({pairs}), '', 1, 1, now(), now() FROM generate_series(1, %s) AS n",
            world.collection.id,
            documents,
        )
        async with pool.connection() as connection:
            await connection.execute("VACUUM ANALYZE documents")
        heading(f"{len(FIELDS)} facets over {documents:,} documents, ms")
        ahead = await timed(lambda: world.documents.warm_facets([world.collection]))  # type: ignore[attr-defined]
        rows = [await of_filter(world, name) for name in FILTERS]
        heads = ["filter", "first", "p50", "processor time", "bare count", "ratio", "p50 after a write"]
        table([*heads, "processor time after it"], rows)
        print(f"reading the values ahead: {ahead:.1f} s")


async def of_filter(world: World, name: str) -> list[object]:
    where = None if (raw := FILTERS[name]) is None else parse(raw)
    requests = [FacetRequest(field=one) for one in FIELDS]
    bare = f"SELECT count(*) FROM documents WHERE collection_id = {world.collection.id} AND deleted_at IS NULL"

    async def facets() -> None:
        await world.documents.facets(world.collection, requests, where)

    first = await timed(facets)
    plain, counts, after = list[float](), list[float](), list[float]()
    cpu = cpu_after = 0.0
    for _ in range(ROUNDS):
        counts.append(await timed(lambda: world.rows(bare)))
        started = time.process_time()
        plain.append(await timed(facets))
        cpu += time.process_time() - started
    for number in range(ROUNDS):
        await world.put(doc(f"d{1 + number}", kind="kind 3", year=2024 + number), now=later(number))
        started = time.process_time()
        after.append(await timed(facets))
        cpu_after += time.process_time() - started
    ratio = median(plain) / median(counts)
    cpu, cpu_after = (1e3 * seconds / ROUNDS for seconds in (cpu, cpu_after))
    return [name, 1e3 * first, median(plain), cpu, median(counts), ratio, median(after), cpu_after]


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    arguments = parser.parse_args()
    with sandbox() as place:
        asyncio.run(measure(place.url, arguments.documents))


if __name__ == "__main__":
    main()
