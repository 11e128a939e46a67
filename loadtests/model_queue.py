"""What others do to a client that searches: `python -m loadtests.model_queue [--seconds 15]`.

One client searches, one query after the other with a short pause: first alone, then while somebody else sends again and
again what keeps the models busy. Before each attack it is measured alone once more, and the ratio is to that, since
other work on the machine changes from minute to minute. The service sees both as one client, which is the hardest case.
"""

import argparse
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import psutil

from loadtests.clients import Answers, ask
from loadtests.encode import words
from loadtests.figures import heading, percentile, table
from loadtests.ingest import documents, through_the_service
from loadtests.sandbox import Sandbox, sandbox
from service.client.http_client import Client

COLLECTION = "neighbours"
DOCUMENTS = 300
PAUSE_SECONDS = 0.05
PATIENCE_SECONDS = 60.0

Body = dict[str, Any]


def attacks() -> dict[str, tuple[str, Body]]:
    """What is sent, by its name: path and body."""
    dice = random.Random(3)

    def text(count: int) -> str:
        return " ".join(words(dice, count))

    return {
        "16 texts of 1.9 million characters": (
            "/v1/embeddings",
            {"input": [("word " * 380_000) for _ in range(16)], "truncate": "END"},
        ),
        "16 words of 1.9 million letters": (
            "/v1/embeddings",
            {"input": ["a" * 1_900_000 for _ in range(16)], "truncate": "END"},
        ),
        "300 texts": ("/v1/embeddings", {"input": [text(100) for _ in range(300)]}),
        "reranking of 1,000 texts": (
            "/rerank",
            {"query": text(10), "texts": [text(100) for _ in range(1_000)], "truncate": True},
        ),
        "a batch of 64 searches": (
            f"/v1/collections/{COLLECTION}/search/batch",
            {"searches": [{"query": text(60), "k": 10} for _ in range(64)]},
        ),
    }


def searched(address: str, enough: Callable[[], bool], dice: random.Random) -> Answers:
    """Seconds of searches, one after the other, until it is enough."""
    found = Answers()
    while not enough():
        found.seconds += ask(address, COLLECTION, [{"query": " ".join(words(dice, 6)), "k": 10}]).seconds
        time.sleep(PAUSE_SECONDS)
    return found


def for_seconds(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def repeat(address: str, path: str, body: Body, stop: threading.Event, answered: list[int]) -> None:
    with httpx.Client(base_url=address, timeout=PATIENCE_SECONDS, trust_env=False) as client:
        while not stop.is_set():
            with suppress(httpx.TransportError):
                answered.append(client.post(path, json=body).status_code)


def measure(place: Sandbox, seconds: float) -> None:
    texts, dice, rows = documents(None, DOCUMENTS), random.Random(5), []
    with place.api() as address, Client(address) as client, place.process("worker"):
        through_the_service(client, COLLECTION, texts)
        searched(address, for_seconds(3), dice)
        api = max(psutil.Process().children(), key=lambda one: one.memory_info().rss)
        for name, (path, body) in attacks().items():
            alone = searched(address, for_seconds(seconds), dice).seconds
            stop, answered = threading.Event(), list[int]()
            attacker = threading.Thread(target=repeat, args=(address, path, body, stop, answered))
            attacker.start()
            time.sleep(0.5)
            beside = searched(address, for_seconds(seconds), dice).seconds
            memory = f"{api.memory_info().rss / 2**20:,.0f}"
            stop.set()
            attacker.join()
            figures = [percentile(times, share) for share in (0.5, 0.95) for times in (alone, beside)]
            ratios = [f"{figures[1] / figures[0]:.1f}", f"{figures[3] / figures[2]:.1f}"]
            shown = [f"{one:,.0f}" for one in figures]
            rows.append([name, len(beside), *shown, *ratios, memory, sorted(set(answered))])
    heading("A client that searches, beside one that does something else; times in ms, alone and beside")
    columns = ["beside", "searches", "p50", "", "p95", "", "p50, ratio", "p95, ratio", "API, MiB", "answers"]
    table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each series")
    arguments = parser.parse_args()
    with sandbox() as place:
        measure(place, arguments.seconds)


if __name__ == "__main__":
    main()
