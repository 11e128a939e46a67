"""A cross-encoder out of an encoder: LoRA layers, a pooler and a head, trained to rank lists.

The loss is the softmax cross-entropy over the passages of a list (ListNet with one right answer: Cao et al., ICML
2007), with a target that leaves some probability to what the first stage would have put on top, and a little pointwise
cross-entropy, so that a logit means something between lists too. The learning rate follows the share of the time that
has passed, not a number of steps: a run ends annealed and when it was told to, whatever else the machine does.
"""

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from service.core.errors import Misconfigured
from service.core.logistic import Logistic
from service.embedder.models import device as devices
from service.embedder.models import source
from service.embedder.reranker import adapter
from service.embedder.training.adapter_averaging import mixed
from service.embedder.training.ranking_lists import RankingList

log = logging.getLogger(__name__)

_LAYERS = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"
_CAPS, _CAP_WEIGHTS = (0.4, 0.65, 1.0), (0.35, 0.4, 0.25)
"""Shares of the longest input at which a list's pairs are cut, and how often: short ones are cheap and teach alike."""
_POINTWISE = 0.1
_PASS_TOKENS = 1024
"""Padded tokens of one forward pass in one thread of a CPU: enough for its products to be fast, few to be padding."""
_WARM_UP = 0.04
_AVERAGE_FROM, _AVERAGE_DECAY = 0.6, 0.997
_CLIP = 1.0
_SAY_EVERY = 20
UNFITTED = Logistic(weights=(1.0,), bias=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossEncoderRecipe:
    """`minutes`: how long to train; `steps` ends it earlier. `list_size`: passages of a list, `lists`: lists of a step.
    `start`: folder of an adapter to go on from, of the same backbone, rank and alpha; `keep`: its share in the outcome.

    `pass_tokens`: padded tokens of one forward pass; a step is several.
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
    """What a run did. `lists`: part -> lists seen; `losses`: of each step."""

    steps: int
    lists: dict[str, int]
    tokens: int
    seconds: float
    losses: list[float]


class CrossEncoderTraining:
    """One run. Weights in training are float32; the frozen backbone is in the precision that the device is fast in."""

    def __init__(self, recipe: CrossEncoderRecipe) -> None:
        """ModelUnavailable where backbone or `start` cannot be loaded; Misconfigured where `start` is of another shape,
        or the library that adds LoRA is missing."""
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.device = devices.choose(recipe.device)
        threads = (recipe.threads or torch.get_num_threads()) if self.device.type == "cpu" else 1
        self._pool = (
            ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) if threads > 1 else None
        )
        self._dtype = devices.precision(self.device, "auto")
        self._pass_tokens = recipe.pass_tokens or (_PASS_TOKENS if self._pool else devices.batch_tokens(self.device))
        folder = source.folder(*source.split(recipe.backbone))
        named_by_path = Path(recipe.backbone).is_dir()
        self._backbone = str(folder.resolve()) if named_by_path else source.canonical(recipe.backbone)
        self._digests = adapter.digests(folder)
        self._tokenizer = adapter.tokenizer_of(folder)
        self.model = self._adapted(folder)
        self._learnt = [weights for weights in self.model.parameters() if weights.requires_grad]
        if recipe.start is not None:
            self._go_on_from(Path(recipe.start))
        self._average: list[torch.Tensor] | None = None
        self._optimizer = torch.optim.AdamW(self._learnt, lr=recipe.learning_rate, weight_decay=0.01)

    def run(
        self,
        lists: Iterator[RankingList],
        each_minute: Callable[["CrossEncoderTraining"], None] = lambda training: None,
    ) -> CrossEncoderReport:
        """Train until the time is over. `each_minute` is called about once a minute, between two steps."""
        recipe = self.recipe
        dice = random.Random(recipe.seed)  # noqa: S311 - what is drawn is no secret
        seen: Counter[str] = Counter()
        losses: list[float] = []
        tokens = steps = 0
        start = last_said = last_called = time.monotonic()
        self.model.train()
        while (share := self._share(start, steps)) < 1:
            batch = [next(lists) for _ in range(recipe.lists)]
            for group in self._optimizer.param_groups:
                group["lr"] = recipe.learning_rate * schedule(share)
            loss, count = self._step(batch, dice)
            seen.update(one.part for one in batch)
            losses.append(loss)
            tokens, steps = tokens + count, steps + 1
            if share >= _AVERAGE_FROM:
                self._take_average()
            now = time.monotonic()
            if steps % _SAY_EVERY == 0:
                recent = sum(losses[-_SAY_EVERY:]) / _SAY_EVERY
                log.info(
                    "training",
                    extra={
                        "step": steps,
                        "share": round(share, 4),
                        "loss": round(recent, 4),
                        "tokens_per_second": round(tokens / (now - start)),
                        "step_seconds": round((now - last_said) / _SAY_EVERY, 2),
                    },
                )
                last_said = now
            if now - last_called >= 60:
                each_minute(self)
                last_called = time.monotonic()
        seconds = time.monotonic() - start
        self.use_average()
        if recipe.start is not None and recipe.keep:
            learnt = adapter.extract(self.model.state_dict())
            self._take_over(mixed(adapter.read(Path(recipe.start)), learnt, recipe.keep))
        return CrossEncoderReport(
            steps=steps,
            lists=dict(seen),
            tokens=tokens,
            seconds=seconds,
            losses=losses,
        )

    def save(self, folder: Path, calibration: Logistic = UNFITTED) -> None:
        """Write the adapter as it is now."""
        adapter.save(
            folder,
            adapter.extract(self.model.state_dict()),
            adapter.AdapterDescription(
                backbone=self._backbone,
                digests=self._digests,
                rank=self.recipe.rank,
                alpha=self.recipe.alpha,
                max_tokens=self.recipe.max_tokens,
                slope=calibration.weights[0],
                offset=calibration.bias,
            ),
        )

    def use_average(self) -> None:
        """Go on with the running average of the weights: it ranks better than the last of them."""
        for weights, average in zip(self._learnt, self._average or (), strict=False):
            weights.data.copy_(average)

    @torch.no_grad()
    def read(self, lists: Sequence[RankingList]) -> list[list[float]]:
        """The logits of each list's passages."""
        self.model.eval()
        found = [self._logits([self._encode(one, self.recipe.max_tokens)])[0].tolist() for one in lists]
        self.model.train()
        return found

    def _adapted(self, folder: Path) -> nn.Module:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise Misconfigured("training needs peft: pip install 'azimuth-search[train]'") from error
        model = adapter.cross_encoder(folder)
        for weights in model.parameters():
            weights.requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # less than one pass over the material: nothing is learnt by heart
        layers = LoraConfig(r=self.recipe.rank, lora_alpha=self.recipe.alpha, target_modules=_LAYERS)
        inject_adapter_in_model(layers, model)
        for name, weights in model.named_parameters():
            if name.startswith(adapter.WHOLE):
                weights.requires_grad_(True)
            if not weights.requires_grad:
                weights.data = weights.data.to(self._dtype)
        return model.to(self.device)

    def _go_on_from(self, folder: Path) -> None:
        """Take over the weights of an adapter; the optimiser begins anew."""
        told = adapter.describe(folder)
        if (told.digests, told.rank, told.alpha) != (self._digests, self.recipe.rank, self.recipe.alpha):
            raise Misconfigured(f"{folder.name} has another backbone, rank or alpha: go on with its own")
        self._take_over(adapter.read(folder))

    @torch.no_grad()
    def _take_over(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, target in adapter.extract(dict(self.model.named_parameters())).items():
            target.copy_(weights[name])

    def _share(self, start: float, steps: int) -> float:
        """How much of the run is over."""
        by_time = (time.monotonic() - start) / (60 * self.recipe.minutes)
        return max(by_time, steps / self.recipe.steps) if self.recipe.steps else by_time

    def _step(self, batch: Sequence[RankingList], dice: random.Random) -> tuple[float, int]:
        """One update of the weights: its loss, and how many tokens were read.

        A list's loss is its own affair, so on a CPU each list is one job, taken by whichever thread is free. With all
        threads in one product they would wait for each other at every layer, and for whatever else a core is doing.
        """
        caps = [round(self.recipe.max_tokens * dice.choices(_CAPS, _CAP_WEIGHTS)[0]) for _ in batch]
        encoded = [self._encode(one, cap) for one, cap in zip(batch, caps, strict=True)]
        tokens = [sum(len(pair["input_ids"]) for pair in pairs) for pairs in encoded]
        if self._pool is None:
            jobs = [list(range(len(batch)))]
        else:
            jobs = [[at] for at in sorted(range(len(batch)), key=lambda at: -tokens[at])]

        def gradients(job: Sequence[int]) -> tuple[float, Sequence[torch.Tensor]]:
            logits = self._logits([encoded[at] for at in job])
            loss = loss_of(logits, [batch[at].target for at in job]) * (len(job) / len(batch))
            return float(loss.detach()), torch.autograd.grad(loss, self._learnt)

        done = list(map(gradients, jobs)) if self._pool is None else list(self._pool.map(gradients, jobs))
        loss = sum(part for part, _ in done)
        if not math.isfinite(loss):
            raise Misconfigured("training diverged: the loss is no number; a lower --learning-rate may help")
        for at, weights in enumerate(self._learnt):
            weights.grad = torch.stack([found[at] for _, found in done]).sum(0) if len(done) > 1 else done[0][1][at]
        nn.utils.clip_grad_norm_(self._learnt, _CLIP)
        self._optimizer.step()
        return loss, sum(tokens)

    def _encode(self, one: RankingList, cap: int) -> list[dict[str, list[int]]]:
        found = self._tokenizer([one.query] * len(one.passages), one.passages, truncation=True, max_length=cap)
        return [{name: found[name][at] for name in found} for at in range(len(one.passages))]

    def _logits(self, lists: Sequence[Sequence[dict[str, list[int]]]]) -> list[torch.Tensor]:
        """One vector of logits a list, in float32.

        The pairs of all lists are sorted by length and read in several passes, so that few tokens are padding.
        """
        pairs = [pair for one in lists for pair in one]
        order = sorted(range(len(pairs)), key=lambda at: -len(pairs[at]["input_ids"]))
        parts: list[torch.Tensor] = []
        done = 0
        while done < len(order):
            longest = len(pairs[order[done]]["input_ids"])
            taken = order[done : done + max(1, self._pass_tokens // longest)]
            inputs = self._padded([pairs[at] for at in taken], longest)
            with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
                parts.append(self.model(**inputs).logits[:, 0].float())
            done += len(taken)
        flat = torch.cat(parts)[torch.argsort(torch.tensor(order, device=self.device))]
        return list(torch.split(flat, [len(one) for one in lists]))

    def _padded(self, pairs: Sequence[dict[str, list[int]]], longest: int) -> dict[str, torch.Tensor]:
        """Input tensors, [pairs, longest]. Padding is all zeros: what it says is masked."""
        return {
            name: torch.tensor([pair[name] + [0] * (longest - len(pair[name])) for pair in pairs], device=self.device)
            for name in pairs[0]
        }

    @torch.no_grad()
    def _take_average(self) -> None:
        if self._average is None:
            self._average = [weights.detach().clone() for weights in self._learnt]
        for average, weights in zip(self._average, self._learnt, strict=True):
            average.lerp_(weights, 1 - _AVERAGE_DECAY)


def loss_of(logits: Sequence[torch.Tensor], targets: Sequence[Sequence[float]]) -> torch.Tensor:
    """Mean over the lists of softmax cross-entropy, plus a little of the pointwise one."""
    total = torch.zeros((), device=logits[0].device)
    for scores, target in zip(logits, targets, strict=True):
        wanted = torch.tensor(target, device=scores.device)
        right = torch.zeros_like(wanted)
        right[0] = 1.0
        total = total - (wanted * functional.log_softmax(scores, dim=0)).sum()
        total = total + _POINTWISE * functional.binary_cross_entropy_with_logits(scores, right)
    return total / len(logits)


def schedule(share: float) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine to 0."""
    if share < _WARM_UP:
        return max(0.02, share / _WARM_UP)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - _WARM_UP) / (1 - _WARM_UP))))
