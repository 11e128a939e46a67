"""`Encoder` over a sentence-transformers model: prompts by role, dimensions kept, rows of length 1."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from service.core.collections import EmbedderSpec
from service.core.errors import Invalid
from service.core.ids import Role, Vectors
from service.core.vector_math import finite
from service.core.versions import EmbedderIdentity
from service.embedder.models import fingerprint


class EmbeddingModel(Protocol):
    """What is in memory of a model folder: a transformer (`model`) or a table of rows (`static`)."""

    batch_tokens: int
    streams: int
    max_tokens: int
    dimensions: int
    prompts: dict[Role, str]
    """The model's own, empty where it has none."""

    def tokens(self, texts: Sequence[str], *, special: bool) -> list[Encoding]: ...

    def lengths(self, texts: Sequence[str]) -> list[int]: ...

    def prompt_length(self, prompt: str) -> int: ...

    def forward(self, texts: Sequence[str], prompt_length: int, *, scaled: bool = True) -> npt.NDArray[np.float32]: ...


class SentenceTransformerEncoder:
    """One embedder: a model that is in memory, and what the collection asked for on top of it.

    Where the collection names no prompt for a role, the model's own prompt for it holds (as in `encode_query` and
    `encode_document` of the library): a model trained with prompts is worse without, and nothing would show it.
    """

    def __init__(self, model: EmbeddingModel, folder: Path, content: fingerprint.Content, spec: EmbedderSpec) -> None:
        """`content`: of `folder` when `model` was loaded from it.

        Invalid where more dimensions are asked for than it has.
        """
        self._folder, self._content = folder, content
        kept = model.dimensions if spec.dimensions is None else spec.dimensions
        if not 1 <= kept <= model.dimensions:
            raise Invalid.at("embedder.dimensions", f"this embedder has {model.dimensions}")
        self._model = model
        self._prompts: dict[Role, str] = {
            "query": spec.query_prompt or model.prompts["query"],
            "document": spec.document_prompt or model.prompts["document"],
        }
        self._prompt_lengths: dict[Role, int] = {
            role: model.prompt_length(prompt) for role, prompt in self._prompts.items()
        }
        self._overheads: dict[Role, int] = {role: model.lengths([prompt])[0] for role, prompt in self._prompts.items()}
        self._identity = EmbedderIdentity(
            parts={
                **content.parts,
                "query_prompt": self._prompts["query"],
                "document_prompt": self._prompts["document"],
                "normalisation": "l2",
            },
            dimensions=kept,
            max_tokens=model.max_tokens,
        )

    @property
    def identity(self) -> EmbedderIdentity:
        return self._identity

    @property
    def batch_tokens(self) -> int:
        return self._model.batch_tokens

    @property
    def streams(self) -> int:
        return self._model.streams

    def offsets(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        return [
            np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            for encoding in self._model.tokens(texts, special=False)
        ]

    def overhead(self, role: Role) -> int:
        return self._overheads[role]

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        return self._model.lengths([self._prompts[role] + text for text in texts])

    def unchanged(self) -> bool:
        try:
            return fingerprint.content(self._folder) == self._content
        except (OSError, ValueError, KeyError, TypeError):
            return False  # half of the files are there, or none

    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        kept = self._identity.dimensions
        if not texts:
            return np.zeros((0, kept), dtype=np.float32)
        prompt = self._prompts[role]
        prompted = [prompt + text for text in texts] if prompt else texts
        vectors = self._model.forward(prompted, self._prompt_lengths[role])[:, :kept]
        usable = finite(vectors)
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True).astype(np.float32)
        unit: Vectors = np.divide(vectors, norms, out=vectors.copy(), where=usable[:, None])
        return unit

    def norms(self, texts: Sequence[str], role: Role) -> npt.NDArray[np.float32]:
        """Lengths of the vectors as they leave the last layer that was trained, before anything scales them: [n]."""
        prompted = [self._prompts[role] + text for text in texts]
        vectors = self._model.forward(prompted, self._prompt_lengths[role], scaled=False)
        lengths: npt.NDArray[np.float32] = np.linalg.norm(vectors[:, : self._identity.dimensions], axis=1)
        return lengths
