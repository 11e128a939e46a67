"""What is trained of an embedder: all weights, or low-rank differences of its linear layers and rows of new tokens.

LoRA (Hu et al., ICLR 2022) learns a difference (alpha / r) B A of rank r for each linear layer W. `state` adds it to W,
so the saved model has the structure and the speed of the original.
"""

import copy

import torch
from torch import nn

from service.embedder.training.trainable_model import State, TrainableModel
from service.embedder.training.trainer import inject_lora


class Adaptation:
    """A copy of a model with trainable weights. The original model is not changed."""

    def __init__(self, base: TrainableModel, *, rank: int | None, added: int) -> None:
        """`rank` None: all weights are trained. `added`: rows at the end of the vocabulary that are new."""
        self._base: State = {name: tensor.detach().clone() for name, tensor in base.state().items()}
        self.model = copy.deepcopy(base)
        transformer = self.model.transformer
        if rank is None:
            transformer.requires_grad_(True)
        else:
            linear = [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
            layers = [name for name in linear if "pooler" not in name]  # a layer over [CLS] that embedders do not use
            table: nn.Embedding = transformer.get_input_embeddings()  # type: ignore[operator]
            place = next(name for name, module in transformer.named_modules() if module is table)
            size = table.num_embeddings
            rows = {place: list(range(size - added, size))} if added else None
            options = {"r": rank, "lora_alpha": 2 * rank, "trainable_token_indices": rows}
            inject_lora(transformer, layers, self.model.dtype, **options)
        self.trained = {name: weights for name, weights in transformer.named_parameters() if weights.requires_grad}

    @property
    def rows(self) -> list[str]:
        """Names of the weights of new tokens. These are rare and start as a guess, so they have a rate of their own."""
        return [name for name in self.trained if "trainable_tokens" in name]

    @torch.no_grad()
    def snapshot(self) -> State:
        return {name: weights.detach().clone() for name, weights in self.trained.items()}

    @torch.no_grad()
    def restore(self, snapshot: State) -> None:
        for name, weights in self.trained.items():
            weights.copy_(snapshot[name])

    @torch.no_grad()
    def state(self, share: float = 1.0) -> State:
        """Weights of a plain model, in float32: (1 - share) of the original and `share` of the trained ones.

        A mixture has learned less and forgotten less (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR
        2022).
        """
        tuned = dict(self._base)
        for name, module in self.model.transformer.named_modules():
            if hasattr(module, "trainable_tokens_delta"):
                key, rows = f"{name.removesuffix('.token_adapter')}.weight", module.trainable_tokens_delta["default"]
                tuned[key] = torch.cat([self._base[key][: -len(rows)], rows])
            elif hasattr(module, "get_delta_weight"):
                tuned[f"{name}.weight"] = tuned[f"{name}.weight"] + module.get_delta_weight("default").float()
        tuned |= {name: weights.float() for name, weights in self.trained.items() if name in tuned}
        return {
            name: torch.lerp(tensor, tuned[name], share) if tensor.is_floating_point() else tensor
            for name, tensor in self._base.items()
        }
