"""An embedder under training: the chain of sentence-transformers modules, with gradients.

`models/transformer.py`, which serves, is built for inference. Here the same texts go through the same modules, in
passes of similar length, and the vectors stay connected to the weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

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
from service.embedder.models.batch_packing import pack
from service.embedder.training.optimization import map_in_threads

State = dict[str, torch.Tensor]
"""Weights of the transformer, by name."""


@dataclass(frozen=True, slots=True)
class _TokenizedPass:
    """Tokens of texts that share a pass, with the positions of the texts among all of them."""

    positions: list[int]
    inputs: dict[str, torch.Tensor]
    prompt_length: int


class TrainableModel:
    """Always in evaluation mode: an adaptation is too short for overfitting that dropout would prevent."""

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
        self._chain = pretrained.load_chain(SentenceTransformer, folder, str(self.device), torch.float32)
        first = self._chain[0]
        if not isinstance(first, Transformer) or first.tokenizer is None or not first.tokenizer.is_fast:
            raise Misconfigured(f"{folder.name} is no transformer with a fast tokenizer: only such can be trained.")
        self._chain.eval()
        given = {role: prompt for role, prompt in (prompts or {}).items() if prompt}
        self.prompts = pretrained.role_prompts(self._chain) | given
        self._chain.prompts.update(self.prompts)
        self.longest = min(longest, pretrained.max_tokens(folder, self._chain))
        self.threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        self._pass_tokens = devices.batch_tokens(self.device) // self.threads
        self._prompt_lengths = {
            role: pretrained.prompt_length(self.tokenizer(prompt)["input_ids"], self.tokenizer.all_special_ids)
            if prompt
            else 0
            for role, prompt in self.prompts.items()
        }

    @property
    def transformer(self) -> nn.Module:
        model: nn.Module = self._chain[0].model
        return model

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self._chain[0].tokenizer

    def vectors(self, texts: Sequence[str], role: Role) -> npt.NDArray[np.float32]:
        """Unit vectors of the texts with the prompt of the role: [n, dimensions], in the order of the texts."""
        passes = self._passes(texts, role)
        outputs = map_in_threads(self.threads, torch.inference_mode()(self._forward), passes)
        rows: npt.NDArray[np.float32] = torch.cat(outputs).cpu().numpy()
        return rows[_order(passes)]

    def backpropagate(
        self,
        inputs: Sequence[tuple[Sequence[str], Role]],
        loss: Callable[..., torch.Tensor],
        weights: Sequence[nn.Parameter],
    ) -> float:
        """Add the gradient of `loss`, a function of the vectors of each set of texts, to `weights`. Returns its value.

        The loss needs all vectors, so its gradient by the vectors is computed first and then carried through each pass
        (gradient caching: Gao et al., RepL4NLP 2021). Passes run in parallel; their gradients are added in a fixed
        order, so that the sum does not depend on which pass ended first.
        """
        passes = [self._passes(texts, role) for texts, role in inputs]
        outputs = map_in_threads(self.threads, self._forward, list(chain.from_iterable(passes)))
        rows = torch.cat(outputs).detach().requires_grad_()
        sets = torch.split(rows, [len(texts) for texts, _ in inputs])
        value = loss(*(vectors[_order(of_set)] for vectors, of_set in zip(sets, passes, strict=True)))
        value.backward()  # type: ignore[no-untyped-call]
        assert rows.grad is not None
        carried = list(zip(outputs, torch.split(rows.grad, [len(output) for output in outputs]), strict=True))
        for gradients in map_in_threads(
            self.threads, lambda one: torch.autograd.grad(one[0], list(weights), one[1], allow_unused=True), carried
        ):
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
        return float(value.detach())

    def state(self) -> State:
        """The weights themselves, not a copy."""
        return self.transformer.state_dict()

    def load(self, state: State) -> None:
        """RuntimeError if the weights belong to another model."""
        self.transformer.load_state_dict(state)

    def save(self, folder: Path) -> None:
        """Write in the format of sentence-transformers, in safetensors. OSError if writing fails."""
        self._chain.save(str(folder), create_model_card=False, safe_serialization=True)

    def _passes(self, texts: Sequence[str], role: Role) -> list[_TokenizedPass]:
        """Texts of similar length share a pass, which keeps padding small."""
        prompt = self.prompts[role]
        found = self.tokenizer([prompt + text for text in texts], truncation=True, max_length=self.longest)
        passes = []
        for batch in pack([len(ids) for ids in found["input_ids"]], self._pass_tokens):
            rows = {name: [values[at] for at in batch] for name, values in found.items()}
            inputs = dict(self.tokenizer.pad(rows, return_tensors="pt"))
            passes.append(_TokenizedPass(batch, inputs, self._prompt_lengths[role]))
        return passes

    def _forward(self, one: _TokenizedPass) -> torch.Tensor:
        inputs = {
            name: (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)
            for name, tensor in one.inputs.items()
        }
        autocast = None if self.dtype == torch.float32 else (self.device.type, self.dtype)
        pooled = pretrained.embed(self._chain, inputs, one.prompt_length, autocast=autocast)
        return nn.functional.normalize(pooled, dim=1)


def _order(passes: Sequence[_TokenizedPass]) -> npt.NDArray[np.int64]:
    """For each text, in order, its row among the outputs of all passes."""
    return np.argsort([at for one in passes for at in one.positions])
