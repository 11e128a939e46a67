"""Loading of models: once for all who wait for it, and not again at once where it failed."""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from service.core.errors import Invalid, ModelUnavailable

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
"""How long the error of a failed load is repeated without another try: a missing model must not cost a download attempt
for each request."""

K = TypeVar("K", bound=Hashable)
M = TypeVar("M")


class SharedLoads(Generic[K, M]):
    """Loads by key, each in a thread. `loaded` is called with every model that was not forgotten meanwhile."""

    def __init__(self, loaded: Callable[[K, M], None]) -> None:
        self._loaded = loaded
        self._running: dict[K, asyncio.Task[M]] = {}
        self._failures: dict[K, tuple[float, ModelUnavailable]] = {}

    async def load(self, key: K, name: str, make: Callable[[], M]) -> M:
        """The model called `name`. Invalid as `make` raises it; any other error becomes ModelUnavailable."""
        failed = self._failures.get(key)
        if failed and time.monotonic() - failed[0] < RETRY_SECONDS:
            raise ModelUnavailable(failed[1].detail, retry_after=RETRY_SECONDS) from failed[1]
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._run(key, name, make))
        # Shielded: a cancelled caller must not cancel the load of the others.
        return await asyncio.shield(task)

    def forget(self, key: K) -> None:
        """What is being loaded now does not count any more, nor does a failure."""
        self._running.pop(key, None)
        self._failures.pop(key, None)

    async def _run(self, key: K, name: str, make: Callable[[], M]) -> M:
        task = asyncio.current_task()
        try:
            model = await asyncio.to_thread(make)
        except Invalid:
            raise
        except Exception as error:  # damaged files can raise anything
            reason = error if isinstance(error, ModelUnavailable) else ModelUnavailable(f"{name}: {error}")
            if self._running.get(key) is task:
                recent = time.monotonic() - RETRY_SECONDS
                self._failures = {one: failed for one, failed in self._failures.items() if failed[0] > recent}
                self._failures[key] = (time.monotonic(), reason)
            log.warning("model not loaded", extra={"model": name, "reason": reason.detail})
            raise reason from error
        else:
            if self._running.get(key) is task:
                self._failures.pop(key, None)
                self._loaded(key, model)
            return model
        finally:
            if self._running.get(key) is task:
                del self._running[key]
