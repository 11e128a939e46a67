"""`Embedders`: the models that may be used, and those that are in memory."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

from service.core.collections import EXTERNAL, EmbedderSpec
from service.core.errors import Invalid, ModelUnavailable
from service.core.ids import Role, Vectors
from service.core.ports.embedder import Encoder
from service.embedder.models import external_encoder, hashing_encoder, source
from service.embedder.models.batcher import Batcher
from service.embedder.models.loader import ModelLoader
from service.embedder.models.remote_encoder import EncoderService

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
"""How long the error of a failed load is repeated without another try: a missing model must not cost a download attempt
for each request."""

CACHED_ENCODERS = 64
"""Encoders that stay in memory without another reference. Clients of `/v1/embeddings` make one for each prompt."""

IDLE_SECONDS = 600.0
"""Encoders that were not used for so long leave the cache: a retired version must not keep its model in memory."""


class ModelRegistry:
    """Models by specification, each loaded once, in a thread, for all concurrent callers.

    Operators decide which models clients may name: a name or revision of a client's choice would let the client read
    files here or download models, even a revision that a stranger proposed on a hub. An operator pins a revision as
    `name@revision`. External vectors need no permission.

    A specification has one encoder as long as anything refers to it, so the encoder that was verified is the one that
    encodes, until `forget`.
    """

    def __init__(
        self,
        *,
        default: str,
        allowed: Sequence[str] = (),
        device: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        batch_tokens: int = 8192,
        encoder_url: str | None = None,
        encoder_key: str | None = None,
        load: Callable[[EmbedderSpec], Encoder] | None = None,
    ) -> None:
        """`batch_tokens`: of one online pass. `load` replaces loading from files.

        `encoder_url`: another Azimuth that encodes instead of models here. Misconfigured if it is no valid address.
        """
        names = [source.split(name) for name in (default, source.BUNDLED, *allowed)]
        self._default = names[0][0]
        self._revisions: dict[str, str | None] = {}
        for name, revision in names:
            self._revisions.setdefault(name, revision)
        self._batch_tokens = batch_tokens
        self._remote = EncoderService(encoder_url, encoder_key) if encoder_url else None
        self._load = load or self._remote or ModelLoader(device=device, precision=precision, threads=threads)
        self._loads: dict[EmbedderSpec, asyncio.Task[Encoder]] = {}
        self._failures: dict[EmbedderSpec, tuple[float, ModelUnavailable]] = {}
        self._cache: OrderedDict[EmbedderSpec, tuple[float, Encoder]] = OrderedDict()
        self._alive: WeakValueDictionary[EmbedderSpec, Encoder] = WeakValueDictionary()
        self._batchers: dict[EmbedderSpec, Batcher] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def resolve(self, spec: EmbedderSpec) -> EmbedderSpec:
        model = self._default if spec.model == "default" else source.canonical(spec.model)
        if model == EXTERNAL:
            return external_encoder.resolve(replace(spec, model=model))
        if spec.identity is not None:
            raise Invalid.at("embedder.identity", f"only {EXTERNAL} vectors have one, not those of {model}")
        if hashing_encoder.dimensions_of(model) is not None:
            if spec.revision is not None:
                raise Invalid.at("embedder.revision", f"{model} has no revisions")
            return replace(spec, model=model)
        if model not in self._revisions:
            known = ", ".join(["default", *self._revisions, "hashing", EXTERNAL])
            raise Invalid.at("embedder.model", f"{spec.model!r} is not one of the models allowed here: {known}")
        pinned = self._revisions[model]
        if spec.revision not in (None, pinned):
            raise Invalid.at("embedder.revision", f"{model} is served at {pinned or 'the revision of the operator'}")
        return replace(spec, model=model, revision=pinned)

    def models(self) -> Mapping[str, Encoder | None]:
        names = dict.fromkeys(name for name in [*self._revisions, "hashing"] if name != EXTERNAL)
        return {name: self._alive.get(self.resolve(EmbedderSpec(model=name))) for name in names}

    async def get(self, spec: EmbedderSpec) -> Encoder:
        spec = self.resolve(spec)
        while (encoder := self._alive.get(spec)) is None:
            # Not returned as it is: it may have been forgotten since the end of the load, and its files may be gone.
            encoder = await self._load_once(spec)
        self._keep(spec, encoder)
        return encoder

    async def forget(self, spec: EmbedderSpec) -> None:
        spec = self.resolve(spec)
        self._loads.pop(spec, None)
        self._failures.pop(spec, None)
        self._cache.pop(spec, None)
        self._alive.pop(spec, None)
        if batcher := self._batchers.pop(spec, None):
            await batcher.close()

    async def embed(self, spec: EmbedderSpec, texts: Sequence[str], role: Role) -> Vectors:
        spec = self.resolve(spec)
        encoder = await self.get(spec)
        batcher = self._batchers.get(spec)
        if batcher is None:
            batcher = self._batchers[spec] = Batcher(encoder, batch_tokens=self._batch_tokens)
        return await batcher.embed(texts, role)

    async def close(self) -> None:
        """End the threads of the online batchers; waiting callers get ModelUnavailable."""
        for batcher in self._batchers.values():
            await batcher.close()
        self._batchers.clear()
        await asyncio.gather(*self._closing)
        if self._remote is not None:
            self._remote.close()

    async def _load_once(self, spec: EmbedderSpec) -> Encoder:
        failed = self._failures.get(spec)
        if failed and time.monotonic() - failed[0] < RETRY_SECONDS:
            raise ModelUnavailable(failed[1].detail, retry_after=RETRY_SECONDS) from failed[1]
        task = self._loads.get(spec)
        if task is None:
            task = self._loads[spec] = asyncio.create_task(self._run_load(spec))
        # Shielded: a cancelled caller must not cancel the load of the others.
        return await asyncio.shield(task)

    async def _run_load(self, spec: EmbedderSpec) -> Encoder:
        """Load and remember the outcome, unless the specification was forgotten meanwhile."""
        task = asyncio.current_task()
        make: Callable[[EmbedderSpec], Encoder] = external_encoder.ExternalEncoder if spec.external else self._load
        try:
            encoder = await asyncio.to_thread(make, spec)
        except Invalid:
            raise
        except Exception as error:
            reason = error if isinstance(error, ModelUnavailable) else ModelUnavailable(f"{spec.model}: {error}")
            if self._loads.get(spec) is task:
                recent = time.monotonic() - RETRY_SECONDS
                self._failures = {one: failed for one, failed in self._failures.items() if failed[0] > recent}
                self._failures[spec] = (time.monotonic(), reason)
            log.warning("model not loaded", extra={"model": spec.model, "reason": reason.detail})
            raise reason from error
        else:
            if self._loads.get(spec) is task:
                self._failures.pop(spec, None)
                self._alive[spec] = encoder
                self._keep(spec, encoder)
            return encoder
        finally:
            if self._loads.get(spec) is task:
                del self._loads[spec]

    def _keep(self, spec: EmbedderSpec, encoder: Encoder) -> None:
        """Cache the encoder and evict those that were not used recently, except those with a busy batcher."""
        now = time.monotonic()
        self._cache[spec] = (now, encoder)
        self._cache.move_to_end(spec)
        surplus = len(self._cache) - CACHED_ENCODERS
        for place, (old, (used, _)) in enumerate(list(self._cache.items())):
            if place >= surplus and now - used < IDLE_SECONDS:
                break
            batcher = self._batchers.get(old)
            if batcher is not None and batcher.busy:
                continue
            del self._cache[old]
            if batcher is not None:
                del self._batchers[old]
                closing = asyncio.create_task(batcher.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
