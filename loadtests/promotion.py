"""Latency of searches while a version is promoted under them, as a ratio to the seconds before, in one run.

    python -m loadtests.promotion [--in-flight 200] [--documents 8000]

So many clients search without pause while the embedder version is switched, there and back. "During" are
all searches that were under way when it was asked for, or began within a second after it was answered.
"""

import argparse
import asyncio
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from loadtests import corpus, figures
from loadtests.live import PATH, Machine, insist
from loadtests.sandbox import until
from service.core.collections import EmbedderSpec
from service.embedder.models.registry import ModelRegistry

AFTER_SECONDS = 1.0
"""Other API processes go on to answer in the old version for up to a second after the switch."""


@dataclass
class Load:
    """What all clients together were answered."""

    searches: list[tuple[float, float, int]] = field(default_factory=list)
    """When it began, how long it took, which version answered."""
    failures: Counter[str] = field(default_factory=Counter)

    async def client(self, http: httpx.AsyncClient, queries: Iterator[str]) -> None:
        while True:
            started = time.monotonic()
            try:
                response = await http.post(f"{PATH}/search", json={"query": next(queries), "include": []})
            except httpx.TransportError as error:
                self.failures[type(error).__name__] += 1
                continue
            if response.status_code != httpx.codes.OK:
                self.failures[str(response.status_code)] += 1
                continue
            version = response.json()["embedder_version"]
            self.searches.append((started, time.monotonic() - started, version))

    def seconds(self, since: float, until: float) -> list[float]:
        """Of searches that were under way at some moment between the two."""
        return [took for began, took, _ in self.searches if began < until and began + took > since]


async def switch(machine: Machine, queries: list[str], in_flight: int, calm: float) -> None:
    load, rows = Load(), []
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    base = f"http://127.0.0.1:{machine.port}"
    async with (
        httpx.AsyncClient(base_url=base, timeout=60.0, limits=limits, trust_env=False) as http,
        httpx.AsyncClient(base_url=base, timeout=60.0, trust_env=False) as operator,
    ):
        asked = itertools.cycle(queries)
        clients = [asyncio.create_task(load.client(http, asked)) for _ in range(in_flight)]
        await asyncio.sleep(calm)  # connections, caches
        for what, path in (("promote", "versions/2/promote"), ("roll back", "versions/rollback")):
            calm_from = time.monotonic()
            await asyncio.sleep(calm)
            began = time.monotonic()
            body = {"force": True} if what == "promote" else None
            (await operator.post(f"{PATH}/{path}", json=body)).raise_for_status()
            answered = time.monotonic()
            await asyncio.sleep(calm)
            before = load.seconds(calm_from, began)
            during = load.seconds(began, answered + AFTER_SECONDS)
            rows.append(
                [
                    what,
                    1e3 * (answered - began),
                    len(before),
                    figures.percentile(before, 0.99),
                    len(during),
                    figures.percentile(during, 0.99),
                    figures.percentile(during, 0.99) / figures.percentile(before, 0.99),
                ]
            )
        failures = dict(load.failures)  # what breaks off below is our own doing
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    figures.heading(f"{in_flight} searches in flight")
    figures.table(["", "switch ms", "before", "p99 ms", "during", "p99 ms", "ratio"], rows)
    versions = Counter(version for *_, version in load.searches)
    print(f"  answered by version: {dict(sorted(versions.items()))}; failed: {failures or 0}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--in-flight", type=int, default=200, help="clients that search without pause")
    parser.add_argument("--documents", type=int, default=8_000)
    parser.add_argument("--calm", type=float, default=10.0, help="seconds before and after each switch")
    parser.add_argument("--to", default="hashing:384", help="the other embedder")
    arguments = parser.parse_args()
    registry = ModelRegistry(default="all-MiniLM-L6-v2")
    encoder = asyncio.run(registry.get(EmbedderSpec()))
    made = corpus.build(encoder, queries=300, seed=1)
    with tempfile.TemporaryDirectory(prefix="azimuth-promotion-") as folder:
        settings = {"AZIMUTH_MAX_CONCURRENT_SEARCHES": str(2 * arguments.in_flight), "AZIMUTH_EMBEDDER": "hashing:256"}
        machine = Machine(Path(folder), settings=settings)
        with machine.running(), machine.client() as http:
            insist(http, "PUT", PATH, json={})
            for batch, _ in made.documents(arguments.documents, seed=2):
                documents = [{"id": one.id, "text": one.text} for one in batch]
                insist(http, "POST", f"{PATH}/documents", json={"documents": documents})
            insist(http, "POST", f"{PATH}/versions", json={"embedder": arguments.to})
            until(lambda: insist(http, "GET", f"{PATH}/versions/2")["state"] == "ready", seconds=900, pause=1.0)
            asyncio.run(switch(machine, list(made.queries), arguments.in_flight, arguments.calm))


if __name__ == "__main__":
    main()
