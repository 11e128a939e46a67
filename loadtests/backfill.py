"""A whole re-index by phases, and the rate of its backfill against the bare encoding rate of the machine.

    python -m loadtests.backfill [--documents 100000]

The collection is made of short texts (some 25 words), so that a CPU encodes 100,000 of them in minutes. The bare rate
is that of a process that encodes a sample of the same texts, packed beforehand, and does nothing else.
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

from loadtests import corpus
from loadtests.figures import heading, table
from loadtests.ingest import apart
from loadtests.sandbox import Sandbox, sandbox
from loadtests.space import create
from service.client.http_client import Client
from service.core.collections import CollectionSettings, EmbedderSpec
from service.core.documents import Document
from service.core.periodic import utc_now
from service.runtime.container import components
from service.runtime.settings import Settings

COLLECTION = "bench"
WORDS = (25, 8, 40)
"""Mean, least and most of a text."""
SAMPLE = 4_000
POLL_SECONDS = 0.25
TENTH = 0.1


async def fill(place: Sandbox, count: int) -> list[Document]:
    """The collection with version 1 complete and indexed; answers a sample of it."""
    settings = Settings(data_dir=place.folder, log_level="warning")
    models = components.model_registry(settings)
    sample: list[Document] = []
    async with components.open_store(settings, place.url, "benchmark") as store:
        spec = models.resolve(EmbedderSpec())
        encoder = await models.get(spec)
        made = await asyncio.to_thread(corpus.build, encoder, 3, 1)
        space = await create(store.pool, COLLECTION, CollectionSettings(embedder=spec), encoder, made.queries[:3])
        for batch, vectors in made.documents(count, 2, WORDS):
            await space.add(batch, vectors)
            sample += batch[: max(1, SAMPLE * len(batch) // count)]
        await components.state_machine(settings, store, components.model_verifier(store, models)).maintain_complete(
            utc_now
        )
    await models.close()
    return sample


def reindex(client: Client, to: dict[str, Any]) -> tuple[dict[str, float], float, float]:
    """Seconds of each state, documents a second of the backfill, and how right the ETA was after the first tenth."""
    seconds: dict[str, float] = {}
    number = client.call("POST", f"/v1/collections/{COLLECTION}/versions", json=to)["number"]
    started = since = time.monotonic()
    state, promised, total = "backfilling", 0.0, 0
    while state not in ("ready", "failed"):
        time.sleep(POLL_SECONDS)
        version = client.call("GET", f"/v1/collections/{COLLECTION}/versions/{number}")
        progress, now = version["progress"], time.monotonic()
        if state == "backfilling" and not promised and progress["done"] >= TENTH * progress["total"]:
            promised, total = now + (progress["eta_seconds"] or 0.0), progress["total"]
        if version["state"] != state:
            seconds[state] = now - since
            state, since = version["state"], now
    if state == "failed":
        raise RuntimeError(version["reason"])
    ended = started + seconds["backfilling"]
    return seconds, total / seconds["backfilling"], (promised - started) / (ended - started)


def measure(place: Sandbox, count: int) -> None:
    sample = asyncio.run(fill(place, count))
    alone = apart(sample)
    with place.api() as address, place.process("worker"), Client(address) as client:
        seconds, rate, promise = reindex(client, {"embedder": {"document_prompt": "passage: "}})
        state = client.call("GET", f"/v1/collections/{COLLECTION}/versions/2")
    heading(f"{count:,} documents, {state['chunks']:,} chunks")
    table(["phase", "seconds"], list(seconds.items()))
    bare = alone.passages / alone.seconds
    table(["", "passages/s", "of alone"], [["encoding alone", bare, 1.0], ["backfill", rate, rate / bare]])
    print(f"  the end as told after the first tenth / the end as it came: {promise:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="keep everything here")
    arguments = parser.parse_args()
    with sandbox(arguments.folder) as place:
        measure(place, arguments.documents)


if __name__ == "__main__":
    main()
