"""What of a model is learnt: all of it, or low-rank differences of its linear layers (LoRA), and the rows of new words.

LoRA (Hu et al., ICLR 2022) learns for each linear layer W a difference (alpha / r) B A of rank r. `state` adds them up:
what is saved is a model like the one that was begun with, and costs nothing more to run.
"""

import copy

import torch
from torch import nn

from service.core.errors import Misconfigured
from service.embedder.training.trainable_model import State, TrainableModel
from service.embedder.training.vocabulary import Rows

_NOT_ADAPTED = "pooler"
"""A layer over [CLS] that embedders do not read."""


class Adaptation:
    """A copy of a chain with what is learnt of it. The chain that it was made of stays as it is."""

    def __init__(self, base: TrainableModel, *, rank: int | None, added: int) -> None:
        """`rank` None: everything is learnt. `added`: rows at the end of the vocabulary that are new.

        Misconfigured where LoRA is asked for and `peft` is not installed.
        """
        self._base: State = {name: tensor.detach().clone() for name, tensor in base.state().items()}
        self.chain = copy.deepcopy(base)
        model = self.chain.transformer
        if rank is None:
            model.requires_grad_(True)
        else:
            _add_lora(model, rank)
            if added:
                table = model.get_input_embeddings()  # type: ignore[operator]
                model.set_input_embeddings(Rows(table, table.num_embeddings - added, self.chain.dtype))  # type: ignore[operator]
            for weights in model.parameters():
                if not weights.requires_grad:
                    weights.data = weights.data.to(self.chain.dtype)  # not converted anew in each pass
        self._learnt = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}

    def groups(self, rate: float, rows_rate: float) -> list[dict[str, object]]:
        """For the optimizer. Rows of new words are seen seldom and start as a guess: they go at their own rate."""
        rows = [weights for name, weights in self._learnt.items() if name.endswith(".added")]
        rest = [weights for name, weights in self._learnt.items() if not name.endswith(".added")]
        return [
            {"params": rest, "lr": rate, "peak": rate, "weight_decay": 0.01},
            {"params": rows, "lr": rows_rate, "peak": rows_rate, "weight_decay": 0.0},
        ]

    @property
    def learnt(self) -> list[nn.Parameter]:
        return list(self._learnt.values())

    @torch.no_grad()
    def snapshot(self) -> State:
        return {name: weights.detach().clone() for name, weights in self._learnt.items()}

    @torch.no_grad()
    def restore(self, snapshot: State) -> None:
        for name, weights in self._learnt.items():
            weights.copy_(snapshot[name])

    @torch.no_grad()
    def state(self, share: float = 1.0) -> State:
        """Weights of a plain model, in float32: (1 - share) of what was begun with and `share` of what was learnt.

        In between lies less of what was learnt and less of what was forgotten (Wortsman et al., "Robust fine-tuning of
        zero-shot models", CVPR 2022).
        """
        tuned = dict(self._base)
        for name, module in self.chain.transformer.named_modules():
            if isinstance(module, Rows):
                known = self._base[f"{name}.weight"][: module.first]
                tuned[f"{name}.weight"] = torch.cat([known, module.added.detach()])
            elif hasattr(module, "get_delta_weight"):
                tuned[f"{name}.weight"] = tuned[f"{name}.weight"] + module.get_delta_weight("default").float()
        for name, weights in self._learnt.items():
            if name in tuned:
                tuned[name] = weights.detach().float()
        return {
            name: torch.lerp(tensor, tuned[name], share) if tensor.is_floating_point() else tensor
            for name, tensor in self._base.items()
        }


def need_lora() -> None:
    """Misconfigured where the library that adds it is not installed."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise Misconfigured("training with LoRA needs peft: pip install 'azimuth-search[train]'; or --full") from error


def _add_lora(model: nn.Module, rank: int) -> None:
    need_lora()
    from peft import LoraConfig, inject_adapter_in_model

    layers = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and _NOT_ADAPTED not in name
    ]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers), model)
