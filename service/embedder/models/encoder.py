"""`Encoder` over a sentence-transformers model: prompts by role, dimensions kept, rows of length 1."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from service.core.collections import EmbedderSpec
from service.core.ids import Role, Vectors
from service.core.vector_math import finite
from service.core.versions import EmbedderIdentity
from service.embedder.models import fingerprint
from service.embedder.models.dimensions import kept_dimensions
from service.embedder.models.text_input import ImageInput

if TYPE_CHECKING:
    from service.embedder.models.onnx_model import OnnxModel
    from service.embedder.models.static_model import StaticModel
    from service.embedder.models.transformer import TransformerModel

EmbeddingModel: TypeAlias = "TransformerModel | OnnxModel | StaticModel"


class SentenceTransformerEncoder:
    """One embedder: a model in memory with the prompts and dimensions of a specification.

    For a role without a prompt in the specification the model's own prompt applies, as in `encode_query` and
    `encode_document` of the library: a model trained with prompts is worse without them, and nothing would show it.
    """

    def __init__(self, model: EmbeddingModel, folder: Path, content: fingerprint.Content, spec: EmbedderSpec) -> None:
        """`content`: of `folder` when `model` was loaded from it. Invalid if `spec` asks for too many dimensions."""
        self._model, self._folder, self._content = model, folder, content
        self.batch_tokens, self.streams = model.batch_tokens, model.streams
        self._prompts: dict[Role, str] = {
            "query": spec.query_prompt or model.prompts["query"],
            "document": spec.document_prompt or model.prompts["document"],
        }
        self._prompt_lengths = {role: model.prompt_length(prompt) for role, prompt in self._prompts.items()}
        self._overheads = {role: model.tokenizer.lengths([prompt])[0] for role, prompt in self._prompts.items()}
        prompts = {f"{role}_prompt": prompt for role, prompt in self._prompts.items()}
        modalities = {"modalities": "image, text"} if model.image_tokens else {}
        self.identity = EmbedderIdentity(
            parts={**content.parts, **prompts, **modalities, "normalisation": "l2"},
            dimensions=kept_dimensions(spec, model.dimensions),
            max_tokens=model.max_tokens,
        )

    def offsets(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        return self._model.tokenizer.offsets(texts)

    def overhead(self, role: Role) -> int:
        return self._overheads[role]

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        return self._model.tokenizer.lengths(self._prompted(texts, role))

    def unchanged(self) -> bool:
        try:
            return fingerprint.content(self._folder) == self._content
        except (OSError, ValueError, KeyError, TypeError):
            return False  # some or all of the files are missing

    def read(self, texts: Sequence[Any], role: Role) -> Sequence[Any]:
        if not self._model.image_tokens:
            return self._model.tokenizer.read(self._prompted(texts, role))
        read = iter(self._model.tokenizer.read(self._prompted([one for one in texts if isinstance(one, str)], role)))
        return [next(read) if isinstance(one, str) else ImageInput(one, self._model.image_tokens) for one in texts]

    def encode(self, texts: Sequence[Any], role: Role) -> Vectors:
        return self.forward(self.read(texts, role), role)

    def forward(self, inputs: Sequence[Any], role: Role) -> Vectors:
        kept = self.identity.dimensions
        if not inputs:
            return np.zeros((0, kept), dtype=np.float32)
        vectors = self._model.forward(inputs, self._prompt_lengths[role])[:, :kept]
        usable = finite(vectors)
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True).astype(np.float32)
        unit: Vectors = np.divide(vectors, norms, out=vectors.copy(), where=usable[:, None])
        return unit

    def norms(self, texts: Sequence[str], role: Role) -> npt.NDArray[np.float32]:
        """Lengths of the vectors as the last trained layer gives them, before any scaling: [n]."""
        vectors = self._model.forward(self.read(texts, role), self._prompt_lengths[role])
        lengths: npt.NDArray[np.float32] = np.linalg.norm(vectors[:, : self.identity.dimensions], axis=1)
        return lengths

    def _prompted(self, texts: Sequence[str], role: Role) -> list[str]:
        return [self._prompts[role] + text for text in texts]
