from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from service.core.collections import EmbedderSpec
from service.core.ids import Role
from service.core.ids import Vectors as VectorArray
from service.core.versions import EmbedderIdentity


class Encoder(Protocol):
    """One loaded embedder. Its methods block: call them in a thread."""

    @property
    def identity(self) -> EmbedderIdentity: ...

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of one forward pass that suit the device it runs on."""

    @property
    def streams(self) -> int:
        """Calls of `encode` at once that keep the device busy: more than one where it works apart from the CPU."""

    def offsets(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """The tokens of each text as [n, 2] code point offsets; no special tokens, no prompt, nothing cut."""

    def overhead(self, role: Role) -> int:
        """Tokens that every text of this role costs beyond its own: special tokens and prompt."""

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        """Tokens of each text as the model would see it uncut, overhead included."""

    def unchanged(self) -> bool:
        """Are the files that it was loaded from still what they were? A swapped model must not go unnoticed."""

    def encode(self, texts: Sequence[str], role: Role) -> VectorArray:
        """One forward pass over all of them; rows of length 1, float32. Unusable rows stay as the model gave them."""


@runtime_checkable
class EncoderWithNorms(Protocol):
    """An encoder that also knows how long its vectors were before they were brought to length 1. Blocks, too."""

    def norms(self, texts: Sequence[str], role: Role) -> npt.NDArray[np.float32]: ...


class Embedders(Protocol):
    """The models that this process can run."""

    def resolve(self, spec: EmbedderSpec) -> EmbedderSpec:
        """Name the model that "default" stands for; Invalid where the model is not one that the operator allows."""

    def models(self) -> Mapping[str, Encoder | None]:
        """The models that may be named, the default one first, each with its encoder where that is in memory."""

    async def get(self, spec: EmbedderSpec) -> Encoder:
        """Load once, then answer from memory. ModelUnavailable where it cannot be loaded."""

    async def forget(self, spec: EmbedderSpec) -> None:
        """Let go of what was loaded: the next `get` loads it anew."""

    async def embed(self, spec: EmbedderSpec, texts: Sequence[str], role: Role) -> VectorArray:
        """Encode with what concurrent callers ask for, as one batch. Overloaded where too much waits."""
