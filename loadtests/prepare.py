"""The collection that searches are measured on: made once, found again where the folder is kept."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from loadtests import corpus
from loadtests.figures import heading
from loadtests.sandbox import Sandbox, until
from loadtests.space import create
from service.client.http_client import Client
from service.core.collections import CollectionSettings, EmbedderSpec
from service.core.periodic import utc_now
from service.runtime.container import components
from service.runtime.settings import Settings
from service.store.postgres.vectors import vector_tables

COLLECTION = "bench"
SEED = 11
QUERIES = 200


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder, log_level="warning")


def queries(place: Sandbox, documents: int) -> list[str]:
    """Fill the collection with so many documents of one chunk, unless it is there; answers the queries to ask."""
    kept = place.folder / f"queries-{documents}.json"
    if not kept.exists():
        kept.write_text(json.dumps(asyncio.run(_fill(place, documents))))
    asked: list[str] = json.loads(kept.read_text())
    return asked


async def _fill(place: Sandbox, documents: int) -> list[str]:
    settings = settings_in(place.folder)
    models = components.model_registry(settings)
    started = time.perf_counter()
    async with components.open_store(settings, place.url, "benchmark") as store:
        spec = models.resolve(EmbedderSpec())
        encoder = await models.get(spec)
        made = await asyncio.to_thread(corpus.build, encoder, QUERIES, SEED)
        space = await create(store.pool, COLLECTION, CollectionSettings(embedder=spec), encoder, made.queries[:3])
        for batch, vectors in made.documents(documents, SEED):
            await space.add(batch, vectors)
        loaded = time.perf_counter()
        table = vector_tables.vector_table_of(space.version).table
        await space.run([f"VACUUM ANALYZE {table}", "VACUUM ANALYZE documents", "VACUUM ANALYZE jobs"])
        building = time.perf_counter()
        await components.state_machine(settings, store, components.model_verifier(store, models)).maintain_complete(
            utc_now
        )
        built = time.perf_counter()
    await models.close()
    heading(f"{documents:,} documents written in {loaded - started:.0f} s, HNSW built in {built - building:.0f} s")
    return list(made.queries)


def caught_up(client: Client, collection: str = COLLECTION) -> None:
    """Return when lexical search sees everything."""

    def seen() -> bool:
        answer: dict[str, Any] = client.call("GET", f"/v1/collections/{collection}")
        lag: float | None = answer["lexical_lag_seconds"]
        return lag == 0

    until(seen, seconds=600)
