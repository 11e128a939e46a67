"""Train a cross-encoder on top of an encoder: LoRA layers, a pooler and a head learn to rank lists.

The loss is the softmax cross-entropy over the passages of a list (ListNet with one right answer: Cao et al., ICML
2007), plus a small pointwise cross-entropy, so that logits are comparable between lists. The learning rate follows the
share of the time that has passed, so a run always ends annealed and on time.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from service.core.errors import Misconfigured
from service.core.logistic import Logistic
from service.embedder.models import device as devices
from service.embedder.models import source
from service.embedder.models.batch_packing import pack
from service.embedder.reranker import adapter
from service.embedder.training.adapter_averaging import averaged
from service.embedder.training.optimization import (
    cast_frozen,
    inject_lora,
    learning_rate_factor,
    map_in_threads,
    optimizer_step,
)
from service.embedder.training.ranking_lists import RankingList

log = logging.getLogger(__name__)

_LAYERS = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"
_CAPS, _CAP_WEIGHTS = (0.4, 0.65, 1.0), (0.35, 0.4, 0.25)
"""Shares of the longest input at which the pairs of a list are truncated, and how often. Short pairs are cheap and
teach about as much."""
_POINTWISE = 0.1
_PASS_TOKENS = 1024
"""Padded tokens of one forward pass in one thread of a CPU: enough for fast products, few enough for little padding."""
_WARM_UP = 0.04
_AVERAGE_FROM, _AVERAGE_DECAY = 0.6, 0.997
_LOG_EVERY, _SAVE_EVERY_SECONDS = 20, 300


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossEncoderRecipe:
    """`minutes`: how long to train; `steps` ends it earlier. `list_size`: passages of a list, `lists`: lists of a step.

    `start`: folder of an adapter to continue from, of the same backbone, rank and alpha; `keep`: its share in the
    outcome. `pass_tokens`: padded tokens of one forward pass; a step has several.
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
    pass_tokens: int | None = None
    device: str = "auto"
    threads: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossEncoderReport:
    """What a run did. `lists`: part -> lists trained on; `losses`: of each step."""

    steps: int
    lists: dict[str, int]
    tokens: int
    seconds: float
    losses: list[float]


class CrossEncoderTraining:
    """One run. Trained weights are float32; the frozen backbone is in the precision in which the device is fast."""

    def __init__(self, recipe: CrossEncoderRecipe) -> None:
        """ModelUnavailable if backbone or `start` cannot be loaded; Misconfigured if `start` has another shape, or the
        library for LoRA is missing."""
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.device = devices.choose(recipe.device)
        self._threads = (recipe.threads or torch.get_num_threads()) if self.device.type == "cpu" else 1
        self._dtype = devices.precision(self.device, "auto")
        fit = _PASS_TOKENS if self._threads > 1 else devices.batch_tokens(self.device)
        self._pass_tokens = recipe.pass_tokens or fit
        folder = source.folder(*source.split(recipe.backbone))
        is_path = Path(recipe.backbone).is_dir()
        self._backbone = str(folder.resolve()) if is_path else source.canonical(recipe.backbone)
        self._digests = adapter.digests(folder)
        self._tokenizer = adapter.tokenizer_of(folder)
        self.model = self._with_lora(folder)
        self._trained = [weights for weights in self.model.parameters() if weights.requires_grad]
        if recipe.start is not None:
            self._continue_from(Path(recipe.start))
        self._weights = nn.ParameterList(self._trained)
        average = get_ema_multi_avg_fn(_AVERAGE_DECAY)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(self._weights, multi_avg_fn=average)
        self._optimizer = torch.optim.AdamW(self._trained, lr=recipe.learning_rate, weight_decay=0.01)

    def run(self, lists: Iterator[RankingList], out: Path | None = None) -> CrossEncoderReport:
        """Train until the time is over. Meanwhile the adapter is saved to `out` every five minutes."""
        recipe = self.recipe
        dice = random.Random(recipe.seed)  # noqa: S311 not a secret
        parts: Counter[str] = Counter()
        losses: list[float] = []
        tokens = 0
        start = last_logged = last_saved = time.monotonic()
        while (progress := self._progress(start, len(losses))) < 1:
            batch = [next(lists) for _ in range(recipe.lists)]
            for group in self._optimizer.param_groups:
                group["lr"] = recipe.learning_rate * learning_rate_factor(progress, warm_up=_WARM_UP, decay="cosine")
            loss, count = self._step(batch, dice)
            parts.update(one.part for one in batch)
            losses.append(loss)
            tokens += count
            if progress >= _AVERAGE_FROM:
                self._average.update_parameters(self._weights)
            now = time.monotonic()
            if len(losses) % _LOG_EVERY == 0:
                figures = {
                    "step": len(losses),
                    "share": round(progress, 4),
                    "loss": round(sum(losses[-_LOG_EVERY:]) / _LOG_EVERY, 4),
                    "tokens_per_second": round(tokens / (now - start)),
                    "step_seconds": round((now - last_logged) / _LOG_EVERY, 2),
                }
                log.info("training", extra=figures)
                last_logged = now
            if out is not None and now - last_saved >= _SAVE_EVERY_SECONDS:
                self.save(out)
                last_saved = time.monotonic()
        seconds = time.monotonic() - start
        if self._average.n_averaged:  # the running average ranks better than the last weights
            self._weights.load_state_dict(self._average.module.state_dict())
        if recipe.start is not None and recipe.keep:
            trained = adapter.extract(self.model.state_dict())
            self._copy_weights(averaged(adapter.read(Path(recipe.start)), trained, recipe.keep))
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

    @torch.no_grad()
    def logits(self, lists: Sequence[RankingList]) -> list[list[float]]:
        """The logits of each list's passages."""
        return [self._logits([self._encode(one, self.recipe.max_tokens)])[0].tolist() for one in lists]

    def _with_lora(self, folder: Path) -> nn.Module:
        # Without dropout: training takes less than one pass over the data, so it cannot overfit.
        model = adapter.cross_encoder(folder).eval()
        inject_lora(model, _LAYERS, rank=self.recipe.rank, alpha=self.recipe.alpha)
        for name, weights in model.named_parameters():
            if name.startswith(adapter.FULL_LAYERS):
                weights.requires_grad_(True)
        cast_frozen(model, self._dtype)
        return model.to(self.device)

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

    def _progress(self, start: float, steps: int) -> float:
        by_steps = steps / self.recipe.steps if self.recipe.steps else 0.0
        return max(by_steps, (time.monotonic() - start) / (60 * self.recipe.minutes))

    def _step(self, batch: Sequence[RankingList], dice: random.Random) -> tuple[float, int]:
        """One update of the weights: its loss and the number of tokens.

        The losses of lists are independent, so on a CPU each list is a job of its own for the next free thread, longest
        first; see `map_in_threads`.
        """
        caps = [round(self.recipe.max_tokens * dice.choices(_CAPS, _CAP_WEIGHTS)[0]) for _ in batch]
        encoded = [self._encode(one, cap) for one, cap in zip(batch, caps, strict=True)]
        tokens = [sum(len(pair["input_ids"]) for pair in pairs) for pairs in encoded]
        longest_first = sorted(range(len(batch)), key=lambda at: -tokens[at])
        jobs = [longest_first] if self._threads == 1 else [[at] for at in longest_first]

        def gradients(job: Sequence[int]) -> tuple[float, Sequence[torch.Tensor]]:
            logits = self._logits([encoded[at] for at in job])
            loss = list_loss(logits, [batch[at].target for at in job]) * (len(job) / len(batch))
            return float(loss.detach()), torch.autograd.grad(loss, self._trained)

        done = map_in_threads(self._threads, gradients, jobs)
        for at, weights in enumerate(self._trained):
            weights.grad = torch.stack([found[at] for _, found in done]).sum(0) if len(done) > 1 else done[0][1][at]
        loss = sum(part for part, _ in done)
        optimizer_step(self._optimizer, self._trained, loss)
        return loss, sum(tokens)

    def _encode(self, one: RankingList, cap: int) -> list[dict[str, list[int]]]:
        found = self._tokenizer([one.query] * len(one.passages), one.passages, truncation=True, max_length=cap)
        return [{name: found[name][at] for name in found} for at in range(len(one.passages))]

    def _logits(self, lists: Sequence[Sequence[dict[str, list[int]]]]) -> list[torch.Tensor]:
        """One vector of logits for each list, in float32. Pairs of similar length of all lists share a pass."""
        pairs = list(chain.from_iterable(lists))
        batches = pack([len(pair["input_ids"]) for pair in pairs], self._pass_tokens)
        parts = []
        for batch in batches:
            inputs = self._tokenizer.pad([pairs[at] for at in batch], return_tensors="pt").to(self.device)
            with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
                parts.append(self.model(**inputs).logits[:, 0].float())
        order = torch.tensor(list(chain.from_iterable(batches)), device=self.device)
        return list(torch.split(torch.cat(parts)[torch.argsort(order)], [len(one) for one in lists]))


def list_loss(logits: Sequence[torch.Tensor], targets: Sequence[Sequence[float]]) -> torch.Tensor:
    """Mean over the lists of the softmax cross-entropy, plus a small pointwise one."""
    losses = []
    for scores, target in zip(logits, targets, strict=True):
        right = torch.zeros_like(scores)
        right[0] = 1.0
        listwise = functional.cross_entropy(scores, torch.tensor(target, device=scores.device))
        losses.append(listwise + _POINTWISE * functional.binary_cross_entropy_with_logits(scores, right))
    return torch.stack(losses).mean()
