"""Tokens of several texts as the arrays that a transformer reads: as long as the longest, the others filled up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding


@dataclass(frozen=True, slots=True)
class Padding:
    """How a model wants it done. `inputs`: the arrays that it reads; `token`, `type`: what it fills up with."""

    inputs: frozenset[str]
    token: int
    type: int
    left: bool

    @classmethod
    def of(cls, tokenizer: Any) -> "Padding":
        """As a tokenizer of transformers would."""
        return cls(
            inputs=frozenset(tokenizer.model_input_names),
            token=tokenizer.pad_token_id or 0,
            type=tokenizer.pad_token_type_id,
            left=tokenizer.padding_side == "left",
        )

    def arrays(self, encodings: Sequence[Encoding]) -> dict[str, npt.NDArray[np.int64]]:
        """Each of [n, longest]."""
        shape = (len(encodings), max(map(len, encodings)))
        ids = np.full(shape, self.token, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        types = np.full(shape, self.type, dtype=np.int64)
        for row, encoding in enumerate(encodings):
            length = len(encoding)
            place = slice(shape[1] - length, None) if self.left else slice(length)
            ids[row, place] = encoding.ids
            mask[row, place] = 1
            if "token_type_ids" in self.inputs:
                types[row, place] = encoding.type_ids
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: array for name, array in arrays.items() if name in self.inputs or name == "attention_mask"}
