"""A deterministic encoder without a model: whatever is not about quality is tested and tried with it.

Feature hashing (Weinberger et al. 2009, "Feature hashing for large scale multitask learning"): each word and each of
its character trigrams adds +1 or -1 at a place that a hash decides. Texts that share words are near, words that share
most trigrams are somewhat near, and the same text lands at the same place in every process and on every machine.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from service.core.collections import EmbedderSpec
from service.core.errors import Invalid
from service.core.ids import Role, Vectors
from service.core.vector_math import unit_rows
from service.core.versions import EmbedderIdentity

DIMENSIONS = 256
MAX_TOKENS = 256

_NAME = re.compile(r"hashing(?::(\d{1,4}))?")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD_WEIGHT, _TRIGRAM_WEIGHT = 1.0, 0.25


def dimensions_of(model: str) -> int | None:
    """The dimensions that the name asks for (`hashing`, `hashing:64`); None where it names another model."""
    match = _NAME.fullmatch(model)
    return int(match[1] or DIMENSIONS) if match else None


class HashingEncoder:
    """Encoder over words, of which a text may have 256; a mark is a word. All texts without any share one vector."""

    def __init__(self, spec: EmbedderSpec) -> None:
        full = dimensions_of(spec.model)
        if full is None or not 8 <= full <= 4000:
            raise Invalid.at("embedder.model", "a hashing encoder is named hashing or hashing:N, N from 8 to 4000")
        kept = full if spec.dimensions is None else spec.dimensions
        if not 1 <= kept <= full:
            raise Invalid.at("embedder.dimensions", f"this embedder has {full}")
        self._full = full
        self._prompts: dict[Role, str] = {"query": spec.query_prompt, "document": spec.document_prompt}
        self._identity = EmbedderIdentity(
            parts={
                "model": "hashing",
                "algorithm": "words and trigrams, blake2b, 1",
                "full_dimensions": str(full),
                "query_prompt": spec.query_prompt,
                "document_prompt": spec.document_prompt,
            },
            dimensions=kept,
            max_tokens=MAX_TOKENS,
        )

    @property
    def identity(self) -> EmbedderIdentity:
        return self._identity

    @property
    def batch_tokens(self) -> int:
        return 8192

    @property
    def streams(self) -> int:
        return 1

    def offsets(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        return [
            np.array([match.span() for match in _TOKEN.finditer(text)], dtype=np.int64).reshape(-1, 2) for text in texts
        ]

    def overhead(self, role: Role) -> int:
        return len(_TOKEN.findall(self._prompts[role]))

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        return [len(_TOKEN.findall(self._prompts[role] + text)) for text in texts]

    def unchanged(self) -> bool:
        return True

    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        vectors = np.zeros((len(texts), self._full), dtype=np.float64)
        for row, text in zip(vectors, texts, strict=True):
            for token in _TOKEN.findall(self._prompts[role] + text)[:MAX_TOKENS] or [""]:
                for place, value in _features(token.lower(), self._full):
                    row[place] += value
        return unit_rows(vectors[:, : self._identity.dimensions]).astype(np.float32)


@lru_cache(maxsize=65536)
def _features(token: str, dimensions: int) -> tuple[tuple[int, float], ...]:
    framed = f"<{token}>"
    trigrams = [framed[start : start + 3] for start in range(len(framed) - 2)] if len(token) > 2 else []
    return (
        _feature("word " + token, dimensions, _WORD_WEIGHT),
        *(_feature("trigram " + trigram, dimensions, _TRIGRAM_WEIGHT) for trigram in trigrams),
    )


def _feature(name: str, dimensions: int, weight: float) -> tuple[int, float]:
    # Not hash(): it is salted by process.
    value = int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return (value >> 1) % dimensions, weight if value & 1 else -weight
