"""Load on a running service: searches of every kind, writes beside them. For locust, which draws the figures.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --users 8 --spawn-rate 4 --run-time 30s --headless

AZIMUTH_COLLECTION names the collection (default: python-docs, the demo's), AZIMUTH_API_KEY the key where one is needed.
Written documents all have ids that begin with `locust-` and are deleted at the end.

AZIMUTH_METRICS names metrics pages, separated by spaces: whether the processes behind them grow under this load is told
at the end. With `--run-time 60m` an hour of it.
"""

import os
import random
import re
import statistics
import threading
import time
import urllib.request
import uuid
from typing import Any

from locust import FastHttpUser, between, events, tag, task
from locust.env import Environment

COLLECTION = os.environ.get("AZIMUTH_COLLECTION", "python-docs")
KEY = os.environ.get("AZIMUTH_API_KEY")
HEADERS = {"Authorization": f"Bearer {KEY}"} if KEY else {}
PATH = f"/v1/collections/{COLLECTION}"
METRICS = os.environ.get("AZIMUTH_METRICS", "").split()
SAMPLE_SECONDS = 5.0

SUBJECTS = (
    "a file",
    "a thread",
    "a list",
    "a socket",
    "a date",
    "a process",
    "JSON",
    "a regular expression",
    "a queue",
)
ACTIONS = ("read", "close", "sort", "parse", "wait for", "compare", "copy", "split", "lock", "send")
CIRCUMSTANCES = ("", " after a timeout", " without blocking", " line by line", " in order", " safely", " from a string")


def query() -> str:
    return f"how to {random.choice(ACTIONS)} {random.choice(SUBJECTS)}{random.choice(CIRCUMSTANCES)}"


class Reader(FastHttpUser):
    """Somebody who searches, most often as the console does."""

    weight = 9
    wait_time = between(0.0, 0.2)
    default_headers = HEADERS

    def search(self, name: str, **request: Any) -> None:
        with self.client.post(
            f"{PATH}/search", json={"query": query(), **request}, name=name, catch_response=True
        ) as response:
            if response.status_code == 200 and response.json()["degraded"]:
                response.failure(f"degraded: {response.json()['degraded']}")

    @tag("search")
    @task(10)
    def hybrid(self) -> None:
        self.search("hybrid")

    @tag("search")
    @task(2)
    def dense(self) -> None:
        self.search("dense", mode="dense")

    @tag("search")
    @task(2)
    def lexical(self) -> None:
        self.search("lexical", mode="lexical")

    @tag("search")
    @task(2)
    def filtered(self) -> None:
        self.search("hybrid, filtered", filter={"kind": {"$in": ["class", "module"]}})

    @tag("search")
    @task(1)
    def exact(self) -> None:
        self.search("dense, exact", mode="dense", exact=True)


class Writer(FastHttpUser):
    """Somebody who writes, replaces and deletes small batches, at a human's pace."""

    weight = 1
    wait_time = between(0.5, 1.5)
    default_headers = HEADERS

    def on_start(self) -> None:
        self.mine = [f"locust-{uuid.uuid4().hex}" for _ in range(20)]

    @tag("write")
    @task(4)
    def put(self) -> None:
        documents = [{"id": one, "text": f"{query()}, and {query()}"} for one in random.sample(self.mine, 4)]
        self.client.post(f"{PATH}/documents", json={"documents": documents}, name="write 4")

    @tag("write")
    @task(1)
    def delete(self) -> None:
        self.client.post(f"{PATH}/documents/delete", json={"ids": random.sample(self.mine, 4)}, name="delete 4")

    def on_stop(self) -> None:
        self.client.post(f"{PATH}/documents/delete", json={"ids": self.mine}, name="delete all")


@events.test_start.add_listener
def say(environment: Environment, **_: object) -> None:
    print(f"collection {COLLECTION} at {environment.host}")


sizes: dict[str, list[float]] = {page: [] for page in METRICS}
"""Resident megabytes of each process, one after the other."""


@events.test_start.add_listener
def watch(**_: object) -> None:
    threading.Thread(target=_sample, daemon=True).start()


def _sample() -> None:
    while True:
        for page in METRICS:
            with urllib.request.urlopen(page) as response:
                found = re.search(r"^process_resident_memory_bytes (\S+)", response.read().decode(), re.MULTILINE)
            sizes[page].append(float(found[1]) / 2**20 if found else float("nan"))
        time.sleep(SAMPLE_SECONDS)


@events.test_stop.add_listener
def tell_growth(**_: object) -> None:
    """The first fifth of the time fills caches; the second is compared with the last."""
    for page, taken in sizes.items():
        fifth = len(taken) // 5
        if fifth:
            second, last = (statistics.median(part) for part in (taken[fifth : 2 * fifth], taken[-fifth:]))
            print(f"{page}: {second:.0f} MB, at the end {last:.0f} MB ({100 * (last / second - 1):+.1f} %)")
