"""Proof that a loaded model gives the vectors of a version: nothing writes or answers in a space without it.

register  a model's identity and the vectors that it gives for the canary texts are taken, once
admit     before a process writes or answers in a version: its model must be the registered one and prove it
prove     again and again while running: a folder whose content is swapped is noticed, and refused
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

import numpy as np

from service.core import metrics
from service.core.collections import EmbedderSpec
from service.core.errors import CollectionNotFound, Invalid, ModelUnavailable, SpaceRefused
from service.core.ids import CollectionId, VersionNumber
from service.core.ports.collections import Collections
from service.core.ports.embedder import Embedders, Encoder
from service.core.ports.versions import Versions
from service.core.vector_math import cosine, finite
from service.core.versions import EmbedderIdentity, EmbedderVersion

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


class ModelVerifier:
    """What this process has proven, and what it refuses."""

    def __init__(self, *, collections: Collections, versions: Versions, embedders: Embedders) -> None:
        self._collections = collections
        self._versions = versions
        self._embedders = embedders
        self._proven: dict[Key, Encoder] = {}
        self._refused: dict[Key, tuple[float, SpaceRefused | ModelUnavailable]] = {}
        self.canary_cosines: dict[Key, float] = {}
        """The lowest canary cosine when a version was last proven."""

    @property
    def verified(self) -> frozenset[Key]:
        """The versions that this process can answer in at once."""
        return frozenset(self._proven)

    async def register(
        self, spec: EmbedderSpec
    ) -> tuple[EmbedderSpec, EmbedderIdentity, Mapping[str, tuple[float, ...]]]:
        """The resolved spec, what the model is, and its canary. Invalid where its vectors cannot be used."""
        spec = self._embedders.resolve(spec)
        encoder = await self._embedders.get(spec)
        if spec.external:
            return spec, encoder.identity, {}
        canary = await self._canary(spec, CANARY_TEXTS)
        if not finite(np.array(list(canary.values()), dtype=np.float32)).all():
            raise Invalid.at("embedder", f"{spec.model} so gives unusable vectors (NaN, infinite or zero)")
        return spec, encoder.identity, canary

    async def ensure(self, version: EmbedderVersion) -> Encoder:
        """The encoder of this version, proven: same fingerprint, and the canary texts land where they did.

        SpaceRefused says what differs; ModelUnavailable where the model cannot be loaded. What was proven is
        remembered until `prove` finds otherwise, what was refused for `REFUSED_SECONDS`.
        """
        key = (version.collection_id, version.number)
        if key in self._proven and await self._current(version):
            return self._proven[key]
        refused_until, refusal = self._refused.get(key, (0.0, None))
        if refusal is not None and time.monotonic() < refused_until:
            raise type(refusal)(refusal.detail)
        return await self.reverify(version)

    async def _current(self, version: EmbedderVersion) -> bool:
        """Is what was proven what encodes? Versions share models: the proof of another one may have let go of it."""
        try:
            encoder = await self._embedders.get(version.spec)
        except (Invalid, ModelUnavailable):
            return False
        return self._proven.get((version.collection_id, version.number)) is encoder

    async def reverify(self, version: EmbedderVersion) -> Encoder:
        """Look again whether the model is still the registered one, on disk and in what it answers. Raises as `admit`.

        To be called now and then while running: a folder whose content is swapped is noticed, and refused.
        """
        key = (version.collection_id, version.number)
        try:
            self._embedders.resolve(version.spec)
        except Invalid as error:  # allowed when it was registered, but not by this process: no word against the model
            raise self._refuse(key, ModelUnavailable(f"version {version.number}: {error.detail}")) from error
        try:
            encoder = await self._embedders.get(version.spec)
            if not await asyncio.to_thread(encoder.unchanged):
                self._proven.pop(key, None)  # before anybody can be given the other model
                await self._embedders.forget(version.spec)
                encoder = await self._embedders.get(version.spec)
            _same_identity(version, encoder)
            await self._same_canary(version)
        except Invalid as error:  # it has not even what the version keeps of it
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

    def retain(self, versions: Iterable[EmbedderVersion]) -> None:
        """Forget all but these: what was retired or deleted must not keep a model in memory."""
        kept = {(version.collection_id, version.number) for version in versions}
        for known in (self._proven, self._refused, self.canary_cosines):
            for key in known.keys() - kept:
                del known[key]

    async def reverify_all(self) -> None:
        """`prove` every version that this process works in; what is refused is logged, and refused from now on."""
        written = await self._versions.written()
        self.retain(written)
        for version in written:
            if (version.collection_id, version.number) in self._proven:
                try:
                    await self.reverify(version)
                except (SpaceRefused, ModelUnavailable) as error:
                    log.error("version refused", extra={"version": version.number, "reason": error.detail})

    async def _same_canary(self, version: EmbedderVersion) -> None:
        if not version.canary:  # external vectors: the client answers for them
            return
        now = await self._canary(version.spec, tuple(version.canary))
        lowest = min(
            cosine(np.array(now[text], dtype=np.float32), np.array(vector, dtype=np.float32))
            for text, vector in version.canary.items()
        )
        with suppress(CollectionNotFound):  # deleted meanwhile
            collection = await self._collections.get(version.collection_id)
            metrics.CANARY_COSINE.labels(collection.name, str(version.number)).set(lowest)
        self.canary_cosines[version.collection_id, version.number] = lowest
        if not lowest >= CANARY_COSINE:  # also refuses NaN
            raise SpaceRefused(
                f"version {version.number}: the model {version.spec.model} no longer reproduces its canary "
                f"(lowest cosine {lowest:.4f}, needed {CANARY_COSINE})"
            )

    async def _canary(self, spec: EmbedderSpec, texts: tuple[str, ...]) -> Mapping[str, tuple[float, ...]]:
        vectors = await self._embedders.embed(spec, texts, "document")
        return {text: tuple(map(float, vector)) for text, vector in zip(texts, vectors, strict=True)}


def _same_identity(version: EmbedderVersion, encoder: Encoder) -> None:
    """SpaceRefused where the loaded model is not the registered one, naming the parts that differ."""
    if encoder.identity.fingerprint == version.fingerprint:
        return
    differing = version.identity.differing(encoder.identity)
    raise SpaceRefused(
        f"version {version.number} was made by another embedder than the loaded {version.spec.model}: "
        f"{', '.join(differing)} differ"
    )
