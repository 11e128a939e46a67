"""Workers on a Ray cluster, until nothing waits.

Each actor is a worker as `azimuth worker` runs it. The queue in PostgreSQL hands out the work, so nothing here can lose
or double a document: the leases of an actor, a node or a driver that is killed expire, and others take over.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.core.errors import Misconfigured
from service.core.periodic import utc_now
from service.core.versions import VersionState
from service.runtime import processes
from service.runtime.settings import Settings
from service.store.postgres.store import Store

log = logging.getLogger(__name__)

LOCAL = "local"
_POLL_SECONDS, _RESTART_SECONDS, _STOP_SECONDS = 1.0, 2.0, 30.0
_WRITTEN = frozenset(VersionState) - {VersionState.RETIRED, VersionState.FAILED}


@dataclass(frozen=True, kw_only=True, slots=True)
class RayPool:
    """`address`: of a cluster whose nodes have this program, its models and a way to the database; LOCAL: one is
    started on this machine. `workers`: how many actors. `gpus`: what share of GPUs each needs; 0: none."""

    address: str
    workers: int
    gpus: float


class RayWorker:
    """An actor: one worker, with the settings of the driver."""

    def __init__(self) -> None:
        self._stop = asyncio.Event()

    async def run(self) -> None:
        from service.runtime.container.worker import run_worker

        settings = Settings()
        async with processes.database(settings) as (url, _):
            await run_worker(settings, url, self._stop)

    async def stop(self) -> None:
        self._stop.set()


async def backfill(settings: Settings, pool: RayPool, report: Callable[[int], None]) -> None:
    """Encode what waits, and what versions that are filled will need. `report` gets the number of waiting documents.

    Misconfigured where Ray is not installed, or each node would have to reach a database of this machine.
    """
    try:
        import ray
    except ImportError as error:
        raise Misconfigured("Ray is not installed: pip install 'azimuth-search[ray]'") from error
    if settings.database_url is None and pool.address != LOCAL:
        raise Misconfigured("The nodes of a cluster cannot reach the embedded database: set AZIMUTH_DATABASE_URL.")
    cores = os.cpu_count() or 1
    # Ray gives models as many threads as their actor takes processors.
    cpus = settings.threads or (max(1, cores // pool.workers) if pool.address == LOCAL else 1)
    variables = {name: value for name, value in os.environ.items() if name.startswith("AZIMUTH_")}
    options: dict[str, Any] = {"runtime_env": {"env_vars": variables}, "log_to_driver": False}
    if pool.address == LOCAL:
        options |= {"num_cpus": max(cpus * pool.workers, cores), "include_dashboard": False}
    ray.init(address=pool.address, **options)  # in this thread, so that a signal ends the actors
    try:
        async with processes.open_database(settings) as store:
            actor_class = ray.remote(num_cpus=cpus, num_gpus=pool.gpus, max_restarts=-1)(RayWorker)
            await _work(ray, store, [actor_class.remote() for _ in range(pool.workers)], report)
    finally:
        await asyncio.to_thread(ray.shutdown)


async def _work(ray: Any, store: Store, actors: Sequence[Any], report: Callable[[int], None]) -> None:
    running = {actor.run.remote(): actor for actor in actors}
    while waiting := await _waiting(store):
        report(waiting)
        ended, _ = await asyncio.to_thread(ray.wait, list(running), timeout=_POLL_SECONDS)
        for one in ended:
            actor = running.pop(one)
            try:
                await one
            except Exception as error:  # whatever killed it: Ray starts the actor anew, here or on another node
                reason = str(error).partition("\n")[0] or type(error).__name__
                log.warning("a worker on Ray ended; it is started again", extra={"reason": reason})
                await asyncio.sleep(_RESTART_SECONDS)
            running[actor.run.remote()] = actor
    report(0)
    for actor in actors:
        actor.stop.remote()  # not awaited: one that is being started anew would not answer before it is there
    await asyncio.to_thread(ray.wait, list(running), num_returns=len(running), timeout=_STOP_SECONDS)


async def _waiting(store: Store) -> int:
    """Documents in the queue; at least 1 while a version is filled, for which more are queued step by step."""
    versions = await store.versions.in_states(_WRITTEN)
    now = utc_now()
    counts = [(await store.queue.status(one.collection_id, one.number, now)).pending for one in versions]
    filling = any(one.state in {VersionState.BACKFILLING, VersionState.INDEXING} for one in versions)
    return max(sum(counts), int(filling))
