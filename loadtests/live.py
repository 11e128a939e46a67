"""A whole service as an operator runs it (`azimuth up`), clients that never pause, and a killer of its processes."""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import psycopg

from loadtests.sandbox import until, unused_port
from service.core.ids import Vector
from service.store.embedded.server import EmbeddedServer

COLLECTION = "live"
CALM_SECONDS = 900.0
PATH = f"/v1/collections/{COLLECTION}"


class Machine:
    """`azimuth up` on a folder, its children, and its embedded server."""

    def __init__(self, folder: Path, models: Sequence[str] = (), settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = unused_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AZIMUTH_")}
        self._environment = environment | {
            "AZIMUTH_DATA_DIR": str(folder),
            "AZIMUTH_PORT": str(self.port),
            "AZIMUTH_LOG_LEVEL": "warning",
            "AZIMUTH_MODELS": ",".join(models),
            "AZIMUTH_LEASE_SECONDS": "5",
            "AZIMUTH_EXACT_BELOW": "1000",
            "AZIMUTH_SHADOW_SHARE": "0.2",
            **(settings or {}),
        }
        self.url = EmbeddedServer(folder / "postgres").url
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self) -> Iterator["Machine"]:
        with (self.folder / "up.log").open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "service", "up"], env=self._environment, stderr=log)
        try:
            until(self.ready, self._process)
            yield self
        finally:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60.0, trust_env=False)

    def ready(self) -> bool:
        with suppress(httpx.TransportError), self.client() as http:
            return http.get("/readyz").status_code == httpx.codes.OK
        return False

    def kill(self, what: str) -> bool:
        """SIGKILL to the worker, the api or the postmaster; False where it is just being started again."""
        assert self._process is not None
        try:
            if what == "postgres":
                pid = int((self.folder / "postgres" / "postmaster.pid").read_text().split()[0])
                victims = [psutil.Process(pid)]
            else:
                children = psutil.Process(self._process.pid).children()
                victims = [child for child in children if what in child.cmdline()]
            for victim in victims:
                victim.kill()
        except (psutil.Error, OSError, IndexError, ValueError):
            return False
        return bool(victims)


def insist(http: httpx.Client, method: str, path: str, **request: Any) -> Any:
    """Repeat a request until the service takes it (2xx) or says no for good (RuntimeError)."""
    deadline = time.monotonic() + CALM_SECONDS
    while True:
        with suppress(httpx.TransportError):
            response = http.request(method, path, **request)
            if response.is_success:
                return response.json()
            if response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                raise RuntimeError(f"{method} {path}: {response.text}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{method} {path} was never taken")
        time.sleep(0.1)


@dataclass
class Seen:
    """One hit as an answer told it."""

    query: str
    version: int
    score: float
    vector: Vector


class Searcher(threading.Thread):
    """Searches one query after the other, dense and hybrid, and keeps what it was answered."""

    def __init__(self, machine: Machine, queries: Sequence[str], seed: int) -> None:
        super().__init__(daemon=True)
        self._machine = machine
        self._queries = queries
        self._chance = random.Random(seed)
        self.done = threading.Event()
        self.seconds: list[tuple[float, float]] = []
        self.failures: Counter[str] = Counter()
        self.versions: Counter[int] = Counter()
        self.empty = 0
        self.hits: list[Seen] = []

    def run(self) -> None:
        with self._machine.client() as http:
            while not self.done.is_set():
                query = self._chance.choice(self._queries)
                mode = self._chance.choice(["dense", "hybrid"])
                body = {"query": query, "mode": mode, "explain": True, "include": ["vector"]}
                started = time.monotonic()
                try:
                    response = http.post(f"{PATH}/search", json=body)
                except httpx.TransportError as error:
                    self.failures[type(error).__name__] += 1
                    time.sleep(0.05)
                    continue
                self.seconds.append((started, time.monotonic() - started))
                if response.status_code != httpx.codes.OK:
                    self.failures[str(response.status_code)] += 1
                    time.sleep(0.05)
                    continue
                self._take(query, response.json())

    def _take(self, query: str, answer: Mapping[str, Any]) -> None:
        self.versions[answer["embedder_version"]] += 1
        self.empty += not answer["hits"]
        for hit in answer["hits"]:
            dense = hit["explain"]["dense"]
            if dense is not None and hit["vector"] is not None:
                vector = np.array(hit["vector"], np.float32)
                self.hits.append(Seen(query, answer["embedder_version"], dense["score"], vector))


class Writer(threading.Thread):
    """Creates, updates and deletes one document after the other; every second write waits until both legs find it."""

    def __init__(self, machine: Machine, documents: Mapping[str, dict[str, Any]], seed: int) -> None:
        super().__init__(daemon=True)
        self._machine = machine
        self._chance = random.Random(seed)
        self.state: dict[str, dict[str, Any] | None] = dict(documents)
        self.done = threading.Event()
        self.writes: Counter[str] = Counter()
        self.waits: list[tuple[float, float]] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        ids = list(self.state)
        try:
            with self._machine.client() as http:
                for number in itertools.count():
                    if self.done.is_set():
                        return
                    self._write(http, number, self._chance.choice([f"new-{number}", *self._chance.sample(ids, 2)]))
        except BaseException as error:
            self.error = error

    def _write(self, http: httpx.Client, number: int, one: str) -> None:
        known = self.state.get(one)
        if known is not None and self._chance.random() < 0.3:
            insist(http, "POST", f"{PATH}/documents/delete", json={"ids": [one]})
            self.state[one] = None
            self.writes["deleted"] += 1
            return
        old = known or {"title": f"Document {one}", "text": "It was not there before. "}
        document = {"id": one, "title": old["title"], "text": f"{old['text'][:1500]} Written in round {number}."}
        wait = number % 2 == 0
        started = time.monotonic()
        insist(http, "POST", f"{PATH}/documents", params={"wait": wait}, json={"documents": [document]})
        if wait:
            self.waits.append((started, time.monotonic() - started))
        self.writes["created" if known is None else "updated"] += 1
        self.state[one] = document


class Killer(threading.Thread):
    """Kills at random moments; prefers the state in which least was killed so far."""

    def __init__(self, machine: Machine, kills: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._machine = machine
        self._wanted = kills
        self._chance = random.Random(seed)
        self.kills: Counter[tuple[str, str]] = Counter()
        self.done = threading.Event()

    @property
    def enough(self) -> bool:
        return self.kills.total() >= self._wanted

    def run(self) -> None:
        while not self.enough and not self.done.is_set():
            time.sleep(self._chance.uniform(0.5, 8.0))
            state = self._state()
            victim = self._chance.choice(["worker", "serve", "postgres"])
            if state and self._machine.kill(victim):
                self.kills[state, victim] += 1
                print(f"  killed {victim} while {state} ({self.kills.total()})", flush=True)
                with suppress(RuntimeError):
                    until(self._machine.ready, seconds=120)

    def _state(self) -> str:
        """The state of the newest version, as the database has it."""
        with suppress(psycopg.Error), psycopg.connect(self._machine.url, connect_timeout=2) as connection:
            row = connection.execute(
                "SELECT state FROM embedder_versions WHERE number > 1 ORDER BY number DESC LIMIT 1"
            ).fetchone()
            return str(row[0]) if row else "before"
        return ""
