"""Whoever is told to stop, or loses who started it, leaves nothing behind: no database, no process, no thread."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from service.store.embedded.server import EmbeddedServer
from tests.beir import write_pairs
from tests.programs import unused_port
from tests.running import wait_for

pytestmark = pytest.mark.database

STOP_SECONDS = 30.0


@contextmanager
def started(folder: Path, *arguments: str, port: int, drain_seconds: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {
        "AZIMUTH_DATA_DIR": str(folder),
        "AZIMUTH_PORT": str(port),
        "AZIMUTH_EMBEDDER": "hashing:16",
        "AZIMUTH_LOG_LEVEL": "error",
        "AZIMUTH_DRAIN_SECONDS": str(drain_seconds),
    }
    environment.pop("AZIMUTH_DATABASE_URL", None)
    process = subprocess.Popen([sys.executable, "-m", "service", *arguments], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        with EmbeddedServer(folder / "postgres"):
            pass  # stops what a failed test left


def alive(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_api_stops_its_database(scratch: Path, number: signal.Signals) -> None:
    folder, port = scratch / f"serve-{number.name}", unused_port()
    with started(folder, "serve", port=port) as process:
        wait_for(lambda: alive(port), "serves")
        process.send_signal(number)
        assert process.wait(STOP_SECONDS) == 0
        assert not EmbeddedServer(folder / "postgres").alive()


def test_a_stopping_api_breaks_no_request(scratch: Path) -> None:
    """Clients send without a pause until the readiness turns, as they do behind a load balancer."""
    folder, port = scratch / "drained", unused_port()
    address, turned_away, stopped = f"http://127.0.0.1:{port}", threading.Event(), threading.Event()

    def send(_: int) -> tuple[int, bool]:
        answered, closed = 0, False
        with httpx.Client(base_url=address, trust_env=False, timeout=20) as client:
            while not turned_away.is_set():
                answer = client.post("/v1/embeddings", json={"input": ["text"] * 20, "model": "default"})
                answered += answer.raise_for_status().is_success
                closed = answer.headers.get("connection") == "close"
                assert stopped.is_set() or not closed
        return answered, closed

    with started(folder, "serve", port=port, drain_seconds=4) as process, ThreadPoolExecutor(12) as clients:
        wait_for(lambda: ready(address) == 200, "is ready")
        results = clients.map(send, range(12))
        time.sleep(0.5)
        stopped.set()
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: ready(address) == 503, "says that it stops")
        time.sleep(0.5)
        turned_away.set()
        assert all(answered > 0 and closed for answered, closed in results)
        assert process.wait(STOP_SECONDS) == 0


def ready(address: str) -> int:
    try:
        return httpx.get(f"{address}/readyz", trust_env=False).status_code
    except httpx.TransportError:
        return 0


def test_the_demo_stops_before_the_service_is_ready(scratch: Path) -> None:
    folder, port = scratch / "demo", unused_port()
    with started(folder, "up", "--demo", "--workers", "0", port=port) as process:
        server = EmbeddedServer(folder / "postgres")
        wait_for(server.alive, "starts")  # the signals are heard from before this
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_SECONDS) == 0
        assert not server.alive()


def test_a_temporary_service_ends_when_its_command_is_killed(scratch: Path) -> None:
    folder, judged = scratch / "killed", write_pairs(scratch / "judged", [{"text": "one"}], ["one"])
    server = EmbeddedServer(folder / "postgres")
    with started(folder, "eval", str(judged), "--collection", "judged", port=unused_port()) as process:
        children: list[psutil.Process] = []

        def serving() -> bool:
            children[:] = psutil.Process(process.pid).children(recursive=True)
            return any(map(serves, children))

        def serves(child: psutil.Process) -> bool:
            try:
                return "serve" in child.cmdline()
            except psutil.NoSuchProcess:  # one that PostgreSQL's start has finished with
                return False

        wait_for(serving, "starts a service")
        process.kill()
        wait_for(lambda: not any(child.is_running() for child in children), "everything ends", STOP_SECONDS)
        assert not server.alive()
