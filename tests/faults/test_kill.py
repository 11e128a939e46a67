"""Kill real processes at random moments; what was acknowledged must be there once, in every place, and nothing else.

The whole service runs as an operator runs it (`azimuth up`), with the hashing encoder so that rounds are quick.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import psycopg
import pytest

from service.domain import EmbedderSpec
from service.embedder.registry import Registry
from service.store.embedded import EmbeddedServer
from tests.ports import unused_port

pytestmark = pytest.mark.faults

DOCUMENTS = 150
CALM_SECONDS = 120.0


class Machine:
    """One `azimuth up` on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = unused_port()
        self.environment = os.environ | {
            "AZIMUTH_DATA_DIR": str(folder),
            "AZIMUTH_PORT": str(self.port),
            "AZIMUTH_EMBEDDER": "hashing:64",
            "AZIMUTH_LOG_LEVEL": "warning",
            "AZIMUTH_LEASE_SECONDS": "2",
            "AZIMUTH_CLAIM": "40",
        }
        self.environment.pop("AZIMUTH_DATABASE_URL", None)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20.0, trust_env=False)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "service", "up"], env=self.environment)
        self.until(self.ready, "ready")

    def ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        self.http.close()

    def victims(self, what: str) -> list[psutil.Process]:
        """Processes of this machine: its api, its worker, or its postmaster."""
        if what == "postgres":
            pid = int((self.folder / "postgres" / "postmaster.pid").read_text().split()[0])
            return [psutil.Process(pid)]
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if what in child.cmdline()]

    def kill(self, what: str) -> bool:
        try:
            victims = self.victims(what)
            for victim in victims:
                victim.send_signal(signal.SIGKILL)
        except (psutil.Error, OSError, IndexError, ValueError):
            return False  # it was just being started again
        return bool(victims)

    @staticmethod
    def until(condition: object, what: str, seconds: float = CALM_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline, f"not {what} after {seconds} s"
            time.sleep(0.1)

    def insist(self, method: str, path: str, **request: object) -> httpx.Response:
        """Repeat a request until it is acknowledged. Ours bear repetition: they say what shall be, not what to do."""
        deadline = time.monotonic() + CALM_SECONDS
        while True:
            try:
                response = self.http.request(method, path, **request)  # type: ignore[arg-type]
                if response.status_code < 500:
                    return response
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"{method} {path} was never acknowledged"
            time.sleep(0.05)


class Writer(threading.Thread):
    """Writes, rewrites and deletes without pause, and knows what was acknowledged last for each document."""

    def __init__(self, machine: Machine, seed: int) -> None:
        super().__init__()
        self._machine = machine
        self._chance = random.Random(seed)
        self._done = threading.Event()
        self.state: dict[str, str | None] = {}
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            number = 0
            while not self._done.is_set():
                number += 1
                ids = self._chance.sample([f"doc-{at}" for at in range(DOCUMENTS)], self._chance.randint(1, 12))
                if self._chance.random() < 0.2:
                    self._acknowledged("documents/delete", {"ids": ids})
                    self.state |= dict.fromkeys(ids)
                else:
                    texts = {
                        one: f"marker{number}x{one.replace('-', '')} of round {number}. {'word ' * 30}" for one in ids
                    }
                    documents = [{"id": one, "title": one, "text": text} for one, text in texts.items()]
                    self._acknowledged("documents", {"documents": documents})
                    self.state |= texts
        except BaseException as failure:
            self.failure = failure

    def _acknowledged(self, path: str, body: object) -> None:
        response = self._machine.insist("POST", f"/v1/collections/faults/{path}", json=body)
        assert response.status_code == 200, response.text

    def finish(self) -> None:
        self._done.set()
        self.join(CALM_SECONDS)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "data")
    machine.start()
    assert machine.insist("PUT", "/v1/collections/faults", json={}).status_code in {200, 201}
    yield machine
    machine.stop()
    assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists(), "the embedded server outlived its users"


def settled(machine: Machine) -> bool:
    response = machine.insist("GET", "/v1/collections/faults")
    counts = response.json()["counts"]
    return counts["pending"] == 0 and machine.ready()


def assert_everything_is_there_once(machine: Machine, state: dict[str, str | None]) -> None:
    expected = {document_id: text for document_id, text in state.items() if text is not None}
    assert machine.insist("GET", "/v1/collections/faults/documents/failed").json()["documents"] == []

    with psycopg.connect(EmbeddedServer(machine.folder / "postgres").url) as connection:
        rows = connection.execute("SELECT document_id, text FROM documents WHERE deleted_at IS NULL").fetchall()
        assert dict(rows) == expected
        assert len(rows) == len(expected)
        table = connection.execute("SELECT tablename FROM pg_tables WHERE tablename ~ '^vectors_[0-9]+_1$'").fetchone()
        assert table is not None
        vectors = connection.execute(f"SELECT document_id, chunk, embedding::text FROM {table[0]}").fetchall()
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    assert sorted((document_id, chunk) for document_id, chunk, _ in vectors) == sorted((one, 0) for one in expected)
    encoder = asyncio.run(Registry(default="hashing:64").get(EmbedderSpec()))
    order = sorted(expected)
    fresh = dict(zip(order, encoder.encode([f"{one}\n{expected[one]}" for one in order], "document"), strict=True))
    for document_id, _, text in vectors:
        stored = np.array([float(number) for number in text.strip("[]").split(",")], dtype=np.float32)
        assert float(stored @ fresh[document_id]) / float(np.linalg.norm(stored)) > 0.999, document_id

    def lexical_hits(text: str) -> list[str]:
        answer = machine.insist(
            "POST", "/v1/collections/faults/search", json={"query": text.split()[0], "mode": "lexical", "k": 5}
        )
        return [hit["id"] for hit in answer.json()["hits"]]

    for document_id, text in expected.items():
        Machine.until(
            lambda text=text, one=document_id: lexical_hits(text) == [one], f"found by words: {document_id}", 30
        )


@pytest.mark.parametrize(("victim", "seed"), [("worker", 1), ("serve", 2), ("postgres", 3)])
def test_nothing_is_lost_or_doubled(machine: Machine, victim: str, seed: int) -> None:
    chance = random.Random(seed)
    writer = Writer(machine, seed)
    writer.start()
    for _ in range(5):
        time.sleep(chance.uniform(0.1, 1.5))
        machine.until(lambda: machine.kill(victim), f"{victim} was back to be killed again", 60)
    writer.finish()
    machine.until(lambda: settled(machine), "settled")
    assert_everything_is_there_once(machine, writer.state)
    if victim != "worker":
        return
    # One pass over the whole machine: the supervisor itself, and everything with it.
    assert machine.process is not None
    orphans = psutil.Process(machine.process.pid).children()
    machine.process.kill()
    machine.process.wait()
    psutil.wait_procs(orphans, timeout=40)
    assert not [orphan for orphan in orphans if orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE]
    machine.start()
    machine.until(lambda: settled(machine), "settled")
    assert_everything_is_there_once(machine, writer.state)
