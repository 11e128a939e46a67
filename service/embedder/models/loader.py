"""Load the encoder of a specification from the files of its model."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from service.core.collections import EmbedderSpec
from service.core.errors import ModelUnavailable
from service.core.ports.embedder import Encoder
from service.embedder.models import fingerprint, hashing_encoder, source

if TYPE_CHECKING:
    from service.embedder.models.encoder import EmbeddingModel


class ModelLoader:
    """Specification -> encoder. Embedders that differ only in prompts or dimensions share the weights.

    Call it in threads. Importing torch takes seconds, so it happens when the first model is loaded.
    """

    def __init__(self, *, device: str, precision: str, threads: int) -> None:
        self._device, self._precision, self._threads = device, precision, threads
        self._contents: dict[Path, fingerprint.Content] = {}
        self._models: WeakValueDictionary[Path, EmbeddingModel] = WeakValueDictionary()
        """In memory as long as an encoder uses them."""
        self._lock = threading.Lock()

    def __call__(self, spec: EmbedderSpec) -> Encoder:
        """ModelUnavailable with the reason if loading fails; Invalid if the specification does not fit the model."""
        if hashing_encoder.dimensions_of(spec.model) is not None:
            return hashing_encoder.HashingEncoder(spec)
        from service.embedder.models.encoder import SentenceTransformerEncoder

        folder = source.folder(spec.model, spec.revision)
        with self._lock:
            model = self._shared(folder)
            content = self._contents[folder]
        return SentenceTransformerEncoder(model, folder, content, spec)

    def _shared(self, folder: Path) -> "EmbeddingModel":
        """The model of a folder; another one after its content has changed, or one would be registered as the other."""
        content = fingerprint.content(folder)
        model = self._models.get(folder)
        if model is None or self._contents[folder] != content:
            model = self._load(folder)
            if fingerprint.content(folder) != content:
                raise ModelUnavailable(f"{folder.name} was changed while it was loaded.")
            self._models[folder], self._contents[folder] = model, content
        return model

    def _load(self, folder: Path) -> "EmbeddingModel":
        from service.embedder.models.static_model import StaticModel, is_static
        from service.embedder.models.transformer import TransformerModel

        if is_static(folder):
            return StaticModel(folder)
        return TransformerModel(folder, device=self._device, precision=self._precision, threads=self._threads)
