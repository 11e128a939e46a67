"""What is trained of an embedder: all weights, or low-rank differences of its linear layers and rows of new tokens.

LoRA (Hu et al., ICLR 2022) learns a difference (alpha / r) B A of rank r for each linear layer W. `state` adds it to W,
so the saved model has the structure and the speed of the original.
"""

import copy

import torch
from torch import nn

from service.embedder.training.optimization import cast_frozen, inject_lora
from service.embedder.training.trainable_model import State, TrainableModel
from service.embedder.training.vocabulary import AddedRows


class Adaptation:
    """A copy of a chain with trainable weights. The original chain is not changed."""

    def __init__(self, base: TrainableModel, *, rank: int | None, added: int) -> None:
        """`rank` None: all weights are trained. `added`: rows at the end of the vocabulary that are new.

        Misconfigured if LoRA is asked for and `peft` is not installed.
        """
        self._base: State = {name: tensor.detach().clone() for name, tensor in base.state().items()}
        self.chain = copy.deepcopy(base)
        model = self.chain.transformer
        if rank is None:
            model.requires_grad_(True)
        else:
            linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
            layers = [name for name in linear if "pooler" not in name]  # a layer over [CLS] that embedders do not use
            inject_lora(model, layers, rank=rank, alpha=2 * rank)
            if added:
                table = model.get_input_embeddings()  # type: ignore[operator]
                rows = AddedRows(table, table.num_embeddings - added, self.chain.dtype)
                model.set_input_embeddings(rows)  # type: ignore[operator]
            cast_frozen(model, self.chain.dtype)
        self._trained = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}

    def parameter_groups(self, rate: float, rows_rate: float) -> list[dict[str, object]]:
        """For the optimizer. Rows of new tokens occur rarely and start as a guess, so they have a rate of their own."""
        rows = [weights for name, weights in self._trained.items() if name.endswith(".added")]
        rest = [weights for name, weights in self._trained.items() if not name.endswith(".added")]
        return [
            {"params": rest, "lr": rate, "peak": rate, "weight_decay": 0.01},
            {"params": rows, "lr": rows_rate, "peak": rows_rate, "weight_decay": 0.0},
        ]

    @property
    def trained(self) -> list[nn.Parameter]:
        return list(self._trained.values())

    @torch.no_grad()
    def snapshot(self) -> State:
        return {name: weights.detach().clone() for name, weights in self._trained.items()}

    @torch.no_grad()
    def restore(self, snapshot: State) -> None:
        for name, weights in self._trained.items():
            weights.copy_(snapshot[name])

    @torch.no_grad()
    def state(self, share: float = 1.0) -> State:
        """Weights of a plain model, in float32: (1 - share) of the original and `share` of the trained ones.

        A mixture has learned less and forgotten less (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR
        2022).
        """
        tuned = dict(self._base)
        for name, module in self.chain.transformer.named_modules():
            if isinstance(module, AddedRows):
                known = self._base[f"{name}.weight"][: module.first]
                tuned[f"{name}.weight"] = torch.cat([known, module.added.detach()])
            elif hasattr(module, "get_delta_weight"):
                tuned[f"{name}.weight"] = tuned[f"{name}.weight"] + module.get_delta_weight("default").float()
        tuned |= {name: weights.detach().float() for name, weights in self._trained.items() if name in tuned}
        return {
            name: torch.lerp(tensor, tuned[name], share) if tensor.is_floating_point() else tensor
            for name, tensor in self._base.items()
        }
