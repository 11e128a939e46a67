"""What both trainings have in common: learning rate, LoRA layers, parallel passes and one step of the optimizer."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import torch
from torch import nn

from service.core.errors import Misconfigured

T = TypeVar("T")
R = TypeVar("R")


def learning_rate_factor(progress: float, *, warm_up: float, decay: Literal["linear", "cosine"]) -> float:
    """Factor of the learning rate at `progress` in [0, 1]: linear warm-up, then decay to 0."""
    if progress < warm_up:
        return max(0.05, progress / warm_up)
    remaining = max(0.0, (1 - progress) / (1 - warm_up))
    return remaining if decay == "linear" else 0.5 * (1 - math.cos(math.pi * remaining))


def optimizer_step(optimizer: torch.optim.Optimizer, weights: Sequence[nn.Parameter], loss: float) -> None:
    """Clip the gradients, update the weights and forget the gradients. Misconfigured if the loss is not finite."""
    if not math.isfinite(loss):
        raise Misconfigured("training diverged: the loss is no number; a lower --learning-rate may help")
    nn.utils.clip_grad_norm_(weights, max_norm=1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def map_in_threads(threads: int, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Apply `work` to each item, on a CPU one item in each thread.

    With all threads in one matrix product, each layer would wait for the slowest thread.
    """
    if threads == 1 or len(items) == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(work, items))


def require_peft(alternative: str = "") -> None:
    """Misconfigured if `peft`, the library that adds LoRA layers, is not installed."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        message = "training with LoRA needs peft: pip install 'azimuth-search[train]'"
        raise Misconfigured(message + alternative) from error


def inject_lora(model: nn.Module, layers: str | list[str], *, rank: int, alpha: float) -> None:
    """Add LoRA layers in place; `layers`: names, or a pattern of names. Only the added weights are trainable then."""
    require_peft()
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers), model)


def cast_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights that are not trained once, instead of in each pass."""
    for weights in model.parameters():
        if not weights.requires_grad:
            weights.data = weights.data.to(dtype)
