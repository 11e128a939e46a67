"""Texts and images that are given to their model as they are."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextInput:
    """What `Encoder.read` makes of a text where the model splits it itself. `length` in tokens; `cut`: see there."""

    text: str
    length: int
    cut: bool

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image as `core/images.py` prepares it. `length`: the patches that the model makes of it, as tokens."""

    content: bytes
    length: int
    cut = False

    def __len__(self) -> int:
        return self.length
