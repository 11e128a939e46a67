"""Does an upgrade fail a request? `python -m loadtests.rolling_upgrade --before REF`.

As orchestrators do it: the schema is migrated while an earlier version runs, then processes of both versions run side
by side, and those of the earlier one are taken out of the balance and ended. Clients write, search and list meanwhile.
Ends with an error where a request failed, or a document is not what was acknowledged last.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from loadtests.bench import ROOT, taken_from_git
from loadtests.figures import heading, table
from loadtests.sandbox import until, unused_port
from service.store.embedded.server import EmbeddedServer

STEP_SECONDS = 6.0
COLLECTION = "/v1/collections/upgrade"
SETTINGS = {"EMBEDDER": "hashing:64", "RERANKER": "none", "LOG_LEVEL": "warning", "DRAIN_SECONDS": "1"}


class Release:
    """One version of the program, with an API and a worker of its own."""

    def __init__(self, name: str, root: Path, folder: Path, url: str) -> None:
        self.name, self.root, self.port = name, root, unused_port()
        own = {"DATABASE_URL": url, "DATA_DIR": str(folder / name), "PORT": str(self.port), **SETTINGS}
        others = {key: value for key, value in os.environ.items() if not key.startswith("AZIMUTH_")}
        self._environment = {**others, **{f"AZIMUTH_{key}": value for key, value in own.items()}}
        self._environment["PYTHONPATH"] = f"{root}:{root / 'clients' / 'python'}"

    def start(self, command: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-m", "service", command], cwd=self.root, env=self._environment)

    def serve(self) -> "subprocess.Popen[bytes]":
        process = self.start("serve")
        until(lambda: answers(f"http://127.0.0.1:{self.port}/readyz"), process)
        return process


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


class Clients:
    """They ask one of `targets` after the other; `state` is the text of each document that was acknowledged last."""

    def __init__(self) -> None:
        self.targets: list[Release] = []
        self.state: dict[str, str] = {}
        self.counts, self.failures = Counter[tuple[str, str]](), Counter[str]()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number, kind))
            for number, kind in enumerate(("write", "write", "search", "search", "list"))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int, kind: str) -> None:
        chance, client = random.Random(number), httpx.Client(timeout=30)
        while not self._stop.wait(0.01):
            target = chance.choice(self.targets)
            texts = {f"{number}-{at}": f"text {chance.random()} of {at}" for at in chance.sample(range(300), 5)}
            requests: Mapping[str, tuple[str, str, Any]] = {
                "write": ("POST", "documents", {"documents": [{"id": id_, "text": one} for id_, one in texts.items()]}),
                "search": ("POST", "search", {"query": f"text {chance.randrange(100)}"}),
                "list": ("GET", "documents?limit=5", None),
            }
            method, path, body = requests[kind]
            url = f"http://127.0.0.1:{target.port}{COLLECTION}/{path}"
            try:
                answer = client.request(method, url, json=body)
            except httpx.TransportError as error:
                self.failures[f"{kind}, {target.name}: {error!r}"] += 1
                continue
            self.counts[target.name, kind] += 1
            if answer.status_code != 200:
                self.failures[f"{kind}, {target.name}: {answer.status_code} {answer.text[:200]}"] += 1
            elif kind == "write":
                self.state |= texts


def upgrade(before: Release, after: Release, clients: Clients) -> None:
    """From processes of one version to those of the other."""
    api, worker = before.serve(), before.start("worker")
    httpx.put(f"http://127.0.0.1:{before.port}{COLLECTION}", json={}).raise_for_status()
    clients.targets = [before]
    clients.start()
    time.sleep(STEP_SECONDS)
    assert after.start("migrate").wait() == 0
    time.sleep(STEP_SECONDS)  # the earlier version on the schema of the later one
    new_api = after.serve()
    clients.targets = [before, after]
    time.sleep(STEP_SECONDS)
    new_worker = after.start("worker")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    clients.targets = [after]
    time.sleep(1)
    api.send_signal(signal.SIGTERM)
    assert api.wait(60) == 0
    time.sleep(STEP_SECONDS)
    clients.finish()
    url = f"http://127.0.0.1:{after.port}{COLLECTION}"
    until(lambda: httpx.get(url).json()["counts"]["pending"] == 0, seconds=120)
    for id_, text in clients.state.items():
        stored = httpx.get(f"{url}/documents/{id_}").json().get("text")
        if stored != text:
            clients.failures[f"{id_} is {stored!r}, not {text!r}"] += 1
    for process in (new_api, new_worker):
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default="HEAD~100", help="the earlier version, as git names it")
    reference = parser.parse_args().before
    clients = Clients()
    with tempfile.TemporaryDirectory(prefix="azimuth-bench-") as place:
        folder = Path(place)
        root = taken_from_git(reference, folder / "before")
        with EmbeddedServer(folder / "postgres") as server:
            before = Release("before", root, folder, server.url)
            assert before.start("migrate").wait() == 0
            upgrade(before, Release("after", ROOT, folder, server.url), clients)
    heading(f"An upgrade from {reference} under load")
    table(["version", "requests", "answered"], [[*key, count] for key, count in sorted(clients.counts.items())])
    for failure, count in clients.failures.items():
        print(f"{count} x {failure}")
    print(f"{len(clients.state)} documents, {sum(clients.failures.values())} failures")
    sys.exit(1 if clients.failures else 0)


if __name__ == "__main__":
    main()
