"""Load the encoder of a specification from the files of its model."""

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from service.core.collections import EmbedderSpec
from service.core.errors import ModelUnavailable
from service.core.ports.embedder import Encoder
from service.embedder.models import fingerprint, hashing_encoder, source

if TYPE_CHECKING:
    from service.embedder.models.encoder import EmbeddingModel
    from service.embedder.models.transformer import TransformerModel

M = TypeVar("M")


class ModelLoader:
    """Specification -> encoder. Embedders that differ only in prompts or dimensions share the weights.

    Call it in threads. Importing torch takes seconds, so it happens when the first model is loaded.
    """

    def __init__(
        self, *, device: str, precision: str, threads: int, backend: str = "torch", exports: Path | None = None
    ) -> None:
        """`backend`: torch, or see `OnnxOptions`. `exports`: for what is made of models; None: no ONNX Runtime."""
        self._device, self._precision, self._threads = device, precision, threads
        self._backend, self._exports = backend, exports
        self._contents: dict[Path, fingerprint.Content] = {}
        self._models: WeakValueDictionary[Path, EmbeddingModel] = WeakValueDictionary()
        """In memory as long as an encoder uses them."""
        self._lock = threading.Lock()

    def __call__(self, spec: EmbedderSpec) -> Encoder:
        """ModelUnavailable with the reason if loading fails; Invalid if the specification does not fit the model."""
        if hashing_encoder.dimensions_of(spec.model) is not None:
            return hashing_encoder.HashingEncoder(spec)
        from service.embedder.models.encoder import SentenceTransformerEncoder

        folder = source.folder(spec.model, spec.revision, self._exports)
        with self._lock:
            model = self._shared(spec.model, folder)
            content = self._contents[folder]
        return SentenceTransformerEncoder(model, folder, content, spec)

    def _shared(self, name: str, folder: Path) -> "EmbeddingModel":
        """The model of a folder; another one after its content has changed, or one would be registered as the other."""
        content = fingerprint.content(folder)
        model = self._models.get(folder)
        if model is None or self._contents[folder] != content:
            model = self._load(name, folder, content)
            self._models[folder], self._contents[folder] = model, content
        return model

    def _load(self, name: str, folder: Path, content: fingerprint.Content) -> "EmbeddingModel":
        """ModelUnavailable if the folder does not keep this content."""

        def checked(model: M) -> M:
            if fingerprint.content(folder) != content:
                raise ModelUnavailable(f"{folder.name} was changed while it was loaded.")
            return model

        if source.is_static(folder):
            from service.embedder.models.static_model import StaticModel

            return checked(StaticModel(folder))

        def pytorch() -> "TransformerModel":
            from service.embedder.models.transformer import TransformerModel

            return checked(
                TransformerModel(folder, device=self._device, precision=self._precision, threads=self._threads)
            )

        # The export has no tower for images.
        images = any(any(folder.rglob(name)) for name in fingerprint.IMAGE_PROCESSORS)
        if images or self._exports is None or not tries_onnx(self._backend, self._precision, self._device):
            return pytorch()
        from service.embedder.models import onnx_choice, onnx_model

        options = onnx_choice.OnnxOptions(
            name=name,
            folder=str(folder),
            root=str(self._exports),
            digest=content.digest,
            backend=self._backend,
            precision=self._precision,
            threads=self._threads,
        )
        model = onnx_model.load(options)
        return pytorch() if model is None else checked(model)


def tries_onnx(backend: str, precision: str, device: str) -> bool:
    """May ONNX Runtime run a model with these settings?"""
    return backend != "torch" and precision != "bfloat16" and on_cpu(device)


def on_cpu(device: str) -> bool:
    """Do models run on CPU? Says so without PyTorch where nothing else can be present."""
    if device == "cpu":
        return True
    nodes = ("nvidia*", "nvhost*", "kfd", "dxg")  # of CUDA, Jetson, ROCm, and CUDA in WSL
    if device == "auto" and sys.platform == "linux" and not any(any(Path("/dev").glob(node)) for node in nodes):
        return True
    from service.embedder.models import device as devices

    return devices.choose(device).type == "cpu"
