"""Does the service stay useful at ten times its capacity? `python -m loadtests.overload`.

Clients that ask in turns (a closed loop) show the capacity of one route. Then requests arrive at ten times that rate,
whether or not earlier ones were answered (an open loop), and times are counted from when each was due. At the end a
single client shows how soon the service is as quick as before. Requests come from processes of their own.
"""

import argparse
import asyncio
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvloop

from loadtests import prepare
from loadtests.figures import heading, percentile, table
from loadtests.sandbox import sandbox

CALM_SEARCHES = 5
"""So many quick answers in a row show that the service has recovered."""
QUICK = 2.0
"""An answer within so many times the 95th percentile of one client alone is quick."""
RECOVERY_SECONDS = 30.0
WARM_UP_SECONDS = 10.0
"""For what is loaded, drawn or cached by the first requests."""


@dataclass
class Answers:
    """Of one phase: seconds of each answer by its status; 0 stands for a broken connection."""

    lasted: float
    seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def goodput(self) -> float:
        return len(self.seconds.get(200, [])) / self.lasted

    def p95(self, status: int) -> float:
        """In milliseconds."""
        found = self.seconds.get(status)
        return percentile(found, 0.95) if found else float("nan")


class Connections:
    """Keep-alive connections to one service, opened as they are needed."""

    def __init__(self, netloc: str) -> None:
        self._host, _, self._port = netloc.partition(":")
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes) -> int:
        try:
            pair = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, int(self._port))
            reader, writer = pair
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
        except (OSError, asyncio.IncompleteReadError):
            return 0
        self._idle.append(pair)
        return int(head[9:12])

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def encoded(netloc: str, path: str, bodies: Sequence[Mapping[str, Any]]) -> list[bytes]:
    head = f"POST {path} HTTP/1.1\r\nHost: {netloc}\r\nContent-Type: application/json\r\n"
    contents = [json.dumps(body).encode() for body in bodies]
    return [f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content for content in contents]


def closed_loop(netloc: str, requests: Sequence[bytes], clients: int, seconds: float) -> Answers:
    """Each client asks again as soon as it has its answer."""
    return uvloop.run(_closed_loop(netloc, requests, clients, seconds))


async def _closed_loop(netloc: str, requests: Sequence[bytes], clients: int, seconds: float) -> Answers:
    answers, connections, end = Answers(seconds), Connections(netloc), time.perf_counter() + seconds

    async def client(at: int) -> None:
        while (started := time.perf_counter()) < end:
            status = await connections.ask(requests[at % len(requests)])
            answers.seconds[status].append(time.perf_counter() - started)
            at += clients

    await asyncio.gather(*(client(at) for at in range(clients)))
    await connections.close()
    return _picklable(answers)


def open_loop(netloc: str, requests: Sequence[bytes], rate: float, seconds: float) -> Answers:
    """Requests arrive at `rate` per second, whatever becomes of them."""
    return uvloop.run(_open_loop(netloc, requests, rate, seconds))


async def _open_loop(netloc: str, requests: Sequence[bytes], rate: float, seconds: float) -> Answers:
    answers, connections, begun = Answers(seconds), Connections(netloc), time.perf_counter()
    asking = set[asyncio.Task[None]]()

    async def ask(due: float, request: bytes) -> None:
        status = await connections.ask(request)
        answers.seconds[status].append(time.perf_counter() - due)

    for number in range(int(rate * seconds)):
        due = begun + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(ask(due, requests[number % len(requests)]))
        asking.add(task)
        task.add_done_callback(asking.discard)
    await asyncio.gather(*asking)
    await connections.close()
    return _picklable(answers)


def _picklable(answers: Answers) -> Answers:
    return Answers(answers.lasted, dict(answers.seconds))


def recovery(netloc: str, requests: Sequence[bytes], quick: float) -> float:
    """Seconds until one client has had `CALM_SEARCHES` answers in a row within `quick` seconds each."""

    async def wait() -> float:
        connections, begun, calm_since, in_a_row, number = Connections(netloc), time.perf_counter(), 0.0, 0, 0
        while in_a_row < CALM_SEARCHES and time.perf_counter() - begun < RECOVERY_SECONDS:
            started = time.perf_counter()
            calm_since = calm_since if in_a_row else started - begun
            status = await connections.ask(requests[number % len(requests)])
            in_a_row = in_a_row + 1 if status == 200 and time.perf_counter() - started <= quick else 0
            number += 1
        await connections.close()
        return calm_since if in_a_row else RECOVERY_SECONDS

    return uvloop.run(wait())


def memory_mb(address: str) -> float:
    found = re.search(r"^process_resident_memory_bytes (\S+)", httpx.get(f"{address}/metrics").text, re.MULTILINE)
    return float(found[1]) / 2**20 if found else float("nan")


def bodies_of(route: str, texts: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
    """The path of a route, and what is sent there."""
    collection = f"/v1/collections/{prepare.COLLECTION}"
    passages = list(texts[:20])
    ways: dict[str, tuple[str, Callable[[int, str], dict[str, Any]]]] = {
        "search": (f"{collection}/search", lambda _, text: {"query": text}),
        "reranked": (f"{collection}/search", lambda _, text: {"query": text, "rerank": True}),
        "rerank": ("/rerank", lambda _, text: {"query": text, "texts": passages}),
        "embeddings": ("/v1/embeddings", lambda _, text: {"input": [text] * 4, "model": "default"}),
        "write": (
            f"{collection}/documents",
            lambda at, text: {"documents": [{"id": f"overload-{at}", "text": f"{text} {time.time()}"}]},
        ),
    }
    path, body = ways[route]
    return path, [body(at, text) for at, text in enumerate(texts)]


def measure(address: str, route: str, texts: Sequence[str], clients: int, seconds: float, times: float) -> None:
    netloc = urlsplit(address).netloc
    path, bodies = bodies_of(route, texts)
    requests = encoded(netloc, path, bodies)
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        apart.submit(closed_loop, netloc, requests, clients, WARM_UP_SECONDS).result()
        alone = apart.submit(closed_loop, netloc, requests, 1, 3.0).result()
        capacity = apart.submit(closed_loop, netloc, requests, clients, seconds).result()
        before = memory_mb(address)
        rate = times * capacity.goodput
        flood = apart.submit(open_loop, netloc, requests, rate, seconds).result()
        recovered = apart.submit(recovery, netloc, requests, QUICK * alone.p95(200) / 1e3).result()
        after = memory_mb(address)
    heading(f"{route}: {clients} clients in turns, then {rate:.0f} requests per second for {seconds:.0f} s")
    table(
        ["", "answered per second", "p95 answered (ms)", "p95 of 429 (ms)", "answers by status"],
        [
            [name, f"{one.goodput:.1f}", one.p95(200), one.p95(429), _counts(one)]
            for name, one in (("one client", alone), ("capacity", capacity), ("overload", flood))
        ],
    )
    print(
        f"goodput ratio {flood.goodput / capacity.goodput:.2f}, accepted p95 ratio "
        f"{flood.p95(200) / capacity.p95(200):.2f}, p95 of a 429 {flood.p95(429):.1f} ms, "
        f"memory {before:.0f} MB before and {after:.0f} MB after, recovered after {recovered:.1f} s"
    )


def _counts(answers: Answers) -> str:
    return ", ".join(f"{status}: {len(found)}" for status, found in sorted(answers.seconds.items()))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--route", choices=["search", "reranked", "rerank", "embeddings", "write"], default="search")
    arguments.add_argument("--documents", type=int, default=5_000)
    arguments.add_argument("--clients", type=int, default=8, help="that ask in turns at capacity")
    arguments.add_argument("--seconds", type=float, default=15.0, help="of each phase")
    arguments.add_argument("--times", type=float, default=10.0, help="the capacity, in the overload")
    arguments.add_argument("--folder", type=Path, help="kept, and found again the next time")
    chosen = arguments.parse_args()
    with sandbox(chosen.folder) as place:
        texts = prepare.queries(place, chosen.documents)
        with place.api() as address:
            measure(address, chosen.route, texts, chosen.clients, chosen.seconds, chosen.times)


if __name__ == "__main__":
    main()
