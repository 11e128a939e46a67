"""A deterministic encoder without a model, for tests and trials of everything but quality.

Feature hashing (Weinberger et al. 2009, "Feature hashing for large scale multitask learning"): each word and each of
its character trigrams adds +1 or -1 at a position given by a hash. Texts that share words are near each other, texts
that share most trigrams somewhat near, and a text has the same vector in every process and on every machine.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt

from service.core.collections import EmbedderSpec
from service.core.errors import Invalid
from service.core.ids import Role, Vectors
from service.core.vector_math import unit_rows
from service.core.versions import EmbedderIdentity
from service.embedder.models.dimensions import kept_dimensions
from service.embedder.models.text_input import TextInput

DIMENSIONS = 256
MAX_TOKENS = 256

_NAME = re.compile(r"hashing(?::(\d{1,4}))?")
_TOKEN = re.compile(r"\w+|[^\w\s]")


def dimensions_of(model: str) -> int | None:
    """The dimensions in the name of a hashing encoder (`hashing`, `hashing:64`); None for the name of another model."""
    match = _NAME.fullmatch(model)
    return int(match[1] or DIMENSIONS) if match else None


class HashingEncoder:
    """Encoder over at most 256 words and punctuation marks of a text. All texts without any share one vector."""

    batch_tokens = 8192
    streams = 1

    def __init__(self, spec: EmbedderSpec) -> None:
        full = dimensions_of(spec.model)
        if full is None or not 8 <= full <= 4000:
            raise Invalid.at("embedder.model", "a hashing encoder is named hashing or hashing:N, N from 8 to 4000")
        self._full = full
        self._prompts: dict[Role, str] = {"query": spec.query_prompt, "document": spec.document_prompt}
        parts = {"model": "hashing", "algorithm": "words and trigrams, blake2b, 1", "full_dimensions": str(full)}
        parts |= {f"{role}_prompt": prompt for role, prompt in self._prompts.items()}
        self.identity = EmbedderIdentity(parts=parts, dimensions=kept_dimensions(spec, full), max_tokens=MAX_TOKENS)

    def offsets(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        return [
            np.array([match.span() for match in _TOKEN.finditer(text)], dtype=np.int64).reshape(-1, 2) for text in texts
        ]

    def overhead(self, role: Role) -> int:
        return self.lengths([""], role)[0]

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        return [len(_TOKEN.findall(self._prompts[role] + text)) for text in texts]

    def unchanged(self) -> bool:
        return True

    def read(self, texts: Sequence[str], role: Role) -> list[TextInput]:
        return [self._read(self._prompts[role] + text) for text in texts]

    @staticmethod
    def _read(text: str) -> TextInput:
        ends = [match.end() for match in islice(_TOKEN.finditer(text), MAX_TOKENS + 1)]
        read = ends[:MAX_TOKENS]
        return TextInput(text[: read[-1] if read else 0], len(read), cut=len(ends) > MAX_TOKENS)

    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        return self.forward(self.read(texts, role), role)

    def forward(self, inputs: Sequence[TextInput], role: Role) -> Vectors:
        vectors = np.zeros((len(inputs), self._full), dtype=np.float64)
        for row, one in zip(vectors, inputs, strict=True):
            for token in _TOKEN.findall(one.text) or [""]:
                for position, value in _features(token.lower(), self._full):
                    row[position] += value
        return unit_rows(vectors[:, : self.identity.dimensions]).astype(np.float32)


@lru_cache(maxsize=65536)
def _features(token: str, dimensions: int) -> list[tuple[int, float]]:
    framed, features = f"<{token}>", []
    trigrams = [framed[start : start + 3] for start in range(len(framed) - 2)] if len(token) > 2 else []
    for name, weight in [(f"word {token}", 1.0), *((f"trigram {trigram}", 0.25) for trigram in trigrams)]:
        # Not hash(): each process salts it differently.
        value = int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        features.append(((value >> 1) % dimensions, weight if value & 1 else -weight))
    return features
