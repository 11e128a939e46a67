"""Which versions this worker may write: those whose model was proven. All are asked for again now and then."""

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
    """Proves versions in the background, so that one whose model takes minutes to load holds nobody up."""

    def __init__(
        self,
        ensure: Callable[[EmbedderVersion], Awaitable[Encoder]],
        *,
        retry: float = 5.0,
        again: float = 2.0,
    ) -> None:
        """`admit` answers the proven encoder or raises; `retry` is the first pause before it is asked again.

        `again`: seconds after which an admission is asked for once more, for it may have been withdrawn.
        """
        self._admit = ensure
        self._retry = retry
        self._again = again
        self._admitted: dict[Key, Encoder] = {}
        self._asked: dict[Key, float] = {}
        self._asking: dict[Key, asyncio.Task[None]] = {}
        self._refused: dict[Key, tuple[float, Backoff]] = {}

    def ready(self, versions: Sequence[EmbedderVersion]) -> dict[Key, Encoder]:
        """Those of the versions that may be written; for the others the proof is under way or will be repeated.

        What is no longer among them is forgotten, so that the model of a retired version leaves the memory.
        """
        named = {key_of(version) for version in versions}
        for key in (self._admitted.keys() | self._refused.keys()) - named:
            self._admitted.pop(key, None)
            self._refused.pop(key, None)
        for version in versions:
            key = key_of(version)
            due, _ = self._refused.get(key, (0.0, None))
            fresh = key in self._admitted and time.monotonic() < self._asked[key] + self._again
            if not fresh and key not in self._asking and time.monotonic() >= due:
                self._asking[key] = asyncio.create_task(self._ask(version))
        return {
            key_of(version): self._admitted[key_of(version)]
            for version in versions
            if key_of(version) in self._admitted
        }

    async def close(self) -> None:
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _ask(self, version: EmbedderVersion) -> None:
        key = key_of(version)
        try:
            self._admitted[key] = await self._admit(version)
            self._asked[key] = time.monotonic()
            self._refused.pop(key, None)
        except Exception as error:  # a model may raise anything; the other versions must go on
            _, backoff = self._refused.get(key, (0.0, Backoff(first=self._retry, most=60.0)))
            pause = backoff.failed()
            self._refused[key] = (time.monotonic() + pause, backoff)
            self._admitted.pop(key, None)
            log.warning(
                "version skipped",
                extra={
                    "collection_id": version.collection_id,
                    "version": version.number,
                    "reason": error.detail if isinstance(error, AzimuthError) else repr(error),
                    "retry_seconds": round(pause, 1),
                },
            )
        finally:
            self._asking.pop(key, None)
