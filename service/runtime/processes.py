"""The processes of one machine: what `azimuth up`, `serve`, `worker` and `migrate` start, and how they stop."""

import asyncio
import faulthandler
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

from service.client.http_client import Client
from service.core import metrics
from service.core.cores import usable_cores
from service.core.errors import Misconfigured
from service.core.periodic import in_background, repeat_every
from service.runtime import supervisor
from service.runtime.garbage import PAUSE_SECONDS, TRIM_SECONDS, GarbageCollection, trim
from service.runtime.http_server import allowed_hosts, first_free_port, require_usable, serve_http
from service.runtime.settings import Settings
from service.store import disk_space
from service.store.embedded.server import EmbeddedServer
from service.store.postgres.schema import migrations
from service.store.postgres.store import Store, open_store

log = logging.getLogger(__name__)

START_SECONDS = 300.0
SWITCH_SECONDS = 0.0005
"""How soon the event loop gets Python's interpreter lock back from the threads of models and of the lexical index. With
Python's own 5 ms a refusal took half a second in an overload; with 0.1 ms a tenth less of the capacity was left there,
and searches beside large bodies, whose threads give way (`give_way`), were no quicker."""
WORKER_NICE = 10
"""How much a worker yields where an API shares its cores: about a tenth of them while searches want all. While none
does it has them whole, which fewer threads would not give it."""
AUTOGROUP = Path("/proc/self/autogroup")
SPACE_SECONDS = 0.25
"""Between two looks at the free space of the embedded server's disk: what is written meanwhile must fit the reserve."""


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[tuple[str, EmbeddedServer | None]]:
    """The URL of the given server, or of the embedded one, which runs for as long as this is open."""
    if settings.database_url is not None:
        yield settings.database_url, None
        return
    embedded = EmbeddedServer(settings.data_dir / "postgres")
    url = await asyncio.to_thread(embedded.start)
    guard = repeat_every("disk space", SPACE_SECONDS, lambda: asyncio.to_thread(embedded.guard_space))
    try:
        async with in_background(guard):
            yield url, embedded
    finally:
        await asyncio.to_thread(embedded.stop)


async def migrate(settings: Settings, *, apply: bool = True) -> list[str]:
    """Names of the migrations that were applied, or (without `apply`) that are pending."""
    async with database(settings) as (url, _):
        work = migrations.apply if apply else migrations.pending
        return [migration.label for migration in await work(url)]


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Store]:
    """The migrated database, for a command; also while the service runs."""
    async with database(settings) as (url, _):
        await migrations.apply(url)
        async with _open_store(settings, url) as store:
            yield store


def _open_store(settings: Settings, url: str) -> AbstractAsyncContextManager[Store]:
    """With one connection, for what is little and rare."""
    return open_store(url, name="keys", pool_size=1, statement_timeout_seconds=settings.statement_timeout_seconds)


@asynccontextmanager
async def _process(
    settings: Settings, *, supervised: bool, migrated: bool
) -> AsyncIterator[tuple[asyncio.Event, str, EmbeddedServer | None]]:
    """What all processes share: an event that tells them to stop, and the database. `migrated`: by the supervisor."""
    stop = supervisor.stop_on_signals()
    metrics.DISK_FREE.set_function(partial(disk_space.free_bytes, settings.data_dir))
    metrics.DISK_RESERVE.set_function(partial(disk_space.reserve_bytes, settings.data_dir))

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
    require_usable(settings, settings.port)
    if settings.worker_port and workers:
        require_usable(settings, settings.worker_port, "AZIMUTH_WORKER_PORT")
    async with _process(settings, supervised=supervised, migrated=False) as (stop, url, embedded):
        environment = os.environ | {"AZIMUTH_DATABASE_URL": url, "AZIMUTH_LOG_LEVEL": settings.log_level}
        environment["AZIMUTH_EMBEDDER"] = settings.embedder
        children = [supervisor.ManagedProcess("api", ["serve"], environment)]
        ports = _free_ports(settings.host, settings.worker_port or settings.port + 1)
        for number in range(workers):
            own = {"AZIMUTH_WORKER_PORT": str(next(ports))}
            if workers > 1 and not settings.threads:
                own["AZIMUTH_THREADS"] = str(max(1, usable_cores() // workers))
            children.append(supervisor.ManagedProcess(f"worker {number}", ["worker"], environment | own))
        children[0].stop_seconds += settings.drain_seconds
        calling = None if on_started is None else asyncio.create_task(_call(on_started, stop))
        await supervisor.run(children, embedded, stop)
        if calling is not None:
            calling.cancel()


def _free_ports(host: str, first: int) -> Iterator[int]:
    """Ports from `first` on that are free, each once."""
    while True:
        first = first_free_port(host, first)
        yield first
        first += 1


async def _call(on_started: OnStarted, stop: asyncio.Event) -> None:
    """Call it in a thread. Where it fails, stop everything; that it fails because everything stops is not reported."""
    try:
        await asyncio.to_thread(on_started, stop.is_set)
    except Exception as error:
        if not stop.is_set():
            print(f"azimuth: {error}", file=sys.stderr)  # noqa: T201 the user waits for this
            stop.set()


def serve(settings: Settings, *, supervised: bool) -> None:
    """Run the API in this process until it is told to stop."""
    from service.runtime.container.renewal import open_renewed_api

    require_usable(settings, settings.port)

    async def run() -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        async with (
            _process(settings, supervised=supervised, migrated=supervised) as (stop, url, _),
            open_renewed_api(settings, url) as app,
        ):

            def stop_waiting() -> None:
                app.state.service.ingest.stop_waiting()

            garbage = repeat_every("garbage", PAUSE_SECONDS, GarbageCollection().collect)
            async with in_background(garbage, repeat_every("freed memory", TRIM_SECONDS, trim)):
                await serve_http(
                    app, settings, settings.port, stop, drain_seconds=settings.drain_seconds, on_exit=stop_waiting
                )

    _run(run())


def worker(settings: Settings, *, supervised: bool) -> None:
    """Run one worker in this process until it is told to stop: it finishes its batch and releases other claims."""
    from service.api.app import create_worker_app
    from service.runtime.container import components
    from service.runtime.container.worker import run_worker

    if supervised:
        _yield_to_others()
    port = settings.worker_port
    if port:
        if supervised:  # a neighbour may have taken it since the supervisor looked; the work is more important
            port = first_free_port(settings.host, port)
        require_usable(settings, port, "AZIMUTH_WORKER_PORT")

    async def run() -> None:
        async with (
            _process(settings, supervised=supervised, migrated=supervised) as (stop, url, _),
            in_background(repeat_every("freed memory", TRIM_SECONDS, trim)),
            AsyncExitStack() as stack,
        ):
            works = [run_worker(settings, url, stop)]
            if port:
                log.info("metrics and health of this worker: %s", settings.address(port))
                store = await stack.enter_async_context(_open_store(settings, url))
                keys = await stack.enter_async_context(components.open_key_ring(settings, store))
                hosts = allowed_hosts(settings)
                app = create_worker_app(keys=keys, allowed_hosts=hosts, with_metrics=settings.expose_metrics)
                works.append(serve_http(app, settings, port, stop))
            await _until_all_end(stop, works)

    _run(run())


async def workers_on(settings: Settings, devices: Sequence[str]) -> None:
    """A worker for each device, started again where it dies, until SIGTERM or SIGINT."""
    async with _process(settings, supervised=False, migrated=False) as (stop, url, embedded):
        environment = os.environ | {"AZIMUTH_DATABASE_URL": url}
        children, ports = [], _free_ports(settings.host, settings.worker_port)
        for device in devices:
            own = {"AZIMUTH_DEVICE": device}
            if settings.worker_port:
                own["AZIMUTH_WORKER_PORT"] = str(next(ports))
            children.append(supervisor.ManagedProcess(f"worker on {device}", ["worker"], environment | own))
        await supervisor.run(children, embedded, stop)


def _yield_to_others() -> None:
    """Lower the priority of this process. Where Linux shares the processor out by sessions (`sched(7)`, autogroup), of
    which each child of the supervisor has one, the nice value counts within a session alone, and the session has one
    of its own."""
    os.nice(WORKER_NICE)
    with suppress(OSError):  # there are no such groups
        AUTOGROUP.write_text(str(WORKER_NICE))


async def _until_all_end(stop: asyncio.Event, works: Iterable[Awaitable[None]]) -> None:
    """Run them side by side. The first that ends stops the others, which end in order; then its error is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await asyncio.wait(tasks)
    await asyncio.gather(*tasks)


def _run(work: Coroutine[None, None, None]) -> None:
    import uvloop

    faulthandler.enable()  # a signal that ends the process leaves a trace in the log
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries have no place in a log
    uvloop.run(work)


@contextmanager
def running_service(settings: Settings, url: str | None) -> Iterator[str]:
    """The address of the service. Where none runs and no `url` is given, one is started for the length of the block."""
    address = url or settings.address()
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
        address = settings.address(port)
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
    return Client(address, settings.client_key, settings.tls_certificate)


def _unused_port() -> int:
    """A port whose successor is unused as well: the worker's."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
