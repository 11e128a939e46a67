"""An embedder under training: the chain of modules of sentence-transformers, with gradients where they are wanted.

What serves (`service/embedder/model.py`) is laid out for inference. Here the same texts go through the same modules, in
passes of similar length, and the vectors keep their way back to the weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import nn
from transformers import PreTrainedTokenizerFast

from service.domain import Role
from service.embedder import device as devices
from service.embedder import memory
from service.embedder.model import max_tokens
from service.embedder.model import prompts as own_prompts
from service.embedder.packing import pack
from service.errors import Misconfigured, ModelUnavailable

State = dict[str, torch.Tensor]
"""Weights of the transformer, by name."""


class Chain:
    """Always in evaluation mode: the few steps of an adaptation learn nothing by heart that dropout would prevent."""

    def __init__(
        self, folder: Path, *, prompts: Mapping[Role, str] | None = None, device: str = "auto", longest: int = 128
    ) -> None:
        """Load in float32. `prompts`: in place of the model's own, and saved with it. `longest`: tokens at which texts
        are cut here; the model's own limit is saved unchanged.

        ModelUnavailable where that fails; Misconfigured where the model is no transformer with a fast tokenizer.
        """
        self.device = devices.choose(device)
        self.dtype = devices.precision(self.device, "auto")
        try:
            chain = SentenceTransformer(
                str(folder),
                device=str(self.device),
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": torch.float32, "use_safetensors": True},
            )
        except Exception as error:  # whatever a broken folder makes the library raise
            raise ModelUnavailable(f"{folder.name} cannot be loaded: {error}") from error
        first = chain[0]
        if not isinstance(first, Transformer) or first.tokenizer is None or not first.tokenizer.is_fast:
            raise Misconfigured(f"{folder.name} is no transformer with a fast tokenizer: only such can be trained.")
        memory.own(chain)
        self._chain = chain.eval()
        self.prompts = own_prompts(chain) | {role: prompt for role, prompt in (prompts or {}).items() if prompt}
        chain.prompts.update(self.prompts)
        self.longest = min(longest, max_tokens(folder, chain))
        self._pass_tokens = devices.batch_tokens(self.device)
        self._prompt_lengths = {role: self._prompt_length(prompt) for role, prompt in self.prompts.items()}

    @property
    def transformer(self) -> nn.Module:
        model: nn.Module = self._chain[0].model
        return model

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self._chain[0].tokenizer

    def encode(self, texts: Sequence[str], role: Role) -> torch.Tensor:
        """Rows of length 1, [n, dimensions], float32, on the device; prompts are put before the texts.

        Sorted by length into passes, so that little is padding; the order of the rows is that of the texts.
        """
        prompt = self.prompts[role]
        found = self.tokenizer([prompt + text for text in texts], truncation=True, max_length=self.longest)
        parts: list[torch.Tensor] = []
        order: list[int] = []
        for batch in pack([len(ids) for ids in found["input_ids"]], self._pass_tokens):
            rows = {name: [values[at] for at in batch] for name, values in found.items()}
            parts.append(self._forward(self.tokenizer.pad(rows, return_tensors="pt"), self._prompt_lengths[role]))
            order += batch
        return torch.cat(parts)[torch.argsort(torch.tensor(order, device=self.device))]

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str], role: Role) -> npt.NDArray[np.float32]:
        """As `encode`, in main memory and without gradients: for any number of texts."""
        found: npt.NDArray[np.float32] = self.encode(texts, role).cpu().numpy()
        return found

    def state(self) -> State:
        """The weights themselves, not a copy."""
        state: State = self.transformer.state_dict()
        return state

    def load(self, state: State) -> None:
        """RuntimeError where the weights are not of this model."""
        self.transformer.load_state_dict(state)

    def save(self, folder: Path) -> None:
        """Write as sentence-transformers does, in safetensors, without a model card. OSError where the disk refuses."""
        self._chain.save(str(folder), create_model_card=False, safe_serialization=True)

    def _forward(self, inputs: dict[str, torch.Tensor], prompt_length: int) -> torch.Tensor:
        features: dict[str, object] = {"modality": "text"}
        for name, tensor in inputs.items():
            pinned = tensor.pin_memory() if self.device.type == "cuda" else tensor
            features[name] = pinned.to(self.device, non_blocking=True)
        if prompt_length:
            features["prompt_length"] = prompt_length
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features = self._chain[0](features)
        features["token_embeddings"] = features["token_embeddings"].float()  # type: ignore[attr-defined]
        for module in list(self._chain)[1:]:
            features = module(features)
        pooled: torch.Tensor = features["sentence_embedding"]  # type: ignore[assignment]
        return nn.functional.normalize(pooled.float(), dim=1)

    def _prompt_length(self, prompt: str) -> int:
        """Tokens before the text: special ones after it do not count."""
        if not prompt:
            return 0
        ids = self.tokenizer(prompt)["input_ids"]
        return len(ids) - (1 if ids[-1] in self.tokenizer.all_special_ids else 0)
