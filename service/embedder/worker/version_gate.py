"""The versions that this worker may write: those whose model was verified. Each verification is renewed regularly."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from service.core.errors import AzimuthError
from service.core.ids import CollectionId, VersionNumber
from service.core.ports.embedder import Encoder
from service.core.versions import EmbedderVersion
from service.embedder.worker.backoff import Backoff

log = logging.getLogger(__name__)

Key = tuple[CollectionId, VersionNumber]


def key_of(version: EmbedderVersion) -> Key:
    return version.collection_id, version.number


class VersionGate:
    """Verifies versions in the background, so that a model that takes minutes to load does not delay other versions."""

    def __init__(
        self,
        ensure: Callable[[EmbedderVersion], Awaitable[Encoder]],
        *,
        retry_seconds: float = 5.0,
        recheck_seconds: float = 2.0,
    ) -> None:
        """`ensure` returns the verified encoder or raises. `retry_seconds`: first delay after a failure.

        `recheck_seconds`: age at which a verification is renewed, since it may have been withdrawn.
        """
        self._ensure, self._retry_seconds, self._recheck_seconds = ensure, retry_seconds, recheck_seconds
        self._verified: dict[Key, Encoder] = {}
        self._refused: dict[Key, Backoff] = {}
        self._due: dict[Key, float] = {}
        self._running: dict[Key, asyncio.Task[None]] = {}

    def writable(self, versions: Sequence[EmbedderVersion]) -> dict[Key, Encoder]:
        """Those of the versions that may be written; the others are being verified or will be retried.

        Versions that are not named any more are forgotten, so that the model of a retired version leaves the memory.
        """
        named = {key_of(version): version for version in versions}
        self._verified = {key: encoder for key, encoder in self._verified.items() if key in named}
        self._refused = {key: backoff for key, backoff in self._refused.items() if key in named}
        self._due = {key: due for key, due in self._due.items() if key in named}
        for key, version in named.items():
            if key not in self._running and time.monotonic() >= self._due.get(key, 0.0):
                self._running[key] = asyncio.create_task(self._verify(version))
        return dict(self._verified)

    async def close(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _verify(self, version: EmbedderVersion) -> None:
        key = key_of(version)
        try:
            self._verified[key] = await self._ensure(version)
            self._refused.pop(key, None)
            self._due[key] = time.monotonic() + self._recheck_seconds
        except Exception as error:  # a model may raise anything; the other versions must go on
            backoff = self._refused.setdefault(key, Backoff(initial=self._retry_seconds, maximum=60.0))
            delay = backoff.next_delay()
            self._due[key] = time.monotonic() + delay
            self._verified.pop(key, None)
            reason = error.detail if isinstance(error, AzimuthError) else repr(error)
            place = {"collection_id": version.collection_id, "version": version.number}
            log.warning("version skipped", extra={**place, "reason": reason, "retry_seconds": round(delay, 1)})
        finally:
            self._running.pop(key, None)
