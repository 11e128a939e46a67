"""The processes of this machine: what `azimuth up`, `serve`, `worker` and `migrate` start, and how they stop."""

import asyncio
import ipaddress
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress

from service.client.http_client import Client, address_of
from service.core import periodic
from service.core.errors import Misconfigured
from service.runtime import supervisor
from service.runtime.settings import Settings
from service.store.embedded.server import EmbeddedServer
from service.store.postgres.schema import migrations

log = logging.getLogger(__name__)

START_SECONDS = 300.0
KEEP_ALIVE_SECONDS = 75
"""Longer than clients and proxies keep an idle connection: who closes first must be they, or a request that is just
being sent meets a closed one."""
MAX_PORT = 65_535


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


# ---------------------------------------------------------------- up


Show = Callable[[Callable[[], bool]], None]
"""What is shown beside: runs in a thread, and is given a function that says whether all of it is to stop."""


async def up(settings: Settings, *, workers: int, ready: Show | None = None, supervised: bool = False) -> None:
    """Run everything until SIGTERM or SIGINT. `ready` is called in a thread once the processes were started."""
    guard(settings)
    free_port(settings.host, settings.port)
    stop = supervisor.stop_on_signals()
    async with (
        database(settings) as (url, embedded),
        periodic.in_background(_stop_when_orphaned(stop, supervised=supervised)),
    ):
        await migrations.apply(url)
        environment = os.environ | {"AZIMUTH_DATABASE_URL": url, "AZIMUTH_LOG_LEVEL": settings.log_level}
        children = [supervisor.ManagedProcess("api", ["serve"], environment)]
        for number in range(workers):
            port = (settings.worker_port or settings.port + 1) + number
            port = port if port <= MAX_PORT else 0
            children.append(
                supervisor.ManagedProcess(
                    f"worker {number}", ["worker"], environment | {"AZIMUTH_WORKER_PORT": str(port)}
                )
            )
        showing = None if ready is None else asyncio.create_task(_show(ready, stop))
        await supervisor.run(children, embedded, stop)
        if showing is not None:
            showing.cancel()


async def _show(ready: Show, stop: asyncio.Event) -> None:
    """Run `ready` in a thread; where it fails, stop everything. That it fails when all of it stops is no news."""
    try:
        await asyncio.to_thread(ready, stop.is_set)
    except Exception as error:
        if not stop.is_set():
            print(f"azimuth: {error}", file=sys.stderr)  # noqa: T201 the user waits for this
            stop.set()


async def _stop_when_orphaned(stop: asyncio.Event, *, supervised: bool) -> None:
    if supervised:
        await supervisor.when_orphaned()
        stop.set()


def guard(settings: Settings) -> None:
    """Misconfigured where anybody on the network could read and write: no key, and not bound to loopback."""
    if settings.api_keys or settings.host == "localhost":
        return
    try:
        local = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise Misconfigured(
            f"AZIMUTH_HOST is {settings.host}, which others can reach: set AZIMUTH_API_KEYS first, or keep to 127.0.0.1"
        )


def free_port(host: str, port: int) -> None:
    """Misconfigured where another program listens there already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Misconfigured(f"port {port} on {host} cannot be used ({error.strerror}); set AZIMUTH_PORT") from error


# ---------------------------------------------------------------- serve and worker


def serve(settings: Settings, *, supervised: bool) -> None:
    """The API in this process until it is told to stop."""
    import uvicorn

    from service.api.http_protocol import Protocol
    from service.runtime import container

    guard(settings)
    free_port(settings.host, settings.port)

    class Server(uvicorn.Server):
        """Leaves signals to us: uvicorn's own handling ends the process before the database is stopped."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    async def run() -> None:
        stop = supervisor.stop_on_signals()
        async with AsyncExitStack() as stack:
            url, _ = await stack.enter_async_context(database(settings))
            if not supervised:
                await migrations.apply(url)
            app = await stack.enter_async_context(container.api(settings, url))
            config = uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=Protocol,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=20,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
            server = Server(config)

            async def end() -> None:
                await stop.wait()
                server.should_exit = True
                app.state.service.ingest.end_waiting()

            async with (
                periodic.in_background(_stop_when_orphaned(stop, supervised=supervised)),
                periodic.in_background(end()),
            ):
                await server.serve()
            if not server.started:
                raise Misconfigured("the API could not start; the log says why")

    _run(run())


def worker(settings: Settings, *, supervised: bool) -> None:
    """One embedder process until it is told to stop: it finishes what it has in hand and gives the rest back."""
    from prometheus_client import start_http_server

    from service.runtime import container

    async def run() -> None:
        stop = supervisor.stop_on_signals()
        if settings.worker_port:
            try:
                start_http_server(settings.worker_port, settings.host)
            except OSError as error:  # metrics are no reason not to work
                log.warning("no metrics of this worker: port %d cannot be used (%s)", settings.worker_port, error)
        async with (
            database(settings) as (url, _),
            periodic.in_background(_stop_when_orphaned(stop, supervised=supervised)),
        ):
            if not supervised:
                await migrations.apply(url)
            await container.work(settings, url, stop)

    _run(run())


def _run(work: Coroutine[None, None, None]) -> None:
    import uvloop

    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries have no place in a log
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


# ---------------------------------------------------------------- a service for the length of a command


@contextmanager
def running(settings: Settings, url: str | None) -> Iterator[str]:
    """The address of the service that runs; where none does and none was named, one is started for the while."""
    address = url or address_of(settings.host, settings.port)
    with _client(settings, address) as client:
        if url is not None or client.alive():
            yield address
            return
    port = _unused_port()
    environment = os.environ | {"AZIMUTH_PORT": str(port), "AZIMUTH_LOG_LEVEL": settings.log_level}
    # It stops when its standard input ends: also where this process is killed.
    command = [sys.executable, "-m", "service", "up", "--supervised"]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 a fixed command
    try:
        address = address_of(settings.host, port)
        with _client(settings, address) as client:
            deadline = time.monotonic() + START_SECONDS
            while not client.ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Misconfigured("the service did not start; what it said stands above")
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
