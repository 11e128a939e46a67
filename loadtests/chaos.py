"""A service that is broken all the time: what do its clients see? `python -m loadtests.chaos --minutes 60`.

`azimuth up` with the fast hashing encoder. Two writers write, rewrite and delete; searchers and readers ask; the
embedder changes about once a minute; every ten seconds something fails for some seconds. Counted:

- lost: a document that was acknowledged last and is not there at the end.
- doubled: a document that an answer holds twice, or that was deleted last and is there at the end.
- stale: an answer shows a text after a write that replaced or deleted it had been acknowledged, and then was asked.
- foreign: a search with the filter of one writer shows a document of the other.
- wrong 5xx: an answer of 5xx that is not 503 with Retry-After.

Told beside these, by fault: 503, 429, broken connections, and for how long no search was answered. Ends with 1 where
one of the five is not 0, or where vectors or lexical indexes do not hold in the end what was acknowledged.
"""

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from loadtests.figures import heading, table
from service.store.embedded.server import EmbeddedServer
from tests.faults.machine import (
    COLLECTION,
    Client,
    Machine,
    assert_everything_is_there_once,
    marker,
    running,
    sentence,
    settle,
)

EVERY_SECONDS = 10.0
HELD = 0.6
"""For this share of the time between two faults, a fault lasts."""
REINDEX_SECONDS = 45.0
DOCUMENTS = 150
"""Of each writer."""
WRITERS = ("a", "b")
EMBEDDERS = ({"model": "hashing:32"}, {"model": "hashing:64", "query_prompt": "asked: "}, {"model": "hashing:64"})
FLOOD = """
import asyncio, httpx, sys

async def client(http, body):
    while True:
        try:
            await http.post(sys.argv[1], content=body, headers={"Content-Type": "application/json"})
        except httpx.HTTPError:
            await asyncio.sleep(0.1)

async def main():
    body = sys.stdin.buffer.read()
    async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
        await asyncio.gather(*(client(http, body) for _ in range(int(sys.argv[2]))))

asyncio.run(main())
"""
"""So many clients that send a body again and again, in a process of their own: they do not take this one's time."""
WRONG = ("lost", "doubled", "stale", "foreign", "wrong 5xx")


@dataclass
class Report:
    """What the clients saw, by the fault that was under way."""

    fault: str = "none"
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(fault, what) -> how often."""
    silent_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """The longest time without an answered search."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first of each kind of wrong."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    answered: float = field(default_factory=time.monotonic)

    def count(self, what: str, example: str = "") -> None:
        with self.lock:
            self.counts[self.fault, what] += 1
            if example:
                self.examples.setdefault(what, f"({self.fault}) {example}"[:600])

    def total(self, what: str) -> int:
        return sum(number for (_, counted), number in self.counts.items() if counted == what)

    def search_answered(self) -> None:
        now = time.monotonic()
        with self.lock:
            self.silent_seconds[self.fault] = max(self.silent_seconds[self.fault], now - self.answered)
            self.answered = now


class Texts:
    """What each document may be at any time: the write that was acknowledged last, and those that are under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writes: dict[str, list[tuple[float, str | None]]] = defaultdict(lambda: [(float("-inf"), None)])
        """Of each document: when it was acknowledged (infinity: not yet), and its text (None: deleted)."""

    def begin(self, texts: Mapping[str, str | None]) -> None:
        with self._lock:
            for name, text in texts.items():
                self._writes[name].append((float("inf"), text))

    def acknowledge(self, texts: Mapping[str, str | None]) -> None:
        now = time.monotonic()
        with self._lock:
            for name, text in texts.items():
                self._writes[name][-1] = (now, text)

    def possible(self, name: str, asked: float) -> set[str | None]:
        """Texts that an answer to a question sent at `asked` may show: no write after them was acknowledged before."""
        with self._lock:
            writes = self._writes[name]
            latest = max(at for at, (acknowledged, _) in enumerate(writes) if acknowledged <= asked)
            return {text for _, text in writes[latest:]}

    def last(self) -> dict[str, str | None]:
        with self._lock:
            return {name: writes[-1][1] for name, writes in self._writes.items()}


class Chaotic(Client):
    """A client that counts every answer."""

    def __init__(self, machine: Machine, report: Report, texts: Texts, seed: int) -> None:
        super().__init__()
        self.http, self.report, self.texts = machine.client(), report, texts
        self.chance = random.Random(seed)

    def finish(self) -> None:
        super().finish()
        self.http.close()

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response | None:
        """The answer, where there was one below 500."""
        try:
            answer = self.http.request(method, f"{COLLECTION}{path}", **request)
        except httpx.TransportError as error:
            self.report.count("timed out" if isinstance(error, httpx.TimeoutException) else "broken")
            return None
        if answer.status_code >= 500:
            honest = answer.status_code == 503 and "retry-after" in answer.headers
            self.report.count("503" if honest else "wrong 5xx", "" if honest else f"{method} {path}: {answer.text}")
            return None
        self.report.count("429" if answer.status_code == 429 else "answered")
        return None if answer.status_code == 429 else answer


class ChaoticWriter(Chaotic):
    """Writes, rewrites, deletes by id and by filter; repeats each until it is acknowledged."""

    def __init__(self, machine: Machine, report: Report, texts: Texts, seed: int, name: str) -> None:
        super().__init__(machine, report, texts, seed)
        self._writer = name
        self._ids = [f"{name}-{at}" for at in range(DOCUMENTS)]
        self._groups = {one: at % 10 for at, one in enumerate(self._ids)}
        self._round = 0

    def step(self) -> None:
        ids = self.chance.sample(self._ids, self.chance.randint(1, 12))
        action = self.chance.random()
        if action < 0.1:
            self._until_acknowledged("/documents/delete", {"ids": ids}, dict.fromkeys(ids))
        elif action < 0.15:
            group = self.chance.randrange(10)
            members = [one for one in self._ids if self._groups[one] == group]
            condition = {"writer": self._writer, "group": group}
            self._until_acknowledged("/documents/delete", {"filter": condition}, dict.fromkeys(members))
        else:
            self._round += 1
            texts = {one: f"{marker(self._round, one)} {sentence(self.chance, 25)}" for one in ids}
            documents = [
                {
                    "id": one,
                    "title": one,
                    "text": text,
                    "metadata": {"writer": self._writer, "group": self._groups[one]},
                }
                for one, text in texts.items()
            ]
            self._until_acknowledged("/documents", {"documents": documents}, texts)

    def _until_acknowledged(self, path: str, body: object, texts: Mapping[str, str | None]) -> None:
        self.texts.begin(texts)
        while True:
            answer = self.ask("POST", path, json=body)
            if answer is not None:
                if answer.status_code != 200:
                    raise AssertionError(f"POST {path}: {answer.status_code} {answer.text}")
                self.texts.acknowledge(texts)
                return
            time.sleep(0.2)


class ChaoticReader(Chaotic):
    """Searches in every way, and reads documents by their ids."""

    def step(self) -> None:
        if self.chance.random() < 0.2:
            self._read()
        else:
            self._search()

    def _read(self) -> None:
        name = f"{self.chance.choice(WRITERS)}-{self.chance.randrange(DOCUMENTS)}"
        asked = time.monotonic()
        answer = self.ask("GET", f"/documents/{name}")
        if answer is not None:
            self._check(name, answer.json()["text"] if answer.status_code == 200 else None, asked)

    def _search(self) -> None:
        writer = self.chance.choice((*WRITERS, None))
        mode = self.chance.choice(("hybrid", "hybrid", "dense", "lexical"))
        question: dict[str, Any] = {
            "query": sentence(self.chance, 3),
            "mode": mode,
            "group_by": "document" if mode == "lexical" else self.chance.choice(("document", "chunk")),
            "include": ["text", "metadata"],
        }
        if writer is not None:
            question["filter"] = {"writer": writer}
        asked = time.monotonic()
        answer = self.ask("POST", "/search", json=question)
        if answer is None:
            return
        self.report.search_answered()
        if answer.status_code != 200:
            raise AssertionError(f"{question}: {answer.text}")
        hits = answer.json()["hits"]
        names = [hit["id"] for hit in hits]
        if question["group_by"] == "document" and len(set(names)) < len(names):
            self.report.count("doubled", f"{question}: {names}")
        for hit in hits:
            self._check(hit["id"], hit["text"], asked)
            if writer not in {None, hit["metadata"]["writer"]}:
                self.report.count("foreign", f"{question}: {hit}")

    def _check(self, name: str, text: str | None, asked: float) -> None:
        possible = self.texts.possible(name, asked)
        if text not in possible:
            self.report.count("stale", f"{name} shows {text!r}, may be {possible}")


class Reindexer(Chaotic):
    """Changes the embedder: registers a version, promotes it once it is ready, retires the one before."""

    def __init__(self, machine: Machine, report: Report, texts: Texts, seed: int) -> None:
        super().__init__(machine, report, texts, seed)
        self._next = time.monotonic()
        self._changes = 0

    def step(self) -> None:
        time.sleep(1)
        answer = self.ask("GET", "/versions")
        if answer is None or not answer.is_success:
            return
        active, versions = answer.json()["active_version"], answer.json()["versions"]
        for version in versions:
            if version["number"] == active or version["state"] == "retired":
                continue
            if version["state"] == "ready" and version["number"] > active:
                promoted = self.ask("POST", f"/versions/{version['number']}/promote")
                if promoted is not None and promoted.is_success:
                    self.report.count("promoted")
            elif version["state"] in {"ready", "failed"}:
                self.ask("DELETE", f"/versions/{version['number']}")
        under_way = any(
            version["number"] > active and version["state"] not in {"retired", "failed"} for version in versions
        )
        if not under_way and time.monotonic() > self._next:
            self._next = time.monotonic() + REINDEX_SECONDS
            self._changes += 1
            self.ask("POST", "/versions", json={"embedder": EMBEDDERS[self._changes % len(EMBEDDERS)]})


class Chaos:
    """The faults. Each begins when its context is entered, and has ended when it is left."""

    def __init__(self, machine: Machine, seed: int, disk: Path | None) -> None:
        self.machine = machine
        self.chance = random.Random(seed)
        self.disk = disk

    @property
    def faults(self) -> dict[str, Callable[[], Any]]:
        processes = ("serve", "worker", "postgres")
        faults: dict[str, Callable[[], Any]] = {f"kill {one}": partial(self.kill, one) for one in processes}
        faults |= {f"freeze {one}": partial(self.freeze, one) for one in processes}
        faults |= {
            "restart the database": self.restart_database,
            "damage the lexical index": self.damage_index,
            "a foreign transaction": self.foreign_transaction,
            "slow clients": self.slow_clients,
            "a flood of searches": self.flood,
            "a flood of large bodies": self.large_bodies,
        }
        return faults | ({"disk full": self.fill_disk} if self.disk else {})

    def kill(self, what: str) -> Any:
        self.machine.kill(what)
        return ExitStack()

    @contextmanager
    def freeze(self, what: str) -> Iterator[None]:
        """SIGSTOP, of the process and all that it started."""
        stopped = []
        with suppress(psutil.Error, OSError, IndexError, ValueError):
            for process in self.machine.processes_of(what):
                stopped += [process, *process.children(recursive=True)]
            for process in stopped:
                process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                with suppress(psutil.Error):
                    process.resume()

    def restart_database(self) -> Any:
        with suppress(psutil.Error, OSError, IndexError, ValueError):
            for process in self.machine.processes_of("postgres"):
                process.send_signal(signal.SIGINT)
        return ExitStack()

    def damage_index(self) -> Any:
        """Cut or change a file of a lexical index, and kill the process that has it open: it has to start with it."""
        files = [
            file for file in (self.machine.folder / "lexical").rglob("*") if file.is_file() and file.stat().st_size
        ]
        if files:
            victim = self.chance.choice(files)
            with suppress(OSError):
                content = bytearray(victim.read_bytes())
                self.machine.kill("serve")
                if self.chance.random() < 0.5:
                    content = content[: len(content) // 2]
                else:
                    content[self.chance.randrange(len(content))] ^= 0xFF
                victim.write_bytes(content)
        return ExitStack()

    @contextmanager
    def foreign_transaction(self) -> Iterator[None]:
        """Open in another database of the server."""
        with suppress(psycopg.Error):
            url = EmbeddedServer(self.machine.folder / "postgres").url
            with psycopg.connect(url, dbname="postgres") as connection:
                connection.execute("SELECT pg_current_xact_id()")
                yield
                return
        yield

    @contextmanager
    def slow_clients(self) -> Iterator[None]:
        """Half of a request's headers, or of its body, and nothing more."""
        head = f"POST {COLLECTION}/search HTTP/1.1\r\nHost: localhost\r\n"
        whole = f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
        with ExitStack() as open_sockets:
            for number in range(200):
                with suppress(OSError):
                    one = open_sockets.enter_context(socket.create_connection(("127.0.0.1", self.machine.port), 1))
                    one.sendall((whole if number % 2 else head).encode())
            yield

    @contextmanager
    def flood(self) -> Iterator[None]:
        """As many searches as 32 clients can send, without any pause."""
        with self._clients(32, {"query": "what is asked again and again", "k": 100}):
            yield

    @contextmanager
    def large_bodies(self) -> Iterator[None]:
        """Bodies of some megabytes that have to be refused."""
        with self._clients(2, {f"unknown{number}": number for number in range(100_000)}):
            yield

    @contextmanager
    def _clients(self, number: int, body: object) -> Iterator[None]:
        address = f"http://127.0.0.1:{self.machine.port}{COLLECTION}/search"
        command = [sys.executable, "-c", FLOOD, address, str(number)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            process.stdin.write(json.dumps(body).encode())
            process.stdin.close()
            try:
                yield
            finally:
                process.kill()

    @contextmanager
    def fill_disk(self) -> Iterator[None]:
        assert self.disk is not None
        ballast = self.disk / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 2**16)
        try:
            yield
        finally:
            ballast.unlink()


@contextmanager
def small_disk(folder: Path, megabytes: int = 1500) -> Iterator[Path | None]:
    """A file system of its own, where the user may mount one (None: not)."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield folder if mounted.returncode == 0 else None
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run(folder: Path, minutes: float, seed: int, every_seconds: float = EVERY_SECONDS) -> Report:
    """Break the service for so many minutes, wait until it has settled, and compare what is there with what was told.

    Raises AssertionError where vectors or the lexical index do not hold what was acknowledged.
    """
    report, texts = Report(), Texts()
    with small_disk(folder / "disk") as disk, running((disk or folder) / "data", {"recall_target": 0.5}) as machine:
        chaos = Chaos(machine, seed, disk)
        clients: list[Chaotic] = [
            ChaoticWriter(machine, report, texts, seed + at, name) for at, name in enumerate(WRITERS)
        ]
        clients += [ChaoticReader(machine, report, texts, seed + 10 + at) for at in range(2)]
        clients.append(Reindexer(machine, report, texts, seed + 20))
        for client in clients:
            client.start()
        end = time.monotonic() + 60 * minutes
        waiting: list[str] = []
        while time.monotonic() < end:
            waiting = waiting or chaos.chance.sample(list(chaos.faults), len(chaos.faults))
            began = time.monotonic()
            report.fault = waiting.pop()
            report.count("times")
            with chaos.faults[report.fault]():
                time.sleep(HELD * every_seconds)
            time.sleep(max(0.0, every_seconds - (time.monotonic() - began)))
            for client in clients:
                client.raise_failure()
        report.fault = "none"
        for client in reversed(clients):  # writers last: they repeat what was not acknowledged
            client.finish()
        settle(machine, 300)
        compare(machine, texts.last(), report)
        assert_everything_is_there_once(machine, texts.last())
    return report


def compare(machine: Machine, last: Mapping[str, str | None], report: Report) -> None:
    """Count what was acknowledged and is not there, and what is there and was deleted."""
    rows = machine.select("SELECT document_id, text FROM documents WHERE deleted_at IS NULL")
    stored = dict(rows)
    for name, text in last.items():
        if text is not None and stored.get(name) != text:
            report.count("lost", f"{name}: {text!r}, stored {stored.get(name)!r}")
        if text is None and name in stored:
            report.count("doubled", f"{name} was deleted, stored {stored[name]!r}")


def show(report: Report) -> None:
    heading("What clients saw, by fault (from its beginning until the next one)")
    columns = ("times", "answered", "429", "503", "broken", "timed out", *WRONG)
    faults = sorted({fault for fault, _ in report.counts})
    rows = [
        (fault, *(report.counts[fault, column] for column in columns), round(report.silent_seconds.get(fault, 0.0), 1))
        for fault in faults
    ]
    totals = ("all", *(report.total(column) for column in columns), max(report.silent_seconds.values(), default=0.0))
    table(("fault", *columns, "no search answered for, s"), [*rows, totals])
    print(f"  versions promoted: {report.total('promoted')}")
    for what, example in report.examples.items():
        print(f"  {what}, for example: {example}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="azc-", dir="/tmp") as folder:
        report = run(Path(folder), options.minutes, options.seed)
    show(report)
    sys.exit(any(report.total(what) for what in WRONG))


if __name__ == "__main__":
    main()
