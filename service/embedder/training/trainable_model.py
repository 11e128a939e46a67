"""An embedder under training: the chain of modules of sentence-transformers, with gradients where they are wanted.

What serves (`service/embedder/models/transformer.py`) is laid out for inference. Here the same texts go through the
same modules, in passes of similar length, and the vectors keep their way back to the weights.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import nn
from transformers import PreTrainedTokenizerFast

from service.core.errors import Misconfigured, ModelUnavailable
from service.core.ids import Role
from service.embedder.models import device as devices
from service.embedder.models import pretrained
from service.embedder.models.batch_packing import pack
from service.embedder.models.transformer import max_tokens
from service.embedder.models.transformer import prompts as own_prompts

T = TypeVar("T")
R = TypeVar("R")

State = dict[str, torch.Tensor]
"""Weights of the transformer, by name."""


@dataclass(frozen=True, slots=True)
class _TokenizedPass:
    """Texts that are read together: their places among all of them, and their tokens."""

    places: list[int]
    inputs: dict[str, torch.Tensor]
    prompt_length: int


class TrainableModel:
    """Always in evaluation mode: the few steps of an adaptation learn nothing by heart that dropout would prevent."""

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

        `prompts`: in place of the model's own, and saved with it. `longest`: tokens at which texts are cut here; the
        model's own limit is saved unchanged. ModelUnavailable where it cannot be loaded; Misconfigured where it is no
        transformer with a fast tokenizer.
        """
        self.device = devices.choose(device)
        self.dtype = devices.precision(self.device, precision)
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
        pretrained.own_weights(chain)
        self._chain = chain.eval()
        self.prompts = own_prompts(chain) | {role: prompt for role, prompt in (prompts or {}).items() if prompt}
        chain.prompts.update(self.prompts)
        self.longest = min(longest, max_tokens(folder, chain))
        self.threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        self._pass_tokens = devices.batch_tokens(self.device) // self.threads
        self._prompt_lengths = {role: self._prompt_length(prompt) for role, prompt in self.prompts.items()}

    @property
    def transformer(self) -> nn.Module:
        model: nn.Module = self._chain[0].model
        return model

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self._chain[0].tokenizer

    def vectors(self, texts: Sequence[str], role: Role) -> npt.NDArray[np.float32]:
        """Rows of length 1, [n, dimensions], in the order of the texts; prompts are put before them."""
        passes = self._passes(texts, role)
        found = torch.cat(self._side_by_side(self._read, passes)).cpu().numpy()
        rows: npt.NDArray[np.float32] = np.empty_like(found)
        rows[[at for one in passes for at in one.places]] = found
        return rows

    def learn(
        self,
        read: Sequence[tuple[Sequence[str], Role]],
        loss: Callable[..., torch.Tensor],
        weights: Sequence[nn.Parameter],
    ) -> float:
        """Add to the weights' gradients that of `loss`, a function of the vectors of each set of texts; its value.

        As the loss needs all vectors, its gradient is first taken by them, then carried back through each pass. Passes
        run side by side; their gradients are added in their order, so that the sum does not depend on who was first.
        """
        passes = [(number, one) for number, (texts, role) in enumerate(read) for one in self._passes(texts, role)]
        outputs = self._side_by_side(lambda one: self._forward(one[1]), passes)
        rows = torch.cat(outputs).detach().requires_grad_()
        places: list[dict[int, int]] = [{} for _ in read]
        for row, (number, at) in enumerate((number, at) for number, one in passes for at in one.places):
            places[number][at] = row
        value = loss(*(rows[[found[at] for at in range(len(found))]] for found in places))
        value.backward()  # type: ignore[no-untyped-call]
        assert rows.grad is not None
        carried = zip(outputs, torch.split(rows.grad, [len(output) for output in outputs]), strict=True)
        for gradients in self._side_by_side(
            lambda one: torch.autograd.grad(one[0], list(weights), one[1], allow_unused=True), list(carried)
        ):
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
        return float(value.detach())

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

    def _passes(self, texts: Sequence[str], role: Role) -> "list[_TokenizedPass]":
        """Texts of similar length go together, so that little is padding."""
        prompt = self.prompts[role]
        found = self.tokenizer([prompt + text for text in texts], truncation=True, max_length=self.longest)
        passes = []
        for places in pack([len(ids) for ids in found["input_ids"]], self._pass_tokens):
            rows = {name: [values[at] for at in places] for name, values in found.items()}
            inputs = dict(self.tokenizer.pad(rows, return_tensors="pt"))
            passes.append(_TokenizedPass(places, inputs, self._prompt_lengths[role]))
        return passes

    def _side_by_side(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """On a CPU each thread takes a pass of its own: with all of them in one product, each layer would wait for the
        slowest."""
        if self.threads == 1 or len(items) == 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as threads:
            return list(threads.map(work, items))

    @torch.inference_mode()
    def _read(self, one: "_TokenizedPass") -> torch.Tensor:
        return self._forward(one)

    def _forward(self, one: "_TokenizedPass") -> torch.Tensor:
        features: dict[str, object] = {"modality": "text"}
        for name, tensor in one.inputs.items():
            pinned = tensor.pin_memory() if self.device.type == "cuda" else tensor
            features[name] = pinned.to(self.device, non_blocking=True)
        if one.prompt_length:
            features["prompt_length"] = one.prompt_length
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
