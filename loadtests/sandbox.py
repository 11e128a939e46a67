"""Where a benchmark runs: an embedded PostgreSQL in a folder of its own, and processes of the service on top of it."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.client.http_client import Client
from service.store.embedded.server import EmbeddedServer
from service.store.postgres.schema import migrations

START_SECONDS = 600.0
"""The first start with a model prepares it, which takes minutes on a busy machine."""


@dataclass(frozen=True)
class Sandbox:
    folder: Path
    url: str
    """Of the database, with all migrations applied."""

    @contextmanager
    def process(self, command: str, settings: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """`azimuth serve`, or another command with its options, stopped at the end. It logs into the folder."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AZIMUTH_")},
            "AZIMUTH_DATABASE_URL": self.url,
            "AZIMUTH_DATA_DIR": str(self.folder),
            "AZIMUTH_LOG_LEVEL": "warning",
            **(settings or {}),
        }
        with (self.folder / f"{command.split()[0]}.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "service", *command.split()], env=environment, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    @contextmanager
    def api(self, settings: Mapping[str, str] | None = None) -> Iterator[str]:
        """The address of an API that is ready: models loaded, lexical indexes there."""
        port = unused_port()
        with self.process("serve", {**(settings or {}), "AZIMUTH_PORT": str(port)}) as process:
            address = f"http://127.0.0.1:{port}"
            with Client(address) as client:
                until(client.ready, process)
            yield address


def until(
    done: Callable[[], bool],
    process: subprocess.Popen[bytes] | None = None,
    *,
    seconds: float = START_SECONDS,
    pause: float = 0.1,
) -> None:
    """Look until `done()` is true. RuntimeError where the process ends or the time is over."""
    deadline = time.monotonic() + seconds
    while not done():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"the service ended with {process.returncode}; its log is in the folder")
        if time.monotonic() > deadline:
            raise RuntimeError(f"not done after {seconds:.0f} s")
        time.sleep(pause)


@contextmanager
def sandbox(folder: Path | None = None) -> Iterator[Sandbox]:
    """A folder that is kept where it is named, and a temporary one where it is not."""
    place = folder or Path(tempfile.mkdtemp(prefix="azimuth-bench-"))
    try:
        with EmbeddedServer(place / "postgres") as server:
            asyncio.run(migrations.apply(server.url))
            yield Sandbox(place, server.url)
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


def unused_port() -> int:
    """On loopback, a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
