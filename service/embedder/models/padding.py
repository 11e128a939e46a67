"""Tokens of several texts as rectangular arrays for a transformer, padded to the longest text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Encoding


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

    def arrays(self, encodings: Sequence[Encoding]) -> dict[str, npt.NDArray[np.int64]]:
        """The inputs of the model by name, each [n, longest]."""
        shape = (len(encodings), max(map(len, encodings)))
        ids = np.full(shape, self.token, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        types = np.full(shape, self.type, dtype=np.int64)
        for row, encoding in enumerate(encodings):
            length = len(encoding)
            columns = slice(shape[1] - length, None) if self.left else slice(length)
            ids[row, columns] = encoding.ids
            mask[row, columns] = 1
            if "token_type_ids" in self.inputs:
                types[row, columns] = encoding.type_ids
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: array for name, array in arrays.items() if name in self.inputs or name == "attention_mask"}

    def tensors(self, encodings: Sequence[Encoding], device: torch.device) -> dict[str, torch.Tensor]:
        """`arrays` on the device of the model."""
        arrays = self.arrays(encodings)
        return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}
