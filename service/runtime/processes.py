"""The processes of one machine: what `azimuth up`, `serve`, `worker` and `migrate` start, and how they stop."""

import asyncio
import ipaddress
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress

from service.client.http_client import Client, address_of
from service.core.errors import Misconfigured
from service.core.periodic import in_background
from service.runtime import supervisor
from service.runtime.settings import Settings
from service.store.embedded.server import EmbeddedServer
from service.store.postgres.schema import migrations

log = logging.getLogger(__name__)

START_SECONDS = 300.0
KEEP_ALIVE_SECONDS = 75
"""Longer than clients and proxies keep an idle connection, so that they close it first: a server that does may close it
while a request is being sent."""


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[tuple[str, EmbeddedServer | None]]:
    """The URL of the given server, or of the embedded one, which runs for as long as this is open."""
    if settings.database_url is not None:
        yield settings.database_url, None
        return
    embedded = EmbeddedServer(settings.data_dir / "postgres")
    url = await asyncio.to_thread(embedded.start)
    try:
        yield url, embedded
    finally:
        await asyncio.to_thread(embedded.stop)


async def migrate(settings: Settings, *, apply: bool = True) -> list[str]:
    """Names of the migrations that were applied, or (without `apply`) that are pending."""
    async with database(settings) as (url, _):
        work = migrations.apply if apply else migrations.pending
        return [migration.label for migration in await work(url)]


@asynccontextmanager
async def _process(
    settings: Settings, *, supervised: bool, migrated: bool
) -> AsyncIterator[tuple[asyncio.Event, str, EmbeddedServer | None]]:
    """What all processes share: an event that tells them to stop, and the database. `migrated`: by the supervisor."""
    stop = supervisor.stop_on_signals()

    async def stop_when_orphaned() -> None:
        if supervised:
            await supervisor.wait_for_parent_exit()
            stop.set()

    async with database(settings) as (url, embedded), in_background(stop_when_orphaned()):
        if not migrated:
            await migrations.apply(url)
        yield stop, url, embedded


OnStarted = Callable[[Callable[[], bool]], None]
"""Runs in a thread once the processes were started; its argument says whether they are to stop."""


async def up(
    settings: Settings, *, workers: int, on_started: OnStarted | None = None, supervised: bool = False
) -> None:
    """Run PostgreSQL, an API and workers until SIGTERM or SIGINT."""
    require_key_or_loopback(settings)
    require_free_port(settings.host, settings.port)
    async with _process(settings, supervised=supervised, migrated=False) as (stop, url, embedded):
        environment = os.environ | {"AZIMUTH_DATABASE_URL": url, "AZIMUTH_LOG_LEVEL": settings.log_level}
        children = [supervisor.ManagedProcess("api", ["serve"], environment)]
        for number in range(workers):
            port = (settings.worker_port or settings.port + 1) + number
            own = {"AZIMUTH_WORKER_PORT": str(port if port <= 65_535 else 0)}
            children.append(supervisor.ManagedProcess(f"worker {number}", ["worker"], environment | own))
        children[0].stop_seconds += settings.drain_seconds
        calling = None if on_started is None else asyncio.create_task(_call(on_started, stop))
        await supervisor.run(children, embedded, stop)
        if calling is not None:
            calling.cancel()


async def _call(on_started: OnStarted, stop: asyncio.Event) -> None:
    """Call it in a thread. Where it fails, stop everything; that it fails because everything stops is not reported."""
    try:
        await asyncio.to_thread(on_started, stop.is_set)
    except Exception as error:
        if not stop.is_set():
            print(f"azimuth: {error}", file=sys.stderr)  # noqa: T201 the user waits for this
            stop.set()


def require_key_or_loopback(settings: Settings) -> None:
    """Misconfigured where anybody on the network could read and write: no key, and not bound to loopback."""
    local = settings.host == "localhost"
    with suppress(ValueError):
        local = local or ipaddress.ip_address(settings.host).is_loopback
    if not local and not settings.api_keys:
        raise Misconfigured(
            f"AZIMUTH_HOST is {settings.host}, which others can reach: set AZIMUTH_API_KEYS first, or keep to 127.0.0.1"
        )


def require_free_port(host: str, port: int) -> None:
    """Misconfigured where another program listens there already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Misconfigured(f"port {port} on {host} cannot be used ({error.strerror}); set AZIMUTH_PORT") from error


def serve(settings: Settings, *, supervised: bool) -> None:
    """Run the API in this process until it is told to stop."""
    import uvicorn

    from service.api.http_protocol import HttpProtocol
    from service.runtime.container.api import open_api

    require_key_or_loopback(settings)
    require_free_port(settings.host, settings.port)

    async def run() -> None:
        async with (
            _process(settings, supervised=supervised, migrated=supervised) as (stop, url, _),
            open_api(settings, url) as app,
        ):
            config = uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=HttpProtocol,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=20,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
            server = uvicorn.Server(config)
            # Its own handling of signals would end the process before the database is stopped.
            server.capture_signals = nullcontext  # type: ignore[assignment]

            async def stop_server() -> None:
                await stop.wait()
                app.state.leaving = True
                await asyncio.sleep(settings.drain_seconds)
                server.should_exit = True
                app.state.service.ingest.stop_waiting()

            async with in_background(stop_server()):
                await server.serve()
            if not server.started:
                raise Misconfigured("the API could not start; see the log above for the reason")

    _run(run())


def worker(settings: Settings, *, supervised: bool) -> None:
    """Run one worker in this process until it is told to stop: it finishes its batch and releases other claims."""
    from prometheus_client import start_http_server

    from service.runtime.container.worker import run_worker

    async def run() -> None:
        if settings.worker_port:
            try:
                start_http_server(settings.worker_port, settings.host)
            except OSError as error:  # a worker can work without metrics
                log.warning("no metrics of this worker: port %d cannot be used (%s)", settings.worker_port, error)
        async with _process(settings, supervised=supervised, migrated=supervised) as (stop, url, _):
            await run_worker(settings, url, stop)

    _run(run())


def _run(work: Coroutine[None, None, None]) -> None:
    import uvloop

    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries have no place in a log
    uvloop.run(work)


@contextmanager
def running_service(settings: Settings, url: str | None) -> Iterator[str]:
    """The address of the service. Where none runs and no `url` is given, one is started for the length of the block."""
    address = url or address_of(settings.host, settings.port)
    with _client(settings, address) as client:
        if url is not None or client.alive():
            yield address
            return
    port = _unused_port()
    environment = os.environ | {"AZIMUTH_PORT": str(port), "AZIMUTH_LOG_LEVEL": settings.log_level}
    # It stops when its standard input ends, which it does also when this process is killed.
    command = [sys.executable, "-m", "service", "up", "--supervised"]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 a fixed command
    try:
        address = address_of(settings.host, port)
        with _client(settings, address) as client:
            deadline = time.monotonic() + START_SECONDS
            while not client.ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Misconfigured("the service did not start; see its messages above")
                time.sleep(0.25)
        yield address
    finally:
        process.terminate()
        process.wait()


def _client(settings: Settings, address: str) -> Client:
    return Client(address, settings.api_keys[0].get_secret_value() if settings.api_keys else None)


def _unused_port() -> int:
    """A port whose successor is unused as well: the worker's."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
