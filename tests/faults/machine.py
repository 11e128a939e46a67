"""A whole service in a folder of its own, as an operator runs it (`azimuth up`), and clients that use it."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import psycopg

from service.core.collections import ChunkingSettings, EmbedderSpec
from service.core.documents import Chunk, StoredDocument
from service.core.ports.embedder import Encoder
from service.embedder.models.registry import ModelRegistry
from service.embedder.worker.document_chunker import chunk_documents
from service.store.embedded.server import EmbeddedServer
from service.store.postgres.json_records import read
from tests.feed import stored_document
from tests.programs import unused_port
from tests.running import T, wait_for

WAIT_SECONDS = 240.0
PAUSE_SECONDS = 0.04
"""Between two requests of a client, which would otherwise take the processor from the service."""
COLLECTION = "/v1/collections/faults"
MODEL = "hashing:64"


class Machine:
    """One `azimuth up`. `settings`: environment variables, without the `AZIMUTH_` that they begin with."""

    workers = 1

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.port = unused_port()
        own = {"EMBEDDER": MODEL, "RERANKER": "none", "LOG_LEVEL": "warning", "LEASE_SECONDS": "2", "CLAIM": "40"}
        own |= {"DATA_DIR": str(folder), "PORT": str(self.port), **settings}
        others = {name: value for name, value in os.environ.items() if name != "AZIMUTH_DATABASE_URL"}
        self.environment = others | {f"AZIMUTH_{name}": value for name, value in own.items()}
        self.database_url = settings.get("DATABASE_URL", EmbeddedServer(folder / "postgres").url)
        self.http = self.client()
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder.with_suffix(".log")

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20.0, trust_env=False)

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "service", "up", "--workers", str(self.workers)]
            self.process = subprocess.Popen(command, env=self.environment, stderr=log)
        self.until(self.ready, "ready")

    def ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        print(self.log)  # shown where a test fails
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        self.http.close()

    def processes_of(self, what: str) -> list[psutil.Process]:
        """Processes of this machine: its api, its worker, or its postmaster."""
        if what == "postgres":
            pid = int((self.folder / "postgres" / "postmaster.pid").read_text().split()[0])
            return [psutil.Process(pid)]
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if what in child.cmdline()]

    def kill(self, what: str) -> bool:
        try:
            victims = self.processes_of(what)
            for victim in victims:
                victim.kill()
        except (psutil.Error, OSError, IndexError, ValueError):
            return False  # it is just being restarted
        return bool(victims)

    @staticmethod
    def until(condition: Callable[[], T | None], what: str | Callable[[], object], seconds: float = WAIT_SECONDS) -> T:
        return wait_for(condition, what, seconds)

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Repeat a request until it is acknowledged. All requests of these tests are idempotent."""

        def acknowledged() -> httpx.Response | None:
            with suppress(httpx.TransportError):
                response = self.http.request(method, path, **request)
                return response if response.status_code < 500 else None
            return None

        return self.until(acknowledged, f"{method} {path} acknowledged")

    @contextmanager
    def database(self) -> Iterator["psycopg.Connection[Any]"]:
        """A connection of our own, as soon as the database accepts one."""

        def connected() -> "psycopg.Connection[Any] | None":
            with suppress(psycopg.OperationalError):
                return psycopg.connect(self.database_url)
            return None

        connection = self.until(connected, "back: the database")
        try:
            yield connection
        finally:
            with suppress(psycopg.OperationalError):  # killed meanwhile
                connection.close()

    def select(self, statement: str, *values: object) -> list[Any]:
        """The rows, read again where the database is killed meanwhile."""
        while True:
            with suppress(psycopg.OperationalError), self.database() as connection:
                return connection.execute(statement, values).fetchall()

    def execute(self, statement: str, *values: object) -> None:
        """Commit a statement, as soon as the database accepts a connection."""
        with self.database() as connection:
            connection.execute(statement, values)
            connection.commit()


@contextmanager
def running(folder: Path, collection: Mapping[str, Any], **settings: str) -> Iterator[Machine]:
    """A machine with one collection that has these settings."""
    machine = Machine(folder, **settings)
    machine.start()
    try:
        assert machine.send("PUT", COLLECTION, json=collection).status_code in {200, 201}
        yield machine
    finally:
        machine.stop()


class Client(threading.Thread):
    """Repeats `step` in a thread until `finish`, which raises what failed there."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self._failure: BaseException | None = None

    def step(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        try:
            while not self._done.wait(PAUSE_SECONDS):
                self.step()
        except BaseException as failure:
            self._failure = failure

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        self._done.set()
        self.join(WAIT_SECONDS)
        self.raise_failure()


class Writer(Client):
    """Writes, rewrites and deletes without pause; `state` is what was acknowledged last of each document."""

    def __init__(self, machine: Machine, seed: int, documents: int) -> None:
        super().__init__()
        self._machine = machine
        self._chance = random.Random(seed)
        self._ids = [f"doc-{at}" for at in range(documents)]
        self._round = 0
        self.state: dict[str, str | None] = {}

    def write_all(self) -> None:
        """Every document once."""
        self._write(self._ids)

    def step(self) -> None:
        ids = self._chance.sample(self._ids, self._chance.randint(1, 12))
        if self._chance.random() < 0.2:
            self._acknowledged("documents/delete", {"ids": ids})
            self.state |= dict.fromkeys(ids)
        else:
            self._write(ids)

    def _write(self, ids: Sequence[str]) -> None:
        self._round += 1
        texts = {one: f"{marker(self._round, one)} of round {self._round}. {sentence(self._chance, 30)}" for one in ids}
        self._acknowledged("documents", {"documents": [{"id": one, "title": one, "text": texts[one]} for one in ids]})
        self.state |= texts

    def _acknowledged(self, path: str, body: object) -> None:
        response = self._machine.send("POST", f"{COLLECTION}/{path}", json=body)
        assert response.status_code == 200, response.text


def marker(round_: int, document_id: str) -> str:
    """A word without digits, by whose parts other markers would be found, and without an ending that has a stem."""
    letters = str.maketrans("0123456789", "bcdfghjklm")
    return f"marker{round_}x{document_id.replace('-', '')}q".translate(letters)


def sentence(chance: random.Random, words: int) -> str:
    return " ".join(
        f"{chance.choice('bdfgklmnprst')}{chance.choice('aeiou')}{chance.choice('lmnrst')}o" for _ in range(words)
    )


def settle(machine: Machine, seconds: float = WAIT_SECONDS) -> None:
    """Wait until no job is left in any version."""
    machine.until(lambda: machine.select("SELECT count(*) FROM jobs") == [(0,)] and machine.ready(), "settled", seconds)


def assert_everything_is_there_once(machine: Machine, state: Mapping[str, str | None]) -> None:
    """Documents, vectors and words are those that were acknowledged last, and nothing else."""
    expected = {document_id: text for document_id, text in state.items() if text is not None}
    assert machine.send("GET", f"{COLLECTION}/documents/failed").json()["documents"] == []
    rows = machine.select("SELECT document_id, text, content_revision FROM documents WHERE deleted_at IS NULL")
    assert sorted((document_id, text) for document_id, text, _ in rows) == sorted(expected.items())
    assert machine.select("SELECT count(*) FROM jobs") == [(0,)]
    documents = [stored_document(name, text, revision, name) for name, text, revision in sorted(rows)]
    written = machine.select(
        "SELECT collection_id, number, spec, chunking FROM embedder_versions WHERE state NOT IN ('retired', 'failed')"
    )
    assert written
    for collection, number, spec, chunking in written:
        encoder = encoder_of(read(EmbedderSpec, spec), machine.environment["AZIMUTH_EMBEDDER"])
        chunks = chunk_documents(encoder, documents, read(ChunkingSettings, chunking))
        _assert_encoded(machine, f"vectors_{collection}_{number}", encoder, documents, chunks)

    def lexical_hits(text: str) -> list[str]:
        query = {"query": text.split()[0], "mode": "lexical", "k": 5}
        return [hit["id"] for hit in machine.send("POST", f"{COLLECTION}/search", json=query).json()["hits"]]

    for document_id, text in expected.items():
        Machine.until(
            lambda text=text, one=document_id: lexical_hits(text) == [one],  # type: ignore[misc]
            f"found by words: {document_id}",
            30,
        )


def encoder_of(spec: EmbedderSpec, default: str = MODEL) -> Encoder:
    return asyncio.run(ModelRegistry(default=default, device="cpu", precision="float32", threads=1).get(spec))


def _assert_encoded(
    machine: Machine,
    table: str,
    encoder: Encoder,
    documents: Sequence[StoredDocument],
    chunks: Sequence[tuple[Chunk, ...]],
) -> None:
    """The table holds exactly these chunks, encoded by this encoder."""
    wanted = [(one, part) for one, parts in zip(documents, chunks, strict=True) for part in parts]
    rows = machine.select(f"SELECT document_id, chunk, content_revision, embedding::text FROM {table} ORDER BY 1, 2")
    assert [row[:3] for row in rows] == [(one.id, part.number, one.content_revision) for one, part in wanted], table
    fresh = encoder.encode([part.text for _, part in wanted], "document")
    for (document_id, chunk, _, text), vector in zip(rows, fresh, strict=True):
        stored = np.array([float(number) for number in text.strip("[]").split(",")], dtype=np.float32)
        assert float(stored @ vector) / float(np.linalg.norm(stored)) > 0.999, (table, document_id, chunk)
