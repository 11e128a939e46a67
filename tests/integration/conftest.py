"""A whole service: `azimuth serve` and `azimuth worker` as processes of their own, on a database of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.store.embedded.server import EmbeddedServer
from tests.conftest import create_database, url_of
from tests.programs import unused_port
from tests.running import process, wait_for

MODEL = "hashing:64"
COMMAND = (sys.executable, "-m", "service")


@dataclass
class Running:
    """A service that is ready. `log` is what its api wrote to standard error so far."""

    url: str
    log_file: Path
    worker_port: int

    @property
    def log(self) -> str:
        return self.log_file.read_text()


@pytest.fixture(scope="session")
def shared_service(server: EmbeddedServer, request: pytest.FixtureRequest) -> Iterator[Running]:
    """Of all modules that change no setting: each works in collections of its own."""
    with _running(server, request, "service_shared", {}) as running:
        yield running


@pytest.fixture(scope="module")
def service(server: EmbeddedServer, request: pytest.FixtureRequest) -> Iterator[Running]:
    """The module's own where it has `SETTINGS`, also empty ones; else the shared one."""
    settings = getattr(request.module, "SETTINGS", None)
    if settings is None:
        yield request.getfixturevalue("shared_service")
        return
    name = f"service_{request.module.__name__.rsplit('.', 1)[-1]}"
    with _running(server, request, name, settings) as running:
        yield running


@contextmanager
def _running(
    server: EmbeddedServer, request: pytest.FixtureRequest, name: str, settings: Mapping[str, str]
) -> Iterator[Running]:
    create_database(server, name, request.getfixturevalue("template"))
    folder: Path = request.getfixturevalue("tmp_path_factory").mktemp(name)
    port, worker_port = unused_port(), unused_port()
    environment = os.environ | {
        "AZIMUTH_DATABASE_URL": url_of(server, name),
        "AZIMUTH_DATA_DIR": str(folder / "data"),
        "AZIMUTH_PORT": str(port),
        "AZIMUTH_WORKER_PORT": str(worker_port),
        "AZIMUTH_EMBEDDER": MODEL,
        "AZIMUTH_RERANKER": "none",
        "AZIMUTH_LOG_LEVEL": "info",
        "AZIMUTH_API_KEYS": "",
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    running = Running(f"http://127.0.0.1:{port}", folder / "serve.log", worker_port)
    with (
        process([*COMMAND, "serve"], running.log_file, environment) as api,
        process([*COMMAND, "worker"], folder / "worker.log", environment),
    ):
        wait_for(lambda: not _unready(running, api), lambda: f"ready: {_unready(running, api)}\n{running.log}")
        yield running
        assert not _unready(running, api)
    assert "unhandled" not in running.log
    assert '"status":500' not in running.log


def _unready(running: Running, api: "subprocess.Popen[bytes]") -> str:
    """Why the service is not ready; empty once it is."""
    assert api.poll() is None, f"the api ended:\n{running.log}"
    try:
        answer = httpx.get(f"{running.url}/readyz", trust_env=False)
    except httpx.TransportError as error:
        return str(error)
    return "" if answer.status_code == 200 else answer.text


@pytest.fixture
def client(service: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as opened:
        yield opened


def written(client: httpx.Client, collection: str, *documents: dict[str, Any]) -> None:
    """Write documents and wait until both legs find them."""
    client.put(f"/v1/collections/{collection}", json={}).raise_for_status()
    answer = client.post(f"/v1/collections/{collection}/documents?wait=true", json={"documents": documents})
    assert answer.status_code == 200, answer.text
    assert answer.json()["searchable"] is True
