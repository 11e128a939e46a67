"""A whole re-index by phases, and the rate of its backfill against the bare encoding rate of the machine.

    python -m loadtests.backfill [--documents 100000]
    python -m loadtests.backfill --ray [--documents 600]     # two actors on Ray, against two ordinary workers

The collection is made of short texts (some 25 words), so that a CPU encodes 100,000 of them in minutes. The bare rate
is that of a process that encodes a sample of the same texts, packed beforehand, and does nothing else.
"""

import argparse
import asyncio
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from azimuth_client.operations import ndjson
from loadtests import corpus, ingest
from loadtests.figures import heading, table
from loadtests.ingest import apart
from loadtests.sandbox import Sandbox, sandbox, until
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


RAY_ROUNDS = 2
ACTORS = "backfill --ray local --workers 2"


def beside_ray(place: Sandbox, count: int) -> None:
    """Two actors and two workers in turns, of one thread each: abstracts that wait when they start.

    The rate counts from the first that is stored, so without the start, which has a column of its own.
    """
    texts = ingest.documents(None, count)
    rates: dict[str, list[tuple[float, float]]] = {}
    with place.api() as address, Client(address) as client:
        for number in range(RAY_ROUNDS):
            for way, commands in (("two workers", ["worker", "worker"]), ("two actors on Ray", [ACTORS])):
                name = f"{way.split()[1]}-{number}"
                client.ensure_collection(name)
                lines = (ndjson({"id": one.id, "text": one.text}) for one in texts)
                for outcome in client.import_batches(name, lines):
                    assert not outcome["errors"]

                def waiting(name: str = name) -> int:
                    return int(client.call("GET", f"/v1/collections/{name}")["counts"]["pending"])

                with ExitStack() as stack:
                    begun = time.monotonic()
                    for command in commands:
                        stack.enter_context(place.process(command, {"AZIMUTH_THREADS": "1"}))
                    until(lambda name=name: waiting(name) < count)  # type: ignore[misc]
                    first, left = time.monotonic(), waiting()
                    until(lambda name=name: waiting(name) == 0)  # type: ignore[misc]
                    rates.setdefault(way, []).append((left / (time.monotonic() - first), first - begun))
    (bare, _), *_ = found = [tuple(map(statistics.median, zip(*one, strict=True))) for one in rates.values()]
    heading(f"{count:,} documents, {RAY_ROUNDS} rounds")
    rows = [[way, rate, rate / bare, start] for way, (rate, start) in zip(rates, found, strict=True)]
    table(["", "documents/s", "of two workers", "start to first, s"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, help="default: 100,000; with --ray 600")
    parser.add_argument("--ray", action="store_true", help="the rate of workers on Ray")
    parser.add_argument("--folder", type=Path, help="keep everything here")
    arguments = parser.parse_args()
    with sandbox(arguments.folder) as place:
        if arguments.ray:
            beside_ray(place, arguments.documents or 600)
        else:
            measure(place, arguments.documents or 100_000)


if __name__ == "__main__":
    main()
