"""Is this API process usable, and for which versions? What /readyz and the other processes want to know of it."""

import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime

from service.core.collections import Collection, EmbedderSpec
from service.core.errors import AzimuthError
from service.core.ports.collections import Collections
from service.core.ports.embedder import Embedders
from service.core.ports.processes import Processes
from service.core.ports.versions import Versions
from service.core.versions import ApiProcess, VersionState
from service.spaces.model_verification import Key, ModelVerifier

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""Pause before a model that was refused is tried again."""
_ANSWERING = frozenset({VersionState.VERIFYING, VersionState.READY, VersionState.ACTIVE})


class Readiness:
    """What keeps this API from being usable; empty when it is ready.

    Beside it stands what the other processes want to know of this one: whose query encoder it has loaded and proven.
    """

    def __init__(
        self,
        *,
        collections: Collections,
        versions: Versions,
        processes: Processes,
        embedders: Embedders,
        verifier: ModelVerifier,
        lexicon_built: Callable[[Collection], bool],
        check_seconds: float,
    ) -> None:
        """`lexicon_built`: is the lexical index of a collection there? `check_seconds`: between proofs."""
        self._collections = collections
        self._versions = versions
        self._processes = processes
        self._embedders = embedders
        self._verifier = verifier
        self._lexicon_built = lexicon_built
        self._check_seconds = check_seconds
        self._models_missing = ["models: loading"]
        self._due: dict[Key, float] = {}
        self._reasons: dict[Key, str] = {}
        self._lexicon_stood = False
        self._started = datetime.now(UTC)
        self._process = str(uuid.uuid4())

    async def watch_models(self) -> None:
        """Load the default model, and prove every version that answers or may soon: what is new at once, what failed
        soon again, the rest now and then."""
        try:
            await self._embedders.get(self._embedders.resolve(EmbedderSpec()))
            missing = [reason async for reason in self._unproven()]
        except AzimuthError as error:
            missing = [f"models: {error.detail}"]
        if missing != self._models_missing and missing:
            log.warning("not ready", extra={"missing": missing})
        self._models_missing = missing

    async def _unproven(self) -> AsyncIterator[str]:
        names = {collection.id: collection for collection in await self._collections.all()}
        written = await self._versions.written()
        self._verifier.retain(written)
        standing = [version for version in written if version.state in _ANSWERING]
        keys = {(version.collection_id, version.number) for version in standing}
        self._due = {key: due for key, due in self._due.items() if key in keys}
        for version in standing:
            key = (version.collection_id, version.number)
            if self._due.get(key, 0.0) <= time.monotonic():
                self._reasons.pop(key, None)
                try:
                    await self._verifier.reverify(version)
                except AzimuthError as error:
                    self._reasons[key] = error.detail
                pause = min(RETRY_SECONDS, self._check_seconds) if key in self._reasons else self._check_seconds
                self._due[key] = time.monotonic() + pause
            collection = names.get(version.collection_id)
            if key in self._reasons and collection is not None and version.number == collection.active_version:
                yield f"collection {collection.name}: {self._reasons[key]}"

    async def beat(self) -> None:
        """Tell the other processes that this one is there, and in which versions it can answer at once."""
        process = ApiProcess(
            id=self._process, host=socket.gethostname(), seen_at=datetime.now(UTC), proven=self._verifier.verified
        )
        await self._processes.record_heartbeat(process)

    async def leave(self) -> None:
        with suppress(AzimuthError):
            await self._processes.remove(self._process)

    async def missing(self) -> list[str]:
        missing = list(self._models_missing)
        try:
            # What was created since is empty, and found a moment later: no reason to send clients away.
            unbuilt = [
                f"lexical index of {collection.name}: being built"
                for collection in await self._collections.all()
                if collection.created_at < self._started and not self._lexicon_built(collection)
            ]
        except AzimuthError as error:
            return [*missing, f"database: {error.detail}"]
        # Once all stood, one that is built anew (another language) makes searches there say so, and no more.
        self._lexicon_stood = self._lexicon_stood or not unbuilt
        return missing if self._lexicon_stood else [*missing, *unbuilt]
