"""Train a cross-encoder on top of an encoder: LoRA layers, a pooler and a head learn to rank lists.

The loss is the softmax cross-entropy over the passages of a list (ListNet with one right answer: Cao et al., ICML
2007), plus a small pointwise cross-entropy, so that logits are comparable between lists. The learning rate follows the
share of the time that has passed, so a run always ends annealed and on time.
"""

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import ListNetLoss
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from service.core.errors import Misconfigured
from service.core.logistic import Logistic
from service.embedder.models import device as devices
from service.embedder.models import pretrained, source
from service.embedder.reranker import adapter
from service.embedder.training.adapter_averaging import averaged
from service.embedder.training.ranking_lists import RankingList
from service.embedder.training.trainer import (
    Rows,
    Schedule,
    Scheduled,
    arguments,
    drawn,
    inject_lora,
    require_libraries,
)

log = logging.getLogger(__name__)

_LAYERS = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"
_CAPS, _CAP_WEIGHTS = (0.4, 0.65, 1.0), (0.35, 0.4, 0.25)
"""Shares of the longest input at which the pairs of a step are truncated, and how often. Short pairs are cheap and
teach about as much."""
_POINTWISE = 0.1
_WARM_UP = 0.04
_AVERAGE_FROM, _AVERAGE_DECAY = 0.6, 0.997
_LOG_EVERY, _SAVE_EVERY_SECONDS = 20, 300


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossEncoderRecipe:
    """`minutes`: how long to train; `steps` ends it earlier. `list_size`: passages of a list, `lists`: lists of a step.

    `start`: folder of an adapter to continue from, of the same backbone, rank and alpha; `keep`: its share in the
    outcome.
    """

    minutes: float = 60.0
    steps: int | None = None
    seed: int = 7
    backbone: str = source.BUNDLED
    start: str | None = None
    keep: float = 0.0
    rank: int = 32
    alpha: float = 64.0
    max_tokens: int = 256
    learning_rate: float = 4e-4
    list_size: int = 8
    lists: int = 8
    device: str = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossEncoderReport:
    """What a run did. `lists`: part -> lists trained on; `losses`: of each step."""

    steps: int
    lists: dict[str, int]
    tokens: int
    seconds: float
    losses: list[float]


class _Trainer(Scheduled, CrossEncoderTrainer):
    pass


class CrossEncoderTraining:
    """One run. Trained weights are float32; the frozen backbone is in the precision in which the device is fast."""

    def __init__(self, recipe: CrossEncoderRecipe) -> None:
        """ModelUnavailable if backbone or `start` cannot be loaded; Misconfigured if `start` has another shape, or a
        library is missing."""
        require_libraries()
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.device = devices.choose(recipe.device)
        self._dtype = devices.precision(self.device, "auto")
        folder = source.folder(*source.split(recipe.backbone))
        is_path = Path(recipe.backbone).is_dir()
        self._backbone = str(folder.resolve()) if is_path else source.canonical(recipe.backbone)
        self._digests = adapter.digests(folder)
        for library in ("sentence_transformers", "transformers"):  # they warn that the head is new, which is intended
            logging.getLogger(library).setLevel(logging.ERROR)
        self._chain = pretrained.load_chain(partial(CrossEncoder, num_labels=1), folder, "cpu", torch.float32)
        self._chain.max_seq_length = recipe.max_tokens
        self.model: nn.Module = self._chain[0].model
        inject_lora(self.model, _LAYERS, self._dtype, r=recipe.rank, lora_alpha=recipe.alpha)
        for name, weights in self.model.named_parameters():
            if name.startswith(adapter.FULL_LAYERS):
                weights.data = weights.data.float()
                weights.requires_grad_(True)
        self._chain.to(self.device).eval()
        if recipe.start is not None:
            self._continue_from(Path(recipe.start))
        self._weights = nn.ParameterList(weights for weights in self.model.parameters() if weights.requires_grad)
        average = get_ema_multi_avg_fn(_AVERAGE_DECAY)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(self._weights, multi_avg_fn=average)

    def run(self, lists: Iterator[RankingList], out: Path | None = None) -> CrossEncoderReport:
        """Train until the time is over. Meanwhile the adapter is saved to `out` every five minutes."""
        recipe = self.recipe
        dice = random.Random(recipe.seed)  # noqa: S311 not a secret
        parts: Counter[str] = Counter()
        tokens = 0
        schedule = Schedule(minutes=recipe.minutes, steps=recipe.steps or 2**31, warm_up=_WARM_UP, decay="cosine")
        last_saved = schedule.began

        def cap() -> None:
            share = dice.choices(_CAPS, _CAP_WEIGHTS)[0]
            self._chain.max_seq_length = round(recipe.max_tokens * share)

        def draw(count: int) -> Rows:
            batch = list(islice(lists, count))
            parts.update(one.part for one in batch)
            targets = [[math.log(max(share, 1e-12)) for share in one.target] for one in batch]  # the loss takes logits
            return {"query": [one.query for one in batch], "docs": [one.passages for one in batch], "labels": targets}

        def count(_module: nn.Module, inputs: tuple[Mapping[str, torch.Tensor], ...]) -> None:
            nonlocal tokens
            tokens += int(inputs[0]["attention_mask"].sum())

        def after_step() -> bool:
            nonlocal last_saved
            if schedule.progress >= _AVERAGE_FROM:
                self._average.update_parameters(self._weights)
            now, steps = time.monotonic(), len(schedule.losses)
            if steps % _LOG_EVERY == 0:
                figures = {
                    "step": steps,
                    "share": round(schedule.progress, 4),
                    "loss": round(sum(schedule.losses[-_LOG_EVERY:]) / _LOG_EVERY, 4),
                    "tokens_per_second": round(tokens / (now - schedule.began)),
                }
                log.info("training", extra=figures)
            if out is not None and now - last_saved >= _SAVE_EVERY_SECONDS:
                self.save(out)
                last_saved = now
            cap()
            return False

        at_once = 1 if self.device.type == "cpu" else recipe.lists  # fewer need less memory, and little padding
        args = arguments(
            CrossEncoderTrainingArguments,
            self.device,
            self._dtype,
            batch=at_once,
            rate=recipe.learning_rate,
            seed=recipe.seed,
            gradient_accumulation_steps=recipe.lists // at_once,
        )
        loss = ListNetLoss(self._chain, mini_batch_size=-1)
        loss.cross_entropy_loss = _ListLoss()
        trainer = _Trainer(model=self._chain, args=args, loss=loss, train_dataset=drawn(recipe.lists, draw))
        cap()
        counting = self._chain.register_forward_pre_hook(count)
        trainer.begin(schedule, after_step)
        counting.remove()
        self._chain.max_seq_length = recipe.max_tokens
        seconds = time.monotonic() - schedule.began
        if self._average.n_averaged:  # the running average ranks better than the last weights
            self._weights.load_state_dict(self._average.module.state_dict())
        if recipe.start is not None and recipe.keep:
            trained = adapter.extract(self.model.state_dict())
            self._copy_weights(averaged(adapter.read(Path(recipe.start)), trained, recipe.keep))
        losses = schedule.losses
        return CrossEncoderReport(steps=len(losses), lists=dict(parts), tokens=tokens, seconds=seconds, losses=losses)

    def save(self, folder: Path, calibration: Logistic = adapter.UNCALIBRATED) -> None:
        """Write the adapter with its present weights."""
        description = adapter.AdapterDescription(
            backbone=self._backbone,
            digests=self._digests,
            rank=self.recipe.rank,
            alpha=self.recipe.alpha,
            max_tokens=self.recipe.max_tokens,
            slope=calibration.weights[0],
            offset=calibration.bias,
        )
        adapter.save(folder, adapter.extract(self.model.state_dict()), description)

    def logits(self, lists: Sequence[RankingList]) -> list[list[float]]:
        """The logits of each list's passages."""
        options: dict[str, Any] = {"activation_fn": nn.Identity(), "show_progress_bar": False}
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            return [
                self._chain.predict([(one.query, text) for text in one.passages], **options).tolist() for one in lists
            ]

    def _continue_from(self, folder: Path) -> None:
        """Start with the weights of an adapter; the state of the optimizer is new."""
        description = adapter.describe(folder)
        shape = (description.digests, description.rank, description.alpha)
        if shape != (self._digests, self.recipe.rank, self.recipe.alpha):
            raise Misconfigured(f"{folder.name} has another backbone, rank or alpha: use those of the adapter")
        self._copy_weights(adapter.read(folder))

    @torch.no_grad()
    def _copy_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, target in adapter.extract(dict(self.model.named_parameters())).items():
            target.copy_(weights[name])


class _ListLoss(nn.Module):
    """Mean over the lists of the softmax cross-entropy, plus a small pointwise one. The first passage is right."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """`logits`, `targets` [lists, passages]: the end of shorter lists has a target of 0."""
        right = torch.zeros_like(logits)
        right[:, 0] = 1
        there = targets > 0
        pointwise = functional.binary_cross_entropy_with_logits(logits[there], right[there])
        return functional.cross_entropy(logits, targets) + _POINTWISE * pointwise
