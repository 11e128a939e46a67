"""A bi-encoder learns a collection's words by contrast: one run, from mined passages to the best weights.

A tenth of the queries is put aside; wrong passages that look right are mined; frequent words that the tokenizer breaks
up become tokens; the model learns, by InfoNCE, to tell each answer from mined passages and from the answers to the
other queries of a step; after every part of the run the queries that were put aside are asked, and the best weights are
kept; these are mixed with the ones that it began with. What ranks the queries put aside best is the outcome. Among the
candidates is the model that it began with: where nothing is better, there is no new one.
"""

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from service.core.errors import Misconfigured
from service.core.ids import Role
from service.embedder.training import contrastive_loss, vocabulary
from service.embedder.training.batches import TrainingBatch, batches
from service.embedder.training.embedder_data import Pair, Passages, divide
from service.embedder.training.hard_negatives import MinedExample, Vectors, mine
from service.embedder.training.held_out import HeldOut
from service.embedder.training.lora import Adaptation
from service.embedder.training.reranker_negatives import Lexical
from service.embedder.training.teacher_labels import Teacher
from service.embedder.training.trainable_model import TrainableModel
from service.evaluation.ranking_metrics import Interval, paired_bootstrap

log = logging.getLogger(__name__)

MIXTURES = (0.5, 0.75)
"""Shares of what was learnt that are tried beside the whole of it."""
LORA_RATE, FULL_RATE, ROWS_RATE = 1e-3, 1e-4, 3e-3
_WARM_UP = 0.06
_CLIP = 1.0
_RECENT = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class BiEncoderRecipe:
    """`minutes` ends what `epochs` would make longer; then another run with the same seed may differ.

    `rank` None: all weights are learnt, not LoRA of that rank. `words`: most tokens that are added. `batch`: queries of
    a step; `negatives`: mined passages for each. `looks`: how often the queries put aside are asked; the run ends when
    `patience` looks in a row are no better. `taught`: weight of a teacher's labels.
    """

    minutes: float = 20.0
    epochs: float = 3.0
    seed: int = 7
    rank: int | None = 32
    words: int = 1_000
    batch: int = 64
    negatives: int = 1
    rate: float | None = None
    temperature: float = 0.05
    looks: int = 6
    patience: int = 2
    taught: float = 0.5

    @property
    def peak(self) -> float:
        """Learning rate at its highest."""
        return self.rate or (LORA_RATE if self.rank else FULL_RATE)


@dataclass(frozen=True, slots=True)
class ModelCandidate:
    """A model that was measured: nDCG@10 of each query that was put aside."""

    name: str
    scores: list[float]

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True, kw_only=True, slots=True)
class BiEncoderReport:
    """`candidates`: all that were measured, first the model that it began with. `chosen`: the best of them.

    `gain`: of the chosen one over the first, by paired bootstrap. `pairs`: queries learnt from, by part.
    """

    candidates: list[ModelCandidate]
    chosen: ModelCandidate
    gain: Interval
    pairs: dict[str, int]
    words: list[str]
    steps: int
    seconds: float
    losses: list[float]

    @property
    def better(self) -> bool:
        return self.chosen is not self.candidates[0]


class BiEncoderTraining:
    """One run on one collection."""

    def __init__(
        self,
        base: TrainableModel,
        passages: Passages,
        pairs: Sequence[Pair],
        recipe: BiEncoderRecipe,
        *,
        teacher: Teacher | None = None,
        tell: Callable[[str], None] = log.info,
    ) -> None:
        """`base` is changed by `run`: it becomes the outcome. Misconfigured where there is too little to learn from."""
        torch.manual_seed(recipe.seed)
        self._base, self._passages, self._recipe, self._teacher, self._tell = base, passages, recipe, teacher, tell
        self._dice = random.Random(recipe.seed)  # noqa: S311 - what is drawn is no secret
        self._learnt, self._aside = divide(pairs, self._dice)
        self._candidates: list[ModelCandidate] = []
        self._losses: list[float] = []

    def run(self) -> BiEncoderReport:
        """Afterwards `base` is the chosen model, where the report says that it is `better`; otherwise of no use."""
        began = time.monotonic()
        examples, aside = self._mined()
        self._tell(f"{len(examples):,} queries to learn from, {len(aside):,} put aside")
        held_out = HeldOut(aside, self._passages, self._recipe.seed)
        first = self._measured("as it was", held_out, self._base)
        words = vocabulary.unknown(self._passages.texts, self._base.tokenizer, self._recipe.words)
        added = vocabulary.extend(self._base, words)
        if words:
            self._tell(f"{len(words):,} words are tokens now, such as {', '.join(words[:5])}")
        adaptation = Adaptation(self._base, rank=self._recipe.rank, added=added)
        whole = self._train(adaptation, examples, held_out)
        mixed = [(0.0, first), (1.0, whole)]
        for share in MIXTURES:
            self._base.load(adaptation.state(share))
            mixed.append((share, self._measured(f"{share:.0%} of it", held_out, self._base)))
        share, chosen = max(sorted(mixed, key=lambda one: one[0]), key=lambda one: one[1].mean)
        self._base.load(adaptation.state(share))
        return BiEncoderReport(
            candidates=self._candidates,
            chosen=chosen,
            gain=paired_bootstrap(first.scores, chosen.scores),
            pairs=dict(Counter(example.pair.part for example in examples)),
            words=words,
            steps=len(self._losses),
            seconds=time.monotonic() - began,
            losses=self._losses,
        )

    # ------------------------------------------------------------ the parts of a run

    def _mined(self) -> tuple[list[MinedExample], list[MinedExample]]:
        """What is learnt from, with a teacher's labels where there is one, and what is put aside."""
        pairs = [*self._learnt, *self._aside]
        # Titles that were asked would give the right passages away.
        shown = self._passages.shown(titled=all(pair.titled for pair in pairs))
        vectors: Vectors = self._base.vectors(shown, "document")
        asked = self._base.vectors([pair.query for pair in pairs], "query")
        examples = mine(pairs, self._passages, asked, vectors, Lexical(shown))
        learnt, aside = examples[: len(self._learnt)], examples[len(self._learnt) :]
        if self._teacher is not None:
            learnt = self._teacher.label(learnt, self._passages, self._recipe.negatives, self._recipe.seed)
        return learnt, aside

    def _train(self, adaptation: Adaptation, examples: list[MinedExample], held_out: HeldOut) -> ModelCandidate:
        """The best of all looks; the adaptation is as it was then."""
        recipe = self._recipe
        steps = max(1, math.ceil(recipe.epochs * len(examples) / min(recipe.batch, len(examples))))
        optimizer = torch.optim.AdamW(adaptation.groups(recipe.peak, ROWS_RATE))
        drawn = batches(examples, self._passages, size=recipe.batch, negatives=recipe.negatives, dice=self._dice)
        best: tuple[ModelCandidate, dict[str, torch.Tensor]] | None = None
        looked = worse = 0
        start = time.monotonic()
        while worse < recipe.patience and looked < recipe.looks:
            step = len(self._losses)
            share = max(step / steps, (time.monotonic() - start) / (60 * recipe.minutes))
            if share < 1:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * schedule(share)
                self._losses.append(self._step(adaptation, optimizer, next(drawn)))
            if min(1.0, share) * recipe.looks >= looked + 1:
                looked = int(min(1.0, share) * recipe.looks)
                candidate = self._measured(f"after {len(self._losses)} steps", held_out, adaptation.chain)
                if best is None or candidate.mean > best[0].mean:
                    best, worse = (candidate, adaptation.snapshot()), 0
                else:
                    worse += 1
        assert best is not None
        adaptation.restore(best[1])
        return best[0]

    def _step(self, adaptation: Adaptation, optimizer: torch.optim.Optimizer, batch: TrainingBatch) -> float:
        optimizer.zero_grad(set_to_none=True)
        read: list[tuple[list[str], Role]] = [(batch.queries, "query"), (batch.texts, "document")]
        loss = adaptation.chain.learn(read, partial(self._loss, batch), adaptation.learnt)
        if not math.isfinite(loss):
            raise Misconfigured("training diverged: the loss is no number; a lower --learning-rate may help")
        torch.nn.utils.clip_grad_norm_(adaptation.learnt, _CLIP)
        optimizer.step()
        return loss

    def _loss(self, batch: TrainingBatch, queries: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        rivals = torch.from_numpy(batch.rivals).to(texts.device)
        loss = contrastive_loss.info_nce(queries, texts, rivals, self._recipe.temperature)
        if self._teacher is None:
            return loss
        read = texts[torch.from_numpy(batch.columns).to(texts.device)]
        logits = torch.from_numpy(batch.logits).to(texts.device)
        return loss + self._recipe.taught * contrastive_loss.distilled(queries, read, logits, self._recipe.temperature)

    def _measured(self, name: str, held_out: HeldOut, chain: TrainableModel) -> ModelCandidate:
        candidate = ModelCandidate(name, held_out.scores(chain))
        self._candidates.append(candidate)
        recent = self._losses[-_RECENT:]
        loss = f", loss {sum(recent) / len(recent):.3f}" if recent else ""
        self._tell(f"{name}: nDCG@10 {candidate.mean:.4f}{loss}")
        return candidate


def schedule(share: float) -> float:
    """Factor of the learning rate: linear warm-up, then linear to 0."""
    if share < _WARM_UP:
        return max(0.05, share / _WARM_UP)
    return max(0.0, (1 - share) / (1 - _WARM_UP))
