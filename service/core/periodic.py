"""What is done again and again, for ever: no failure ends it, and none holds up the others."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from service.core.errors import AzimuthError, Conflict, NotFound
from service.core.versions import EmbedderVersion

log = logging.getLogger(__name__)

Clock = Callable[[], datetime]


async def repeat_every(name: str, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do `work` every so many seconds: what goes wrong is logged, and tried again at the next turn."""
    while True:
        try:
            await work()
        except AzimuthError as error:
            log.warning("put off", extra={"what": name, "reason": error.detail})
        except Exception:
            log.exception("failed", extra={"what": name})
        await asyncio.sleep(seconds)


async def for_each_version(
    versions: Iterable[EmbedderVersion],
    work: Callable[[EmbedderVersion], Awaitable[None]],
    *,
    failure_message: str,
) -> None:
    """Do `work` on each version. `waits`: what the log says of one that is left for the next round."""
    for version in versions:
        about = {"collection_id": version.collection_id, "version": version.number}
        try:
            await work(version)
        except (NotFound, Conflict):
            pass  # deleted, retired, or moved by somebody else, meanwhile
        except AzimuthError as error:
            log.warning(failure_message, extra={**about, "reason": error.detail})
        except Exception:
            log.exception(failure_message, extra=about)


@asynccontextmanager
async def in_background(work: Awaitable[None]) -> AsyncIterator[None]:
    """Run `work` for as long as the block does."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
