"""How long a new document takes to be found while a backfill runs: `python -m loadtests.live_latency`.

A client writes single new documents, one after the other, and waits for each until both legs find it (`wait=true`).
First nothing else goes on; then a second version of the same model with fewer dimensions is filled from the whole
collection meanwhile. Both in turns, with one API and one worker of which the model is the default one.

With `--searches`: how long searches take while documents are loaded, hybrid and reranked, of 1, 4 and 16 clients, under
`azimuth up`, where the worker yields to the API.

The ratio of the two is promised to stay within 2. What the backfill itself achieves is compared with loading the same
documents in the first place, which has the worker for itself as well.
"""

import argparse
import http.client
import itertools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadtests.clients import ask_at_once
from loadtests.figures import heading, percentile, table
from loadtests.ingest import documents, through_the_service
from loadtests.live import Machine
from loadtests.sandbox import Sandbox, sandbox, until
from service.client.http_client import Client
from service.core.documents import Document

COLLECTION = "live"
PROMISED = 2.0
CLIENTS = (1, 4, 16)
SEARCHES: dict[str, tuple[dict[str, Any], float]] = {"hybrid": ({}, 1.5), "reranked": ({"rerank": True}, 2.0)}
"""What is added to a request, and the ratio of p95 that is aimed at."""
WARM_UP = 5
"""Documents of each series that are not counted."""


def latencies(address: str, texts: Iterator[Document], count: int) -> list[float]:
    """Seconds from the request to the answer that both legs find the document."""
    seconds = []
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)
    for one in (next(texts) for _ in range(WARM_UP + count)):
        body = json.dumps({"documents": [{"id": one.id, "title": one.title, "text": one.text}]}).encode()
        started = time.perf_counter()
        path = f"/v1/collections/{COLLECTION}/documents?wait=true"
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        read = response.read()
        seconds.append(time.perf_counter() - started)
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {read[:300]!r}")
    connection.close()
    return seconds[WARM_UP:]


def register(client: Client, dimensions: int) -> int:
    """A second version of the same model, whose backfill starts."""
    number, _ = client.register(COLLECTION, {"embedder": {"dimensions": dimensions}})
    return number


def progress(client: Client, number: int) -> tuple[bool, int]:
    """Is it being filled? And how many documents it has so far."""
    version: dict[str, Any] = client.version(COLLECTION, number)
    return version["state"] == "backfilling", version["progress"]["done"]


def backfill_alone(client: Client, dimensions: int) -> float:
    """Seconds of a whole backfill that nothing else disturbs."""
    number = register(client, dimensions)
    started = time.perf_counter()
    until(lambda: not progress(client, number)[0], seconds=1_800, pause=0.25)
    elapsed = time.perf_counter() - started
    client.retire(COLLECTION, number)
    return elapsed


def measure(place: Sandbox, texts: Sequence[Document], count: int, rounds: int, dimensions: int) -> None:
    corpus, fresh = texts[: -rounds * 2 * (count + WARM_UP)], iter(texts[-rounds * 2 * (count + WARM_UP) :])
    calm: list[float] = []
    busy: list[float] = []
    rates: list[float] = []
    with place.api() as address, Client(address) as client, place.process("worker"):
        through_the_service(client, COLLECTION, corpus[:16])
        loaded = _timed(lambda: through_the_service(client, COLLECTION, corpus[16:]))
        for _ in range(rounds):
            calm += latencies(address, fresh, count)
            number = register(client, dimensions)
            until(lambda number=number: progress(client, number)[1] > 0)  # type: ignore[misc]
            before, started = progress(client, number)[1], time.perf_counter()
            busy += latencies(address, fresh, count)
            filling, done = progress(client, number)
            if not filling:
                raise RuntimeError("the backfill was over before the measurement: more --documents are needed")
            rates.append((done - before - count - WARM_UP) / (time.perf_counter() - started))
            client.retire(COLLECTION, number)
        filled = backfill_alone(client, dimensions)
        in_collection = client.counts(COLLECTION)["documents"]
    _tell(calm, busy)
    heading(f"The backfill of {in_collection:,} documents")
    load_rate, alone_rate = (len(corpus) - 16) / loaded, in_collection / filled
    rows: list[list[object]] = [["loading them in the first place", load_rate, 1.0]]
    rows.append(["backfill, nothing else", alone_rate, alone_rate / load_rate])
    rows += [[f"backfill, round {at + 1} of live writes", rate, rate / load_rate] for at, rate in enumerate(rates)]
    table(["", "documents/s", "of loading"], rows)


@contextmanager
def loading(client: Client, texts: Sequence[Document]) -> Iterator[list[float]]:
    """The texts are loaded into one new collection after the other while the block runs: seconds of each."""
    done, seconds = threading.Event(), list[float]()

    def load() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            seconds.append(_timed(lambda number=number: through_the_service(client, f"load-{number}", texts)))  # type: ignore[misc]

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield seconds
    finally:
        done.set()
        thread.join()


def searches(texts: Sequence[Document], count: int, folder: Path) -> None:
    """Searches of sentences of the collection, alone and while as many documents are loaded again and again."""
    queries = [" ".join(one.text.split()[8:18]) for one in texts]

    def measure(clients: int, kind: str) -> list[float]:
        asked = [{"query": queries[at % len(queries)], **SEARCHES[kind][0]} for at in range(max(count, 5 * clients))]
        _, answers = ask_at_once(address, COLLECTION, asked, clients)
        return answers.seconds

    cases = list(itertools.product(SEARCHES, CLIENTS))
    with Machine(folder).running() as machine:
        address = f"http://127.0.0.1:{machine.port}"
        with Client(address) as client:
            alone = _timed(lambda: through_the_service(client, COLLECTION, texts))
            for kind in SEARCHES:
                measure(1, kind)
            calm = {case: measure(case[1], case[0]) for case in cases}
            with loading(client, texts) as loads:
                time.sleep(1.0)
                busy = {case: measure(case[1], case[0]) for case in cases}
    heading(f"Searches while documents are loaded, {count} and more of each kind, p95 in ms")
    rows: list[list[object]] = []
    for kind, clients in cases:
        quiet, beside = (percentile(one[kind, clients], 0.95) for one in (calm, busy))
        rows.append([kind, clients, quiet, beside, beside / quiet, SEARCHES[kind][1]])
    table(["", "clients", "alone", "beside", "ratio", "aimed at"], rows)
    beside_rate = len(texts) * len(loads) / sum(loads)
    print(f"  loaded: {len(texts) / alone:.1f} documents/s without searches, {beside_rate:.1f} with them")


def _tell(calm: Sequence[float], busy: Sequence[float]) -> None:
    heading(f"One new document until both legs find it, {len(calm)} each, ms")
    rows: list[list[object]] = [
        [name, *(percentile(seconds, share) for share in (0.5, 0.95, 1.0))]
        for name, seconds in (("nothing else", calm), ("during a backfill", busy))
    ]
    ratios = [percentile(busy, share) / percentile(calm, share) for share in (0.5, 0.95, 1.0)]
    table(["", "p50", "p95", "slowest"], [*rows, ["ratio", *ratios]])
    kept = all(ratio <= PROMISED for ratio in ratios[:2])
    print(f"  promised: within {PROMISED:.0f} times at p50 and p95: {'kept' if kept else 'NOT KEPT'}", flush=True)


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--corpus", type=Path, help="corpus.jsonl of a BEIR folder; none: made texts")
    arguments.add_argument("--documents", type=int, default=1_500, help="in the collection, to be filled in again")
    arguments.add_argument("--writes", type=int, default=60, help="single documents of each series")
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--dimensions", type=int, default=256, help="of the second version")
    arguments.add_argument("--searches", action="store_true", help="of searches while documents are loaded, instead")
    arguments.add_argument("--folder", type=Path, help="keep everything here")
    chosen = arguments.parse_args()
    fresh = chosen.rounds * 2 * (chosen.writes + WARM_UP)
    texts = documents(chosen.corpus, chosen.documents + fresh)
    if len(texts) < chosen.documents + fresh:
        raise SystemExit(f"the corpus has {len(texts)} documents, needed are {chosen.documents + fresh}")
    if chosen.searches:
        with tempfile.TemporaryDirectory(prefix="azimuth-bench-") as folder:
            Path(folder).chmod(0o755)  # PostgreSQL does not run as root
            searches(texts[: chosen.documents], chosen.writes, chosen.folder or Path(folder))
    else:
        with sandbox(chosen.folder) as place:
            measure(place, texts, chosen.writes, chosen.rounds, chosen.dimensions)


if __name__ == "__main__":
    main()
