from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from service.core.collections import EmbedderSpec
from service.core.ids import Role
from service.core.ids import Vectors as VectorArray
from service.core.versions import EmbedderIdentity


class ModelInput(Protocol):
    """A text or an image as one encoder reads it. `len`: its tokens, at most what the model takes."""

    @property
    def cut(self) -> bool:
        """Whether the text has more tokens than the model takes."""

    def __len__(self) -> int: ...


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

    def read(self, texts: Sequence[Any], role: Role) -> Sequence[ModelInput]:
        """Each text as the model reads it, with the prompt of the role. The work grows with what is read of a text.

        Also images, as bytes of `core/images.py`, where `EmbedderIdentity.takes_images` says so.
        """

    def forward(self, inputs: Sequence[Any], role: Role) -> VectorArray:
        """One forward pass over what `read` gave for this role; rows as `encode` gives them."""

    def encode(self, texts: Sequence[Any], role: Role) -> VectorArray:
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

    async def read(self, encoder: Encoder, texts: Sequence[Any], role: Role) -> Sequence[ModelInput]:
        """`Encoder.read` in turns with what others have read. Overloaded where too much waits."""

    async def forward(self, encoder: Encoder, inputs: Sequence[ModelInput], role: Role) -> VectorArray:
        """`Encoder.forward` in turns with concurrent callers, in passes that may be shared with them: [n, dimensions].

        Overloaded where too much waits. ModelUnavailable where the model fails.
        """

    async def embed(self, spec: EmbedderSpec, texts: Sequence[Any], role: Role) -> VectorArray:
        """`get`, `read` and `forward` in one. ModelUnavailable where the model was forgotten meanwhile."""
