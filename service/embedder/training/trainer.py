"""What both trainings set of the trainers of sentence-transformers: LoRA layers, data, the end by the clock."""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from service.core.errors import Misconfigured

Rows = dict[str, list[Any]]
"""Column -> a value for each example, as the losses of sentence-transformers take them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """A run of `minutes`, or of `steps` where these end earlier. `warm_up`: share of it in which the rate rises."""

    minutes: float
    steps: int
    warm_up: float
    decay: Literal["linear", "cosine"]
    losses: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def progress(self) -> float:
        """How much of the run is over."""
        return self.progress_after(len(self.losses))

    def progress_after(self, steps: int) -> float:
        return max(steps / self.steps, (time.monotonic() - self.began) / (60 * self.minutes))

    def rate(self, progress: float) -> float:
        """Factor of the learning rate: linear warm-up, then decay to 0."""
        if progress < self.warm_up:
            return max(0.05, progress / self.warm_up)
        remaining = max(0.0, (1 - progress) / (1 - self.warm_up))
        return remaining if self.decay == "linear" else 0.5 * (1 - math.cos(math.pi * remaining))


class Scheduled(TrainerCallback):
    """Mixed into a trainer: rate and end of the run follow the schedule, and `after_step` may end it, too.

    Without dropout: a run takes a few passes over the data at most, so it cannot overfit much.
    """

    schedule: Schedule
    after_step: Callable[[], bool]
    _loss = 0.0

    def begin(self, schedule: Schedule, after_step: Callable[[], bool]) -> None:
        """Train. Misconfigured if the loss is not finite."""
        self.schedule, self.after_step = schedule, after_step
        model: Any = self.model
        model.train = lambda mode=True: model
        self.remove_callback(PrinterCallback)
        self.add_callback(self)
        self.train()

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        self.lr_scheduler = LambdaLR(
            self.optimizer, lambda steps: self.schedule.rate(self.schedule.progress_after(steps))
        )
        return self.lr_scheduler

    def add_model_card_callback(self, default_args_dict: Any) -> None:
        """None: the card is ours."""

    def training_step(self, *inputs: Any, **more: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*inputs, **more)
        if not torch.isfinite(loss):
            raise Misconfigured("training diverged: the loss is no number; a lower --learning-rate may help")
        self._loss += float(loss)
        return loss

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.schedule.losses.append(self._loss)
        self._loss = 0.0
        control.should_training_stop = self.after_step() or self.schedule.progress >= 1


def arguments(
    kind: Any, device: torch.device, dtype: torch.dtype, *, batch: int, rate: float, seed: int, **options: Any
) -> Any:
    """Training arguments of the kind: one device, and nothing logged or saved by the library."""
    made = kind(
        output_dir=tempfile.gettempdir(),
        max_steps=2**31,  # the schedule ends it
        per_device_train_batch_size=batch,
        learning_rate=rate,
        seed=seed,
        weight_decay=0.01,
        bf16=dtype == torch.bfloat16,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    if device.type == "cuda":  # the library would take the first GPU, or all
        torch.cuda.set_device(device)
        made._setup_devices, made._n_gpu = device, 1
    return made


def drawn(count: int, draw: Callable[[int], Rows]) -> Any:
    """A data set whose epoch is one step: `draw(n)` gives the next n of its `count` examples, new ones each time."""
    from datasets import Dataset

    class Drawn(Dataset):
        """Not by `with_transform`, which pickles all that the function refers to, for a fingerprint."""

        def __getitems__(self, keys: list[int]) -> list[dict[str, Any]]:
            rows = draw(len(keys))
            return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]

    return Drawn.from_dict({"at": range(count)})


def require_libraries() -> None:
    """Misconfigured if what only training needs is not installed."""
    try:
        import accelerate  # noqa: F401
        import datasets  # noqa: F401
        import peft  # noqa: F401
    except ImportError as error:
        raise Misconfigured(
            "training needs accelerate, datasets and peft: pip install 'azimuth-search[train]'"
        ) from error


def inject_lora(model: nn.Module, layers: str | list[str], dtype: torch.dtype, **options: Any) -> None:
    """Add LoRA layers in place; `layers`: names, or a pattern of names; `options`: of `peft.LoraConfig`.

    Only the added weights are trainable then. The others are converted to `dtype` once, instead of in each pass.
    """
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(target_modules=layers, **options), model)
    for weights in model.parameters():
        if not weights.requires_grad:
            weights.data = weights.data.to(dtype)
