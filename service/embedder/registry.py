"""`Embedders`: which models may be used, and those that are in memory."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from service.domain import EmbedderSpec, Role, Vectors
from service.embedder import hashing, source
from service.embedder.batcher import Batcher
from service.errors import Invalid, ModelUnavailable
from service.ports import Encoder

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
"""For so long a failed load is answered from memory: a missing model must not cost a download attempt a request."""


class Registry:
    """Models by specification, each loaded once, in a thread, however many ask for it at the same time.

    Clients name models; operators decide which: the default, the bundled one, the hashing encoder and the extras.
    A folder or a hub name of a client's own choosing would be a file read or a download on our side. The same goes
    for revisions: anybody can propose a revision of anybody's model on a hub. An operator pins one as
    `name@revision`; clients may repeat it but choose no other.
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
        load: Callable[[EmbedderSpec], Encoder] | None = None,
    ) -> None:
        """`batch_tokens`: of one online pass. `load` replaces loading from files."""
        names = [source.split(name) for name in (default, source.BUNDLED, *allowed)]
        self._default = names[0][0]
        self._revisions: dict[str, str | None] = {}
        for name, revision in names:
            self._revisions.setdefault(name, revision)
        self._batch_tokens = batch_tokens
        self._load = load or Loader(device=device, precision=precision, threads=threads)
        self._loads: dict[EmbedderSpec, asyncio.Task[Encoder]] = {}
        self._failures: dict[EmbedderSpec, tuple[float, ModelUnavailable]] = {}
        self._batchers: dict[EmbedderSpec, Batcher] = {}

    def resolve(self, spec: EmbedderSpec) -> EmbedderSpec:
        model = self._default if spec.model == "default" else source.canonical(spec.model)
        if hashing.dimensions_of(model) is not None:
            if spec.revision is not None:
                raise Invalid.at("embedder.revision", f"{model} has no revisions")
            return replace(spec, model=model)
        if model not in self._revisions:
            known = ", ".join(["default", *self._revisions, "hashing"])
            raise Invalid.at("embedder.model", f"{spec.model!r} is not one of the models allowed here: {known}")
        pinned = self._revisions[model]
        if spec.revision not in (None, pinned):
            raise Invalid.at("embedder.revision", f"{model} is served at {pinned or 'the revision of the operator'}")
        return replace(spec, model=model, revision=pinned)

    async def get(self, spec: EmbedderSpec) -> Encoder:
        spec = self.resolve(spec)
        failed = self._failures.get(spec)
        if failed and time.monotonic() - failed[0] < RETRY_SECONDS:
            raise ModelUnavailable(failed[1].detail, retry_after=RETRY_SECONDS) from failed[1]
        task = self._loads.get(spec)
        if task is None:
            task = self._loads[spec] = asyncio.create_task(asyncio.to_thread(self._load, spec))
        try:
            # Shielded: a caller that leaves must not take the model away from the others.
            encoder = await asyncio.shield(task)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._loads.pop(spec, None)
            if isinstance(error, Invalid):
                raise
            reason = error if isinstance(error, ModelUnavailable) else ModelUnavailable(f"{spec.model}: {error}")
            self._failures[spec] = (time.monotonic(), reason)
            log.warning("model not loaded", extra={"model": spec.model, "reason": reason.detail})
            raise reason from error
        self._failures.pop(spec, None)
        return encoder

    async def forget(self, spec: EmbedderSpec) -> None:
        spec = self.resolve(spec)
        self._loads.pop(spec, None)
        self._failures.pop(spec, None)
        if batcher := self._batchers.pop(spec, None):
            await batcher.close()

    async def embed(self, spec: EmbedderSpec, texts: Sequence[str], role: Role) -> Vectors:
        spec = self.resolve(spec)
        batcher = self._batchers.get(spec)
        if batcher is None:
            encoder = await self.get(spec)
            # Looked up again: another caller may have made it while this one waited.
            batcher = self._batchers.setdefault(spec, Batcher(encoder, batch_tokens=self._batch_tokens))
        return await batcher.embed(texts, role)

    async def close(self) -> None:
        """End the threads of the online batchers; whoever still waits gets ModelUnavailable."""
        for batcher in self._batchers.values():
            await batcher.close()
        self._batchers.clear()


class Loader:
    """Specification -> encoder, from files. Embedders that differ in prompts or dimensions alone share the weights.

    Called in threads; importing torch takes seconds and is put off until a model is wanted.
    """

    def __init__(self, *, device: str, precision: str, threads: int) -> None:
        self._device, self._precision, self._threads = device, precision, threads
        self._models: dict[Path, tuple[Mapping[str, str], object]] = {}
        self._one_at_a_time = threading.Lock()

    def __call__(self, spec: EmbedderSpec) -> Encoder:
        if hashing.dimensions_of(spec.model) is not None:
            return hashing.HashingEncoder(spec)
        from service.embedder import fingerprint
        from service.embedder.encoder import SentenceTransformerEncoder
        from service.embedder.model import Model

        folder = source.folder(spec.model, spec.revision)
        with self._one_at_a_time:
            files = fingerprint.parts(folder)
            loaded_from, model = self._models.get(folder, (None, None))
            if loaded_from != files or not isinstance(model, Model):
                # Of another content than what is in memory: sharing that would register one model as another.
                model = Model(folder, device=self._device, precision=self._precision, threads=self._threads)
                self._models[folder] = (files, model)
        return SentenceTransformerEncoder(model, folder, files, spec)
