"""Tokens of several texts as rectangular arrays for a transformer, padded to the longest text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.embedder.models.text_tokenizer import Tokens


@dataclass(frozen=True, slots=True)
class Padding:
    """A model's padding. `inputs`: names of the arrays that it reads; `token`, `type`: values of the padding."""

    inputs: frozenset[str]
    token: int
    type: int
    left: bool

    @classmethod
    def of(cls, tokenizer: Any) -> "Padding":
        """The padding of a tokenizer of transformers."""
        return cls(
            inputs=frozenset(tokenizer.model_input_names),
            token=tokenizer.pad_token_id or 0,
            type=tokenizer.pad_token_type_id,
            left=tokenizer.padding_side == "left",
        )

    def arrays(self, texts: Sequence[Tokens]) -> dict[str, npt.NDArray[np.int64]]:
        """The inputs of the model by name, each [n, longest]."""
        longest = max(map(len, texts))
        arrays = {
            name: np.full((len(texts), longest), value, dtype=np.int64)
            for name, value in (("input_ids", self.token), ("attention_mask", 0), ("token_type_ids", self.type))
            if name in self.inputs or name == "attention_mask"
        }
        for row, text in enumerate(texts):
            columns = slice(longest - len(text), None) if self.left else slice(len(text))
            for name, values in (("input_ids", text.ids), ("attention_mask", 1), ("token_type_ids", text.type_ids)):
                if name in arrays:
                    arrays[name][row, columns] = values
        return arrays
