"""Verification that a loaded model gives the vectors of a version: nothing writes or answers in a space without it.

register    once: the identity of a model, and its vectors for the canary texts
ensure      before a process writes or answers in a version: its model must have both
reverify    again and again while running: a model folder with new content is noticed, and refused
"""

import asyncio
import logging
import time
from base64 import b64decode
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
CANARY_IMAGE = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAgMAAAC5YVYYAAAADFBMVEXcHh4eoDwePNz63DyDCpD7AAAAFElEQVR42mNgCGViYIAghlX/4WwAGToCCz"
    "8K2TYAAAAASUVORK5CYII="
)
"""Four coloured squares, for embedders that take images. It stands among the texts of a canary as `_IMAGE_NAME`."""
_IMAGE_NAME = "(image)"
CANARY_COSINE = 0.999
"""Allows another precision or backend of the same embedder (bf16 against fp32: 0.9998), and no other embedder."""

REFUSAL_SECONDS = 5.0
"""A refusal is repeated from memory for so long, so that refused searches do not each load a model."""


class ModelVerifier:
    """Verifies the models of this process, and remembers the versions that were verified or refused."""

    def __init__(self, *, collections: Collections, versions: Versions, embedders: Embedders) -> None:
        self._collections = collections
        self._versions = versions
        self._embedders = embedders
        self._verified: dict[Key, Encoder] = {}
        self._refused: dict[Key, tuple[float, SpaceRefused | ModelUnavailable]] = {}
        self.canary_cosines: dict[Key, float] = {}
        """The lowest canary cosine of each version at its last verification."""

    @property
    def verified(self) -> frozenset[Key]:
        """The versions that this process can answer in at once."""
        return frozenset(self._verified)

    async def register(
        self, spec: EmbedderSpec
    ) -> tuple[EmbedderSpec, EmbedderIdentity, Mapping[str, tuple[float, ...]]]:
        """The resolved spec, the identity of the model, and its canary. Invalid if its vectors are unusable."""
        spec = self._embedders.resolve(spec)
        encoder = await self._embedders.get(spec)
        if spec.external:
            return spec, encoder.identity, {}
        image = (_IMAGE_NAME,) if encoder.identity.takes_images else ()
        canary = await self._embed_canary(spec, (*CANARY_TEXTS, *image))
        if not finite(np.array(list(canary.values()), dtype=np.float32)).all():
            raise Invalid.at("embedder", f"{spec.model} gives unusable vectors (NaN, infinite or zero)")
        return spec, encoder.identity, canary

    async def ensure(self, version: EmbedderVersion) -> Encoder:
        """The encoder of this version, which has its fingerprint and reproduces its canary.

        SpaceRefused says what differs; ModelUnavailable where the model cannot be loaded. A verification is remembered
        until `reverify` fails, a refusal for `REFUSAL_SECONDS`.
        """
        key = (version.collection_id, version.number)
        if key in self._verified and await self._is_current(version):
            return self._verified[key]
        refused_until, refusal = self._refused.get(key, (0.0, None))
        if refusal is not None and time.monotonic() < refused_until:
            raise type(refusal)(refusal.detail)
        return await self.reverify(version)

    async def _is_current(self, version: EmbedderVersion) -> bool:
        """Whether the verified encoder is the one in use: the versions that share a model may have reloaded it."""
        with suppress(Invalid, ModelUnavailable):
            encoder = await self._embedders.get(version.spec)
            return self._verified.get((version.collection_id, version.number)) is encoder
        return False

    async def reverify(self, version: EmbedderVersion) -> Encoder:
        """Check again that the model is the registered one, on disk and in its vectors. Raises like `ensure`."""
        key = (version.collection_id, version.number)
        try:
            self._embedders.resolve(version.spec)
        except Invalid as error:  # this process may not load it; says nothing against the model
            raise self._refuse(key, ModelUnavailable(f"version {version.number}: {error.detail}")) from error
        try:
            encoder = await self._embedders.get(version.spec)
            if not await asyncio.to_thread(encoder.unchanged):
                self._verified.pop(key, None)  # before anybody is given the other model
                await self._embedders.forget(version.spec)
                encoder = await self._embedders.get(version.spec)
            if encoder.identity.fingerprint != version.fingerprint:
                differing = ", ".join(version.identity.differing(encoder.identity))
                loaded = f"another embedder than the loaded {version.spec.model}: {differing} differ"
                raise SpaceRefused(f"version {version.number} was made by {loaded}")
            await self._check_canary(version)
        except Invalid as error:  # the model lacks settings of the version
            raise self._refuse(key, SpaceRefused(f"version {version.number}: {error.detail}")) from error
        except (SpaceRefused, ModelUnavailable) as error:
            raise self._refuse(key, error) from error.__cause__
        self._refused.pop(key, None)
        self._verified[key] = encoder
        return encoder

    def _refuse(self, key: Key, error: SpaceRefused | ModelUnavailable) -> SpaceRefused | ModelUnavailable:
        self._verified.pop(key, None)
        self._refused[key] = (time.monotonic() + REFUSAL_SECONDS, error)
        return error

    def retain(self, versions: Iterable[EmbedderVersion]) -> None:
        """Forget all other versions: a retired or deleted one must not keep a model in memory."""
        kept = {(version.collection_id, version.number) for version in versions}
        for known in (self._verified, self._refused, self.canary_cosines):
            for key in known.keys() - kept:
                del known[key]

    async def reverify_all(self) -> None:
        """Reverify every version that this process works in; a refusal is logged, and holds from now on."""
        written = await self._versions.written()
        self.retain(written)
        for version in written:
            if (version.collection_id, version.number) in self._verified:
                try:
                    await self.reverify(version)
                except (SpaceRefused, ModelUnavailable) as error:
                    log.error("model verification failed", extra={"version": version.number, "reason": error.detail})

    async def _check_canary(self, version: EmbedderVersion) -> None:
        if not version.canary:  # the client makes the vectors
            return
        now = await self._embed_canary(version.spec, tuple(version.canary))
        pairs = ((np.array(now[text], np.float32), np.array(then, np.float32)) for text, then in version.canary.items())
        lowest = min(cosine(*pair) for pair in pairs)
        with suppress(CollectionNotFound):  # deleted meanwhile
            collection = await self._collections.get(version.collection_id)
            metrics.CANARY_COSINE.labels(collection.name, str(version.number)).set(lowest)
        self.canary_cosines[version.collection_id, version.number] = lowest
        if not lowest >= CANARY_COSINE:  # also refuses NaN
            raise SpaceRefused(
                f"version {version.number}: the model {version.spec.model} no longer reproduces its canary "
                f"(lowest cosine {lowest:.4f}, needed {CANARY_COSINE})"
            )

    async def _embed_canary(self, spec: EmbedderSpec, texts: tuple[str, ...]) -> Mapping[str, tuple[float, ...]]:
        contents = [CANARY_IMAGE if text == _IMAGE_NAME else text for text in texts]
        vectors = await self._embedders.embed(spec, contents, "document")
        return {text: tuple(map(float, vector)) for text, vector in zip(texts, vectors, strict=True)}
