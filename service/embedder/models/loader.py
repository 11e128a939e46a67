"""Specification -> encoder, from the files of a model."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from service.core.collections import EmbedderSpec
from service.core.errors import ModelUnavailable
from service.core.ports.embedder import Encoder
from service.embedder.models import hashing_encoder, source

if TYPE_CHECKING:
    from service.embedder.models.encoder import EmbeddingModel
    from service.embedder.models.fingerprint import Content


class ModelLoader:
    """Embedders that differ in prompts or dimensions alone share the weights.

    Called in threads; importing torch takes seconds and is put off until a model is wanted.
    """

    def __init__(self, *, device: str, precision: str, threads: int) -> None:
        self._device, self._precision, self._threads = device, precision, threads
        self._models: dict[Path, tuple[Content, EmbeddingModel]] = {}
        self._one_at_a_time = threading.Lock()

    def __call__(self, spec: EmbedderSpec) -> Encoder:
        """ModelUnavailable with the reason where it cannot be loaded; Invalid where the specification does not fit."""
        if hashing_encoder.dimensions_of(spec.model) is not None:
            return hashing_encoder.HashingEncoder(spec)
        from service.embedder.models.encoder import SentenceTransformerEncoder

        folder = source.folder(spec.model, spec.revision)
        with self._one_at_a_time:
            content, model = self._shared(folder)
        return SentenceTransformerEncoder(model, folder, content, spec)

    def _shared(self, folder: Path) -> "tuple[Content, EmbeddingModel]":
        from service.embedder.models import fingerprint

        content = fingerprint.content(folder)
        loaded_from, model = self._models.get(folder, (None, None))
        if loaded_from != content or model is None:
            # Of another content than what is in memory: sharing that would register one model as another.
            model = self._from_files(folder)
            if fingerprint.content(folder) != content:
                raise ModelUnavailable(f"{folder.name} was changed while it was loaded.")
            self._models[folder] = (content, model)
        return content, model

    def _from_files(self, folder: Path) -> "EmbeddingModel":
        from service.embedder.models import static_model
        from service.embedder.models import transformer as model

        if static_model.describes(folder):
            return static_model.StaticModel(folder)
        return model.TransformerModel(folder, device=self._device, precision=self._precision, threads=self._threads)
