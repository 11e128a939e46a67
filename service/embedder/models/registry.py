"""`Embedders`: the models that may be used, and those that are in memory."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np

from service.core import metrics
from service.core.collections import EXTERNAL, EmbedderSpec
from service.core.errors import Invalid, Misconfigured, ModelUnavailable
from service.core.ids import Role, Vector, Vectors
from service.core.lru import LruDict
from service.core.portions import portions
from service.core.ports.embedder import Encoder, ModelInput
from service.embedder.models import external_encoder, hashing_encoder, multilingual, source
from service.embedder.models.loader import ModelLoader
from service.embedder.models.loading import SharedLoads
from service.embedder.models.pass_budget import PassBudget
from service.embedder.models.remote_encoder import EncoderService, RemoteEncoder
from service.embedder.models.scheduler import PassScheduler

CACHED_ENCODERS = 64
"""Encoders that stay in memory without another reference. Clients of `/v1/embeddings` make one for each prompt."""

READ_AT_ONCE = 10_000
"""Characters that are tokenized on the event loop, which takes about 2 ms, or else in one turn of a thread."""

REMOTE_STREAMS = 4

CACHED_QUERIES, CACHED_LENGTH, CACHED_AT_ONCE = 1_000, 500, 8
"""Queries of each encoder whose vectors are kept, their longest text, and how many a call may have: more of them come
from samples, not from people who ask again."""

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
        aliases: Mapping[str, str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        batch_tokens: int = 8192,
        backend: str = "torch",
        exports: Path | None = None,
        encoder_url: str | None = None,
        encoder_key: str | None = None,
        load: Callable[[EmbedderSpec], Encoder] | None = None,
    ) -> None:
        """`aliases`: other names of models, by which clients may know them. `batch_tokens`: of one online pass. `load`
        replaces loading from files. Others: see `ModelLoader`.

        `encoder_url`: another Azimuth that encodes instead of models here. Misconfigured if it is no valid address, or
        a model is named that would have to be installed, or an alias is one of a model that is not allowed.
        """
        names = [source.split(name) for name in (default, source.BUNDLED, *allowed)]
        if load is None:
            if encoder_url or multilingual.source() is not None:
                names.append((multilingual.NAME, None))
            elif multilingual.NAME in dict(names):
                raise Misconfigured(multilingual.NOT_INSTALLED)
        self._default = names[0][0]
        self._aliases = dict(aliases or {})
        self._revisions: dict[str, str | None] = {}
        for name, revision in names:
            self._revisions.setdefault(name, revision)
        self._batch_tokens = batch_tokens
        self._remote = EncoderService(encoder_url, encoder_key) if encoder_url else None
        self._load = (
            load
            or self._remote
            or ModelLoader(device=device, precision=precision, threads=threads, backend=backend, exports=exports)
        )
        self._loads = SharedLoads[EmbedderSpec, Encoder](self._remember)
        self._cache: OrderedDict[EmbedderSpec, tuple[float, Encoder]] = OrderedDict()
        self._alive: WeakValueDictionary[EmbedderSpec, Encoder] = WeakValueDictionary()
        self._queries: WeakKeyDictionary[Encoder, LruDict[str | bytes, Vector]] = WeakKeyDictionary()
        self._budgets: WeakKeyDictionary[Encoder, PassBudget] = WeakKeyDictionary()
        # Two at once, of one class each: a query does not even wait for the end of the pass of a long request.
        self.scheduler = PassScheduler(streams=2)
        # The other service bounds its passes itself; here it is the requests under way that are bounded.
        self._remote_scheduler = PassScheduler(streams=REMOTE_STREAMS, pass_seconds=None)
        try:
            for model in self._aliases.values():
                self.resolve(EmbedderSpec(model=model))
        except Invalid as error:
            raise Misconfigured(f"AZIMUTH_MODEL_ALIASES: {error.errors[0].message}") from error

    def resolve(self, spec: EmbedderSpec) -> EmbedderSpec:
        named = source.canonical(spec.model)
        if named not in self._revisions:
            named = source.canonical(self._aliases.get(named, named))
        model = self._default if named == "default" else named
        if model == EXTERNAL:
            return external_encoder.resolve(replace(spec, model=model))
        if spec.identity is not None:
            raise Invalid.at("embedder.identity", f"only {EXTERNAL} vectors have one, not those of {model}")
        if hashing_encoder.dimensions_of(model) is not None:
            if spec.revision is not None:
                raise Invalid.at("embedder.revision", f"{model} has no revisions")
            return replace(spec, model=model)
        if model not in self._revisions:
            if model == multilingual.NAME:
                raise Invalid.at("embedder.model", multilingual.NOT_INSTALLED)
            known = ", ".join(["default", *self._revisions, *self._aliases, "hashing", EXTERNAL])
            raise Invalid.at("embedder.model", f"{spec.model!r} is not one of the models allowed here: {known}")
        pinned = self._revisions[model]
        if spec.revision not in (None, pinned):
            raise Invalid.at("embedder.revision", f"{model} is served at {pinned or 'the revision of the operator'}")
        return replace(spec, model=model, revision=pinned)

    def models(self) -> Mapping[str, Encoder | None]:
        names = dict.fromkeys(name for name in [*self._revisions, "hashing", *self._aliases] if name != EXTERNAL)
        return {name: self._alive.get(self.resolve(EmbedderSpec(model=name))) for name in names}

    async def get(self, spec: EmbedderSpec) -> Encoder:
        spec = self.resolve(spec)
        while (encoder := self._alive.get(spec)) is None:
            # Not returned as it is: it may have been forgotten since the end of the load, and its files may be gone.
            make: Callable[[EmbedderSpec], Encoder] = external_encoder.ExternalEncoder if spec.external else self._load
            encoder = await self._loads.load(spec, spec.model, partial(make, spec))
        self._keep(spec, encoder)
        return encoder

    async def forget(self, spec: EmbedderSpec) -> None:
        spec = self.resolve(spec)
        self._loads.forget(spec)
        self._cache.pop(spec, None)
        self._alive.pop(spec, None)

    async def read(self, encoder: Encoder, texts: Sequence[Any], role: Role) -> Sequence[ModelInput]:
        scheduler = self._scheduler_of(encoder)
        with scheduler.admit(len(texts), "embedder"):
            if isinstance(encoder, RemoteEncoder):
                return await asyncio.to_thread(encoder.read, texts, role)
            if sum(map(len, texts)) <= READ_AT_ONCE:
                return encoder.read(texts, role)
            read: list[ModelInput] = []
            for part in portions(texts, len, READ_AT_ONCE):
                read += await scheduler.tokenize(partial(encoder.read, part, role))
            return read

    async def forward(self, encoder: Encoder, inputs: Sequence[ModelInput], role: Role) -> Vectors:
        if not inputs:
            return np.zeros((0, encoder.identity.dimensions), dtype=np.float32)
        budget = self._budgets.setdefault(encoder, PassBudget(min(self._batch_tokens, encoder.batch_tokens)))
        scheduler = self._scheduler_of(encoder)
        with scheduler.admit(len(inputs), "embedder"):
            return await scheduler.run(_EncoderPasses(encoder, role, budget), inputs)

    async def embed(self, spec: EmbedderSpec, texts: Sequence[Any], role: Role) -> Vectors:
        encoder = await self.get(spec)
        if role == "query" and len(texts) <= CACHED_AT_ONCE and not isinstance(encoder, RemoteEncoder):
            vectors = await self._embed_queries(encoder, texts)
        else:
            vectors = await self.forward(encoder, await self.read(encoder, texts, role), role)
        if self._alive.get(self.resolve(spec)) is not encoder:
            raise ModelUnavailable("The model was replaced while it encoded; try again.", retry_after=1.0)
        return vectors

    async def _embed_queries(self, encoder: Encoder, texts: Sequence[Any]) -> Vectors:
        """Vectors of queries, from memory where the same encoder has given them."""
        cached = self._queries.setdefault(encoder, LruDict(CACHED_QUERIES))
        known = {text: cached[text] for text in texts if text in cached}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        metrics.QUERY_VECTORS.labels("hit").inc(len(known))
        metrics.QUERY_VECTORS.labels("miss").inc(len(new))
        rows = await self.forward(encoder, await self.read(encoder, new, "query"), "query")
        known |= zip(new, rows, strict=True)
        cached.update({text: known[text] for text in texts if len(text) <= CACHED_LENGTH})
        return np.array([known[text] for text in texts], dtype=np.float32).reshape(
            len(texts), encoder.identity.dimensions
        )

    def _scheduler_of(self, encoder: Encoder) -> PassScheduler:
        return self._remote_scheduler if isinstance(encoder, RemoteEncoder) else self.scheduler

    async def close(self) -> None:
        """End the threads of the models; waiting callers get ModelUnavailable."""
        await self.scheduler.close()
        await self._remote_scheduler.close()
        if self._remote is not None:
            self._remote.close()

    def _remember(self, spec: EmbedderSpec, encoder: Encoder) -> None:
        self._alive[spec] = encoder
        self._keep(spec, encoder)

    def _keep(self, spec: EmbedderSpec, encoder: Encoder) -> None:
        """Cache the encoder and evict those that were not used recently; what is under way holds its own."""
        now = time.monotonic()
        self._cache[spec] = (now, encoder)
        self._cache.move_to_end(spec)
        surplus = len(self._cache) - CACHED_ENCODERS
        for place, (old, (used, _)) in enumerate(list(self._cache.items())):
            if place >= surplus and now - used < IDLE_SECONDS:
                break
            del self._cache[old]


@dataclass(frozen=True, slots=True)
class _EncoderPasses:
    """An encoder in one role, whose prompt its texts share: a `PassModel`."""

    encoder: Encoder
    role: Role
    budget: PassBudget
    kind = "embedder"
    pass_overhead = 64

    def forward(self, inputs: Sequence[ModelInput]) -> Vectors:
        return self.encoder.forward(inputs, self.role)

    def record(self, inputs: Sequence[ModelInput], seconds: float) -> None:
        metrics.EMBED_BATCH_SECONDS.labels(self.role).observe(seconds)
        metrics.EMBED_BATCH_TEXTS.labels(self.role).observe(len(inputs))
        metrics.EMBEDDED_TOKENS.labels(self.role).inc(sum(map(len, inputs)))
