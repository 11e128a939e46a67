"""An embedder under training: a model of sentence-transformers with its prompts, run in the precision of the device."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import nn
from transformers import PreTrainedTokenizerFast

from service.core.errors import Misconfigured
from service.core.ids import Role
from service.embedder.models import device as devices
from service.embedder.models import pretrained

State = dict[str, torch.Tensor]
"""Weights of the transformer, by name."""


class TrainableModel:
    """`chain`: the modules, in evaluation mode."""

    def __init__(
        self,
        folder: Path,
        *,
        prompts: Mapping[Role, str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        longest: int = 128,
    ) -> None:
        """Load in float32, to be run in `precision`.

        `prompts`: replace the model's own and are saved with it. `longest`: tokens at which texts are truncated here;
        the model's own limit is saved unchanged. ModelUnavailable if the model cannot be loaded; Misconfigured if it
        is no transformer with a fast tokenizer.
        """
        self.device = devices.choose(device)
        self.dtype = devices.precision(self.device, precision)
        self.chain = pretrained.load_chain(SentenceTransformer, folder, str(self.device), torch.float32)
        first = self.chain[0]
        if not isinstance(first, Transformer) or first.tokenizer is None or not first.tokenizer.is_fast:
            raise Misconfigured(f"{folder.name} is no transformer with a fast tokenizer: only such can be trained.")
        first.register_forward_hook(_pool_in_float32)
        self.chain.eval()
        given = {role: prompt for role, prompt in (prompts or {}).items() if prompt}
        self.prompts = pretrained.role_prompts(self.chain) | given
        self.chain.prompts.update(self.prompts)
        self._limit = self.chain.max_seq_length
        self.longest = min(longest, pretrained.max_tokens(folder, self.chain))
        self.chain.max_seq_length = self.longest

    @property
    def transformer(self) -> nn.Module:
        model: nn.Module = self.chain[0].model
        return model

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self.chain[0].tokenizer

    def vectors(self, texts: Sequence[str], role: Role) -> npt.NDArray[np.float32]:
        """Unit vectors of the texts with the prompt of the role: [n, dimensions], in the order of the texts."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            found: npt.NDArray[np.float32] = self.chain.encode(
                list(texts), prompt=self.prompts[role], normalize_embeddings=True, show_progress_bar=False
            )
        return found

    def state(self) -> State:
        """The weights themselves, not a copy."""
        return self.transformer.state_dict()

    def load(self, state: State) -> None:
        """RuntimeError if the weights belong to another model."""
        self.transformer.load_state_dict(state)

    def save(self, folder: Path) -> None:
        """Write in the format of sentence-transformers, in safetensors. OSError if writing fails."""
        self.chain.max_seq_length = self._limit
        self.chain.save(str(folder), create_model_card=False, safe_serialization=True)
        self.chain.max_seq_length = self.longest


def _pool_in_float32(_module: nn.Module, _inputs: object, features: dict[str, Any]) -> dict[str, Any]:
    return {**features, "token_embeddings": features["token_embeddings"].float()}
