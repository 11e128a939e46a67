"""The version's story: register -> admit -> index. Nothing writes or answers in a space that it did not admit.

create  a collection with its first embedder version: identity, fingerprint and canary are taken here
admit   before a process writes or answers in a version: its model must be the registered one and prove it
tend    what a version needs as it grows: the HNSW index once an exact scan is no longer as fast
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

import numpy as np

from service import metrics
from service.domain import (
    Collection,
    CollectionId,
    CollectionName,
    CollectionSettings,
    EmbedderSpec,
    EmbedderVersion,
    VersionNumber,
    cosine,
    finite,
)
from service.errors import EmbedderChange, Invalid, Misconfigured, ModelUnavailable, NotFound, SpaceRefused
from service.ports import Collections, Embedders, Encoder, Queue, Versions

log = logging.getLogger(__name__)

Key = tuple[CollectionId, VersionNumber]

CANARY_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "SELECT name FROM users WHERE age >= 21 ORDER BY name;",
    "Der Zug nach Köln fährt um 17:45 Uhr von Gleis 9 ab.",
    "Aspirin irreversibly inhibits cyclooxygenase-1 in platelets.",
    "42",
)
CANARY_COSINE = 0.999
"""Room for another precision or backend of the same embedder (bf16 against fp32: 0.9998), none for another embedder."""

REFUSED_SECONDS = 5.0
"""For so long a refusal is answered from memory, so that refused searches do not each load a model."""


class Lifecycle:
    """`exact_below`: chunks up to which a version has no index, because an exact scan is as fast."""

    def __init__(
        self, *, collections: Collections, versions: Versions, queue: Queue, embedders: Embedders, exact_below: int
    ) -> None:
        self._collections = collections
        self._versions = versions
        self._queue = queue
        self._embedders = embedders
        self._exact_below = exact_below
        self._proven: dict[Key, Encoder] = {}
        self._refused: dict[Key, tuple[float, SpaceRefused | ModelUnavailable]] = {}

    # ------------------------------------------------------------ create

    async def create(self, name: CollectionName, settings: CollectionSettings, now: datetime) -> Collection:
        """Register the embedder as version 1 of a new collection. Conflict where the name is taken."""
        spec = self._embedders.resolve(settings.embedder)
        encoder = await self._embedders.get(spec)
        canary = await self._canary(spec)
        if not finite(np.array(list(canary.values()), dtype=np.float32)).all():
            raise Misconfigured(f"the model {spec.model} gives unusable vectors (NaN, infinite or zero)")
        settings = dataclasses.replace(settings, embedder=spec)
        return await self._collections.create(name, settings, encoder.identity, canary, now)

    async def configure(self, collection: Collection, settings: CollectionSettings) -> Collection:
        """Change what may change in place. EmbedderChange where the embedder or the chunking would be another.

        Conflict where somebody else changed it since `collection` was read.
        """
        kept = collection.settings.embedder
        # What is kept needs no leave: an operator may have taken the model from the list since.
        if settings.embedder != kept and self._embedders.resolve(settings.embedder) != kept:
            raise EmbedderChange
        if settings.chunking != collection.settings.chunking:
            raise EmbedderChange("Chunks are versioned with the embedder; another chunking is a new version.")
        settings = dataclasses.replace(settings, embedder=collection.settings.embedder)
        return await self._collections.update(collection, settings)

    # ------------------------------------------------------------ admit

    async def admit(self, version: EmbedderVersion) -> Encoder:
        """The encoder of this version, proven: same fingerprint, and the canary texts land where they did.

        SpaceRefused says what differs; ModelUnavailable where the model cannot be loaded. What was proven is
        remembered until `prove` finds otherwise, what was refused for `REFUSED_SECONDS`.
        """
        key = (version.collection_id, version.number)
        if key in self._proven:
            return self._proven[key]
        refused_until, refusal = self._refused.get(key, (0.0, None))
        if refusal is not None and time.monotonic() < refused_until:
            raise type(refusal)(refusal.detail)
        return await self.prove(version)

    async def prove(self, version: EmbedderVersion) -> Encoder:
        """Look again whether the model is still the registered one, on disk and in what it answers. Raises as `admit`.

        To be called now and then while running: a folder whose content is swapped is noticed, and refused.
        """
        key = (version.collection_id, version.number)
        try:
            encoder = await self._embedders.get(version.spec)
            if not await asyncio.to_thread(encoder.unchanged):
                self._proven.pop(key, None)  # before anybody can be given the other model
                await self._embedders.forget(version.spec)
                encoder = await self._embedders.get(version.spec)
            _same_identity(version, encoder)
            await self._same_canary(version)
        except Invalid as error:  # allowed when it was registered, but not by this process
            raise self._refuse(key, SpaceRefused(f"version {version.number}: {error.detail}")) from error
        except (SpaceRefused, ModelUnavailable) as error:
            raise self._refuse(key, error) from error.__cause__
        self._refused.pop(key, None)
        self._proven[key] = encoder
        return encoder

    def _refuse(self, key: Key, error: SpaceRefused | ModelUnavailable) -> SpaceRefused | ModelUnavailable:
        self._proven.pop(key, None)
        self._refused[key] = (time.monotonic() + REFUSED_SECONDS, error)
        return error

    async def prove_all(self) -> None:
        """`prove` every version that this process works in; what is refused is logged, and refused from now on."""
        for version in await self._versions.written():
            if (version.collection_id, version.number) in self._proven:
                try:
                    await self.prove(version)
                except (SpaceRefused, ModelUnavailable) as error:
                    log.error("version refused", extra={"version": version.number, "reason": error.detail})

    async def _same_canary(self, version: EmbedderVersion) -> None:
        now = await self._canary(version.spec, tuple(version.canary))
        lowest = min(
            cosine(np.array(now[text], dtype=np.float32), np.array(vector, dtype=np.float32))
            for text, vector in version.canary.items()
        )
        names = {collection.id: collection.name for collection in await self._collections.all()}
        if version.collection_id in names:  # else deleted meanwhile
            metrics.CANARY_COSINE.labels(names[version.collection_id], str(version.number)).set(lowest)
        if not lowest >= CANARY_COSINE:  # also refuses NaN
            raise SpaceRefused(
                f"version {version.number}: the model {version.spec.model} no longer reproduces its canary "
                f"(lowest cosine {lowest:.4f}, needed {CANARY_COSINE})"
            )

    async def _canary(
        self, spec: EmbedderSpec, texts: tuple[str, ...] = CANARY_TEXTS
    ) -> Mapping[str, tuple[float, ...]]:
        vectors = await self._embedders.embed(spec, texts, "document")
        return {text: tuple(map(float, vector)) for text, vector in zip(texts, vectors, strict=True)}

    # ------------------------------------------------------------ tend

    async def tend(self, now: datetime) -> None:
        """Build the index of every version that has outgrown the exact scan.

        Not in the middle of a bulk load: building once afterwards is several times cheaper than inserting row by row.
        """
        for version in await self._versions.written():
            with suppress(NotFound):  # deleted meanwhile
                await self._tend(version, now)

    async def _tend(self, version: EmbedderVersion, now: datetime) -> None:
        status = await self._versions.status(version)
        if status.indexed or status.rows <= self._exact_below:
            return
        waiting = (await self._queue.status(version.collection_id, now)).pending
        if waiting > status.rows / 10 and status.rows <= 20 * self._exact_below:
            return
        started = time.monotonic()
        if await self._versions.build_index(version):
            log.info(
                "index built",
                extra={
                    "collection_id": version.collection_id,
                    "version": version.number,
                    "chunks": status.rows,
                    "seconds": round(time.monotonic() - started, 1),
                },
            )


def _same_identity(version: EmbedderVersion, encoder: Encoder) -> None:
    """SpaceRefused where the loaded model is not the registered one, naming the parts that differ."""
    loaded = encoder.identity
    if loaded.fingerprint == version.fingerprint:
        return
    registered = {
        **version.identity.parts,
        "dimensions": version.identity.dimensions,
        "max_tokens": version.identity.max_tokens,
    }
    present = {**loaded.parts, "dimensions": loaded.dimensions, "max_tokens": loaded.max_tokens}
    differing = sorted(part for part in registered.keys() | present.keys() if registered.get(part) != present.get(part))
    raise SpaceRefused(
        f"version {version.number} was made by another embedder than the loaded {version.spec.model}: "
        f"{', '.join(differing)} differ"
    )
