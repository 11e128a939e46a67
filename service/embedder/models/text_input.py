"""A text that is given to its model as it is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextInput:
    """What `Encoder.read` makes of a text where the model splits it itself. `length` in tokens; `cut`: see there."""

    text: str
    length: int
    cut: bool

    def __len__(self) -> int:
        return self.length
