"""Background work: what fails is logged and tried again, and holds nothing else up."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime

from service.core import metrics
from service.core.errors import AzimuthError, Conflict, NotFound
from service.core.versions import EmbedderVersion

log = logging.getLogger(__name__)

_CANCEL_AGAIN_SECONDS = 10.0

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


async def repeat_every(name: str, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Call `work` without end, with a pause of `seconds` between two calls."""
    while True:
        await _succeeds(name, seconds, work)
        await asyncio.sleep(seconds)


async def keep_running(name: str, work: Callable[[], Awaitable[None]], seconds: float = 1.0) -> None:
    """Run `work` to its end. Where it fails, run it again after a pause of `seconds`."""
    while True:
        if await _succeeds(name, seconds, work):
            return
        await asyncio.sleep(seconds)


async def _succeeds(name: str, seconds: float, work: Callable[[], Awaitable[None]]) -> bool:
    message, extra = f"background task failed; it runs again in {seconds:g} s", {"what": name}
    try:
        await work()
    except AzimuthError as error:
        log.warning(message, extra={**extra, "reason": error.detail})
    except Exception:
        log.exception(message, extra=extra)
    else:
        return True
    metrics.BACKGROUND_FAILURES.labels(name).inc()
    return False


@contextmanager
def failures_logged(message: str, **extra: object) -> Iterator[None]:
    """Log an error of the block, with the trace only where it is none of the service's own, and go on after it."""
    try:
        yield
    except AzimuthError as error:
        log.warning(message, extra={**extra, "reason": error.detail})
    except Exception:
        log.exception(message, extra=extra)


async def for_each_version(
    versions: Iterable[EmbedderVersion], work: Callable[[EmbedderVersion], Awaitable[None]], *, failure_message: str
) -> None:
    """Call `work` on each version. `failure_message` is logged for one that failed and is left for the next call."""
    for version in versions:
        with failures_logged(failure_message, collection_id=version.collection_id, version=version.number):
            with suppress(NotFound, Conflict):  # another process deleted, retired or moved it meanwhile
                await work(version)


@asynccontextmanager
async def in_background(*works: Awaitable[None]) -> AsyncIterator[None]:
    """Run all of `works` as tasks while the block runs; at its end they are cancelled, the last one first.

    An error of one of them is logged and keeps neither the others nor the caller from ending.
    """
    async with AsyncExitStack() as stack:
        for work in works:
            stack.push_async_callback(_cancel, asyncio.ensure_future(work))
        yield


async def _cancel(task: asyncio.Future[None]) -> None:
    """Cancelled again where it goes on: `asyncio.wait_for`, which libraries use, may lose it up to Python 3.11."""
    done: set[asyncio.Future[None]] = set()
    while not done:
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=_CANCEL_AGAIN_SECONDS)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background task failed at its end", exc_info=error)
