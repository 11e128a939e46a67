"""Whether this API process can serve (/readyz), and its heartbeat, which tells other processes what it has loaded."""

import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from service.core.collections import Collection, EmbedderSpec
from service.core.errors import AzimuthError
from service.core.periodic import utc_now
from service.core.ports.collections import Collections
from service.core.ports.embedder import Embedders
from service.core.ports.processes import Processes
from service.core.ports.versions import Versions
from service.core.versions import ApiProcess, VersionState
from service.spaces.model_verification import Key, ModelVerifier

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""Pause before a model that was refused is verified again."""
_SEARCHED_STATES = frozenset({VersionState.VERIFYING, VersionState.READY, VersionState.ACTIVE})


@dataclass(kw_only=True, slots=True)
class Readiness:
    """Verifies the models of this API process, and reports what it still lacks."""

    collections: Collections
    versions: Versions
    processes: Processes
    embedders: Embedders
    verifier: ModelVerifier
    lexicon_built: Callable[[Collection], bool]
    check_seconds: float
    """Between two verifications of a model."""
    lexicons_were_built: bool = False
    """Once all were built, a rebuild only degrades searches of its collection."""
    _models_missing: list[str] = field(default_factory=lambda: ["models: loading"], init=False)
    _due: dict[Key, float] = field(default_factory=dict, init=False)
    _errors: dict[Key, str] = field(default_factory=dict, init=False)
    _started: datetime = field(default_factory=utc_now, init=False)
    _process_id: str = field(default_factory=lambda: str(uuid.uuid4()), init=False)

    async def check_models(self) -> None:
        """Load the default model, and verify the model of every version that is searched or may be soon.

        New versions at once, refused ones after `RETRY_SECONDS`, others after `check_seconds`.
        """
        try:
            await self.embedders.get(self.embedders.resolve(EmbedderSpec()))
            missing = [reason async for reason in self._refused_models()]
        except AzimuthError as error:
            missing = [f"models: {error.detail}"]
        if missing != self._models_missing and missing:
            log.warning("not ready", extra={"missing": missing})
        self._models_missing = missing

    async def _refused_models(self) -> AsyncIterator[str]:
        collections = {collection.id: collection for collection in await self.collections.all()}
        written = await self.versions.written()
        self.verifier.retain(written)
        searched = {(one.collection_id, one.number): one for one in written if one.state in _SEARCHED_STATES}
        self._due = {key: due for key, due in self._due.items() if key in searched}
        for key, version in searched.items():
            if self._due.get(key, 0.0) <= time.monotonic():
                self._errors.pop(key, None)
                try:
                    await self.verifier.reverify(version)
                except AzimuthError as error:
                    self._errors[key] = error.detail
                pause = min(RETRY_SECONDS, self.check_seconds) if key in self._errors else self.check_seconds
                self._due[key] = time.monotonic() + pause
            collection = collections.get(version.collection_id)
            if key in self._errors and collection is not None and version.number == collection.active_version:
                yield f"collection {collection.name}: {self._errors[key]}"

    async def send_heartbeat(self) -> None:
        """Tell the other processes that this one runs, and which query encoders it has loaded."""
        verified = self.verifier.verified
        process = ApiProcess(id=self._process_id, host=socket.gethostname(), seen_at=utc_now(), proven=verified)
        await self.processes.record_heartbeat(process)

    async def remove_heartbeat(self) -> None:
        with suppress(AzimuthError):
            await self.processes.remove(self._process_id)

    async def missing(self) -> list[str]:
        """What is missing until this process can serve; empty when it is ready."""
        missing = list(self._models_missing)
        try:
            # A collection created since is empty and indexed within a moment: no reason to send clients away.
            unbuilt = [
                f"lexical index of {collection.name}: being built"
                for collection in await self.collections.all()
                if collection.created_at < self._started and not self.lexicon_built(collection)
            ]
        except AzimuthError as error:
            return [*missing, f"database: {error.detail}"]
        self.lexicons_were_built = self.lexicons_were_built or not unbuilt
        return missing if self.lexicons_were_built else [*missing, *unbuilt]
