"""Is the recall that the service tells true, and what does it cost to know it? `python -m loadtests.recall`.

Truth is brute force over what is stored, outside of the service, for the answers that clients got: 1,000 queries, at
two settings of `ef_search`, with and without a filter. What is told comes from `GET .../recall`, of looks at the same
live traffic; for this part alone they may take all the time they want, so that there are enough of them in minutes.

What they cost at the default budget is measured with two services on one database, of which one never looks. They are
asked in turns, block by block, in random order; while one is asked, the other is stopped (SIGSTOP), so that nothing of
it is going on. Each block of one is compared with its neighbour of the other.
"""

import argparse
import asyncio
import itertools
import random
import signal
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import numpy as np
import psycopg

from loadtests.clients import Answers, ask_at_once
from loadtests.figures import heading, percentile, table
from loadtests.sandbox import Sandbox, sandbox, until, unused_port
from loadtests.space import clustered, create
from service.client.http_client import Client
from service.core.collections import CollectionSettings, EmbedderSpec
from service.core.documents import Document
from service.core.ids import CollectionName, DocumentId, Vectors
from service.core.periodic import utc_now
from service.runtime.container import components
from service.runtime.settings import Settings
from service.store.postgres.vectors import vector_tables

COLLECTION = CollectionName("recall")
DIMENSIONS, SEED = 384, 23
K = 10
TOLERANCE, MOST_COST = 0.01, 0.02
QUIET = {"AZIMUTH_EMBEDDER": f"hashing:{DIMENSIONS}", "AZIMUTH_RERANKER": "none"}

Request = dict[str, Any]


def vectors_of(documents: int, queries: int) -> tuple[Vectors, Vectors]:
    """What is stored, and what is asked: half way from some of it to where nothing is, which an index finds hard."""
    stored = clustered(documents, DIMENSIONS, SEED)
    chosen = np.random.default_rng(SEED).permutation(documents)[:queries]
    asked = stored[chosen] + clustered(queries, DIMENSIONS, SEED + 1, per_cluster=1)
    return stored, asked / np.linalg.norm(asked, axis=1, keepdims=True)


async def fill(place: Sandbox, stored: Vectors) -> None:
    settings = Settings(data_dir=place.folder, log_level="warning", embedder=f"hashing:{DIMENSIONS}")
    models = components.model_registry(settings)
    async with components.open_store(settings, place.url, "benchmark") as store:
        spec = models.resolve(EmbedderSpec())
        encoder = await models.get(spec)
        space = await create(store.pool, COLLECTION, CollectionSettings(embedder=spec), encoder, ["a", "b", "c"])
        documents = [
            Document(id=DocumentId(f"{at}"), text=f"number {at}", metadata={"percent": percent(at)})
            for at in range(len(stored))
        ]
        await space.add(documents, stored)
        table_name = vector_tables.vector_table_of(space.version).table
        await space.run([f"VACUUM ANALYZE {table_name}", "VACUUM ANALYZE documents", "VACUUM ANALYZE jobs"])
        await components.state_machine(settings, store, components.model_verifier(store, models)).maintain_complete(
            utc_now
        )
    await models.close()


def calibrate(place: Sandbox) -> None:
    """Let the service find out how far to look, which it does once for an index."""
    with place.api(QUIET) as address, Client(address) as client:
        path = f"/v1/collections/{COLLECTION}/recall"
        until(lambda: client.call("GET", path)["versions"][0]["curve"] is not None, seconds=900, pause=1.0)


def percent(at: int) -> int:
    return at * 7_919 % 100


def truth(stored: Vectors, asked: Vectors, filter_match: np.ndarray | None) -> list[set[str]]:
    """The nearest of each query by brute force, over the halves that the table holds."""
    places = np.arange(len(stored)) if filter_match is None else np.flatnonzero(filter_match)
    rows = stored[places].astype(np.float16).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = []
    for at in range(0, len(asked), 50):
        cosines = asked[at : at + 50] @ rows.T
        best = np.argpartition(-cosines, K, axis=1)[:, :K]
        found += [{f"{places[place]}" for place in own} for own in best]
    return found


@dataclass
class Told:
    queries: int
    recall: float
    low: float
    high: float


def told(client: Client, plan: str, ef_search: int) -> Told:
    """Of all series of this effort with or without a filter."""
    answer = client.call("GET", f"/v1/collections/{COLLECTION}/recall")
    for series in answer["versions"][0]["series"]:
        if (series["plan"], series["ef_search"]) == (plan, ef_search):
            return Told(series["queries"], series["recall"], series["low"], series["high"])
    return Told(0, float("nan"), 0.0, 1.0)


def is_true(
    place: Sandbox, stored: Vectors, asked: Vectors, looks: int, share: int, ef_settings: Sequence[int]
) -> bool:
    """`share`: percent that pass the filter."""
    filter_match = np.array([percent(at) < share for at in range(len(stored))])
    rows: list[Sequence[object]] = []
    good = True
    for narrowed, among in (({}, None), ({"filter": {"percent": {"$lt": share}}}, filter_match)):
        true = truth(stored, asked, among)
        for ef_search in ef_settings:
            options: Request = {"ef_search": ef_search, "candidates": K, **narrowed}
            with psycopg.connect(place.url) as connection:
                connection.execute("DELETE FROM recall_probes")  # of an earlier run in this folder
            with place.api({**QUIET, "AZIMUTH_PROBE_BUDGET_MS": "60000"}) as address, Client(address) as client:
                outside, plan, seen = _traffic(address, client, asked, true, options, looks)
            difference = abs(outside - seen.recall)
            good &= difference <= TOLERANCE
            name = f"{plan}, ef_search {ef_search}" + (f", {share} % pass" if narrowed else "")
            rows.append([name, len(asked), outside, seen.queries, seen.recall, seen.low, seen.high, difference])
    heading(f"Recall@{K} of live searches: computed outside, and told by the service (95 % interval)")
    table(["searches", "queries", "true", "looks", "told", "low", "high", "difference"], rows)
    return good


def _traffic(
    address: str, client: Client, asked: Vectors, true: Sequence[set[str]], options: Request, looks: int
) -> tuple[float, str, Told]:
    """Ask all queries over and over, by two clients, until so many looks are told of."""
    requests = [request(vector, **options) for vector in asked]
    deadline = time.monotonic() + 1_800
    recalls: list[float] = []
    while True:
        _, answers = ask_at_once(address, COLLECTION, requests, 2)
        # Two clients: the answers of every second query first.
        order = [*range(0, len(asked), 2), *range(1, len(asked), 2)]
        pairs = zip(order, answers.bodies, strict=True)
        recalls += [len({hit["id"] for hit in body["hits"]} & true[at]) / K for at, body in pairs]
        plan: str = answers.bodies[-1]["plan"]["dense"]
        if plan == "exact":
            raise RuntimeError("so few pass the filter that they are scanned exactly: choose a larger --passing")
        seen = told(client, plan, options["ef_search"])
        if seen.queries >= looks:
            return statistics.fmean(recalls), plan, seen
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {seen.queries} looks were told of {plan}")


def request(vector: np.ndarray, **options: Any) -> Request:
    return {
        "vector": [round(float(one), 6) for one in vector],
        "embedder_version": 1,
        "mode": "dense",
        "include": [],
        **options,
    }


@dataclass
class Side:
    """One of the two services, and what its clients waited, block by block."""

    address: str
    process: "Popen[bytes]"
    blocks: list[list[float]] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGSTOP)

    @property
    def seconds(self) -> list[float]:
        return list(itertools.chain.from_iterable(self.blocks))


@contextmanager
def side(place: Sandbox, settings: dict[str, str]) -> Iterator[Side]:
    port = unused_port()
    with place.process("serve", {**QUIET, **settings, "AZIMUTH_PORT": str(port)}) as process:
        address = f"http://127.0.0.1:{port}"
        with Client(address) as client:
            until(client.ready, process)
        process.send_signal(signal.SIGSTOP)
        try:
            yield Side(address, process)
        finally:
            process.send_signal(signal.SIGCONT)


def block(of: Side, requests: Sequence[Request], clients: int, seconds: float) -> None:
    """Ask one after the other, by so many clients, for so long."""
    parts = [Answers() for _ in range(clients)]
    over = time.monotonic() + seconds

    def work(number: int) -> None:
        while time.monotonic() < over:
            chosen = random.sample(requests, 25)
            parts[number].seconds += ask_at_once(of.address, COLLECTION, chosen, 1)[1].seconds

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    of.blocks.append(list(itertools.chain.from_iterable(part.seconds for part in parts)))


def costs(place: Sandbox, asked: Vectors, clients: int, pairs: int, seconds: float) -> float:
    """By how much p95 is higher where looks are taken at the default budget, as a share."""
    requests = [request(vector) for vector in asked]
    with ExitStack() as stack:
        looking = stack.enter_context(side(place, {}))
        blind = stack.enter_context(side(place, {"AZIMUTH_PROBE_BUDGET_MS": "0"}))
        for one in (looking, blind):
            with one.running():
                block(one, requests, clients, 5.0)
            one.blocks.clear()
        for _ in range(pairs):
            for one in random.sample([looking, blind], 2):
                with one.running():
                    block(one, requests, clients, seconds)
        with looking.running():
            looks = counted(looking.address)
    rows: list[Sequence[object]] = []
    added = {}
    for share in (0.5, 0.95, 0.99):
        ratios = [
            percentile(a, share) / percentile(b, share) for a, b in zip(looking.blocks, blind.blocks, strict=True)
        ]
        low, high = interval(ratios)
        added[share] = statistics.median(ratios) - 1
        rows.append(
            [
                f"p{100 * share:g}",
                percentile(looking.seconds, share),
                percentile(blind.seconds, share),
                100 * added[share],
                100 * (low - 1),
                100 * (high - 1),
                100 * (percentile(looking.seconds, share) / percentile(blind.seconds, share) - 1),
            ]
        )
    heading(
        f"{clients} clients, dense, {pairs} pairs of blocks of {seconds:g} s, {len(looking.seconds):,} searches with "
        f"looks ({looks} of them): ms, and what looks add in % (median of pairs, its 95 % interval; all pooled)"
    )
    table(["", "with looks", "without", "adds", "low", "high", "pooled"], rows)
    return added[0.95]


def counted(address: str) -> int:
    """The looks of one service that told something."""
    text = httpx.get(f"{address}/metrics", trust_env=False).text
    lines = (line.split() for line in text.splitlines() if line.startswith("azimuth_probes_total"))
    return round(sum(float(value) for name, value in lines if 'outcome="compared"' in name))


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Of the median, by bootstrap."""
    drawn = np.random.default_rng(0).choice(np.array(ratios), (2_000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--documents", type=int, default=100_000)
    arguments.add_argument("--queries", type=int, default=1_000)
    arguments.add_argument("--looks", type=int, default=2_000, help="that what is told is a mean of, at least")
    arguments.add_argument("--efforts", type=int, nargs="+", default=[10, 40], help="of ef_search")
    arguments.add_argument("--passing", type=int, default=60, help="percent that pass the filter: too many to be named")
    arguments.add_argument("--pairs", type=int, default=20, help="blocks with and without looks; 0: costs are left out")
    arguments.add_argument("--seconds", type=float, default=20.0, help="of one block")
    arguments.add_argument("--clients", type=int, default=2)
    arguments.add_argument("--folder", type=Path, help="keep the collection here, or use the one that is here")
    chosen = arguments.parse_args()
    stored, asked = vectors_of(chosen.documents, chosen.queries)
    with sandbox(chosen.folder) as place:
        filled = place.folder / f"recall-{chosen.documents}-{chosen.queries}"
        if not filled.exists():
            asyncio.run(fill(place, stored))
            calibrate(place)
            filled.touch()
        good = is_true(place, stored, asked, chosen.looks, chosen.passing, chosen.efforts)
        print(f"{'within' if good else 'NOT within'} {TOLERANCE} of the truth")
        if chosen.pairs:
            added = costs(place, asked, chosen.clients, chosen.pairs, chosen.seconds)
            more = "no more" if added <= MOST_COST else "MORE"
            print(f"looks add {100 * added:.1f} % to p95: {more} than {MOST_COST:.0%}")


if __name__ == "__main__":
    main()
