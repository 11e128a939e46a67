"""Fixtures of the tests that need PostgreSQL. Nothing is started until a test asks for it."""

import asyncio
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from service.core.child_process import ChildProcess
from service.store.embedded.server import EmbeddedServer
from service.store.postgres.connection.pool import Pool, open_pool
from service.store.postgres.schema import migrations

collect_ignore = ["clients"]  # has an environment of its own: `make test-clients`

# Workers of pytest-xdist say that they are 80 columns wide, and what prints tables would believe it from its import on,
# whatever a test asks for.
os.environ.pop("COLUMNS", None)

# Every new data folder would have the model exported and measured, for seconds. Tests of that say so.
os.environ.setdefault("AZIMUTH_MODEL_BACKEND", "torch")

# Speed instead of durability: whoever tests durability starts a server of their own.
UNSAFE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
    "max_wal_size": "256MB",
    "max_connections": "200",
}
TEMPLATE = "azimuth_template"
MEMORY, MEMORY_BYTES = Path("/dev/shm"), 4 * 2**30
"""Where there is so much room in memory, servers keep their files there: each test makes and drops a database."""
_numbers = count(1)

# Runs beside pytest with the reading end of a pipe. The pipe closes when pytest ends, also by kill -9; then whatever
# still works inside the folder is killed and the folder removed.
_UNDERTAKER = """
import shutil, sys, psutil
folder = sys.argv[1]
sys.stdin.read()
for process in psutil.process_iter():
    try:
        if process.name() == "postgres" and process.cwd().startswith(folder):
            process.kill()
    except psutil.Error:
        pass
shutil.rmtree(folder, ignore_errors=True)
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test that asks for the server has the marker `database`, so that `make fast` can leave it out."""
    for item in items:
        if "server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.database)


def pytest_collection_finish() -> None:
    """Imported modules live as long as the run; walking them in each full garbage collection takes about a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def computed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a child process would compute is computed by this one: starting one takes a second where many routes are
    only asked whether they answer as they are described."""

    async def run(_: ChildProcess, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.to_thread(work, *args)

    monkeypatch.setattr(ChildProcess, "run", run)


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder with a short path (sockets need one) that is gone after the run, however the run ends."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES
    folder = Path(tempfile.mkdtemp(prefix="azt-", dir=MEMORY if roomy else "/tmp"))
    with subprocess.Popen(
        [sys.executable, "-c", _UNDERTAKER, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    ) as undertaker:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
        undertaker.communicate()


@pytest.fixture(scope="session")
def server(scratch: Path) -> Iterator[EmbeddedServer]:
    """One embedded server for the whole run."""
    with EmbeddedServer(scratch / "pg", settings=UNSAFE) as running:
        yield running


@pytest.fixture(scope="session")
def template(server: EmbeddedServer) -> str:
    """The name of a database with all migrations applied, to clone from."""
    create_database(server, TEMPLATE)
    run_apart(migrations.apply(url_of(server, TEMPLATE)))
    return TEMPLATE


@pytest.fixture
def empty_database_url(server: EmbeddedServer) -> Iterator[str]:
    """A database of one's own without any table."""
    yield from _database(server, "template0")


@pytest.fixture
def database_url(server: EmbeddedServer, template: str) -> Iterator[str]:
    """A migrated database of one's own."""
    yield from _database(server, template)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """An open pool on a migrated database of one's own."""
    opened = await open_pool(database_url, size=8, statement_timeout_seconds=15, application_name="tests")
    async with opened:
        yield opened


def _database(server: EmbeddedServer, template_name: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    create_database(server, name, template_name)
    yield url_of(server, name)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def create_database(server: EmbeddedServer, name: str, template_name: str = "template0") -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template_name)
            )
        )


def url_of(server: EmbeddedServer, database: str) -> str:
    return urlsplit(server.url)._replace(path=f"/{database}").geturl()


def run_apart(work: Coroutine[Any, Any, Any]) -> None:
    """Run it in a thread: a fixture of the session must not touch the event loop of the test that asked first."""
    failures: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
