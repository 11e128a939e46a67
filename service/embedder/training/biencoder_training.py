"""Adapt a bi-encoder to a collection by contrastive learning: one run, from mining to the best weights.

Queries are held out, hard negatives mined, and frequent names that the tokenizer splits become tokens. The model learns
by InfoNCE and is evaluated on the held-out queries after each part of the run; mixtures of the best weights with the
original ones are evaluated too. The best candidate is the outcome, which may be the original model.
"""

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from service.embedder.training import vocabulary
from service.embedder.training.batches import columns, examples_of_steps
from service.embedder.training.contrastive_loss import ContrastiveLoss
from service.embedder.training.embedder_data import Passages, hold_out
from service.embedder.training.hard_negatives import CandidateIndex, MinedExample, mine_passages
from service.embedder.training.held_out import HeldOut
from service.embedder.training.lora import Adaptation
from service.embedder.training.teacher_labels import Teacher
from service.embedder.training.trainable_model import State, TrainableModel
from service.embedder.training.trainer import Schedule, Scheduled, arguments, drawn
from service.embedder.training.training_queries import TrainingQuery
from service.evaluation.ranking_metrics import MeanInterval, paired_bootstrap

log = logging.getLogger(__name__)

MIXTURES = (0.5, 0.75)
"""Shares of the trained weights that are evaluated beside the whole of them."""
LORA_RATE, FULL_RATE, ROWS_RATE = 1e-3, 1e-4, 3e-3
_WARM_UP, _RECENT_STEPS = 0.06, 20


@dataclass(frozen=True, kw_only=True, slots=True)
class BiEncoderRecipe:
    """`minutes` ends a run that `epochs` would make longer; then another run with the same seed may differ.

    `rank` None: all weights are trained, without LoRA. `words`: most added tokens. `batch`: queries of a step;
    `negatives`: mined passages for each. `looks`: number of evaluations; the run ends after `patience` in a row without
    improvement. `taught`: weight of a teacher's labels.
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
        """The highest learning rate."""
        return self.rate or (LORA_RATE if self.rank else FULL_RATE)


@dataclass(frozen=True, slots=True)
class ModelCandidate:
    """An evaluated model: nDCG@10 of each held-out query."""

    name: str
    scores: list[float]

    @property
    def mean(self) -> float:
        return fmean(self.scores)


@dataclass(frozen=True, kw_only=True, slots=True)
class BiEncoderReport:
    """`candidates`: all evaluated models, first the original one. `chosen`: the best of them.

    `gain`: of the chosen one over the original, by paired bootstrap. `pairs`: training queries by part.
    """

    candidates: list[ModelCandidate]
    chosen: ModelCandidate
    gain: MeanInterval
    pairs: dict[str, int]
    words: list[str]
    steps: int
    seconds: float
    losses: list[float]

    @property
    def better(self) -> bool:
        return self.chosen is not self.candidates[0]


class _Trainer(Scheduled, SentenceTransformerTrainer):
    pass


class BiEncoderTraining:
    """One run on one collection."""

    def __init__(
        self,
        base: TrainableModel,
        passages: Passages,
        queries: Sequence[TrainingQuery],
        recipe: BiEncoderRecipe,
        *,
        teacher: Teacher | None = None,
        notify: Callable[[str], None] = log.info,
    ) -> None:
        """`base` is changed by `run` and becomes the outcome. Misconfigured if there is too little to learn from."""
        torch.manual_seed(recipe.seed)
        self._base, self._passages, self._recipe, self._teacher, self._notify = base, passages, recipe, teacher, notify
        self._dice = random.Random(recipe.seed)  # noqa: S311 not a secret
        self._learned, self._held_out = hold_out(queries, self._dice)
        self._candidates: list[ModelCandidate] = []
        self._losses: list[float] = []

    def run(self) -> BiEncoderReport:
        """Afterwards `base` is the chosen model if the report says that it is `better`; otherwise it is unusable."""
        began = time.monotonic()
        examples, held_out_examples = self._mine()
        self._notify(f"{len(examples):,} queries to learn from, {len(held_out_examples):,} put aside")
        held_out = HeldOut(held_out_examples, self._passages, self._recipe.seed)
        original = self._evaluate("as it was", held_out, self._base)
        words = vocabulary.unknown_names(self._passages.texts, self._base.tokenizer, self._recipe.words)
        added = vocabulary.add_tokens(self._base, words)
        if words:
            self._notify(f"{len(words):,} words are tokens now, such as {', '.join(words[:5])}")
        adaptation = Adaptation(self._base, rank=self._recipe.rank, added=added)
        shares = {0.0: original, 1.0: self._train(adaptation, examples, held_out)}
        for share in MIXTURES:
            self._base.load(adaptation.state(share))
            shares[share] = self._evaluate(f"{share:.0%} of it", held_out, self._base)
        best = max(sorted(shares), key=lambda share: shares[share].mean)
        self._base.load(adaptation.state(best))
        return BiEncoderReport(
            candidates=self._candidates,
            chosen=shares[best],
            gain=paired_bootstrap(original.scores, shares[best].scores),
            pairs=dict(Counter(example.query.part for example in examples)),
            words=words,
            steps=len(self._losses),
            seconds=time.monotonic() - began,
            losses=self._losses,
        )

    def _mine(self) -> tuple[list[MinedExample], list[MinedExample]]:
        """Examples to learn from, with a teacher's labels if there is one, and held-out ones."""
        queries = [*self._learned, *self._held_out]
        # If titles are queries, passages with titles would give the right ones away.
        shown = self._passages.shown(titled=all(query.titled for query in queries))
        index = CandidateIndex(shown, self._base.vectors(shown, "document"))
        vectors = self._base.vectors([query.text for query in queries], "query")
        examples = mine_passages(queries, vectors, self._passages, index)
        learned, held_out = examples[: len(self._learned)], examples[len(self._learned) :]
        if self._teacher is not None:
            learned = self._teacher.label(learned, self._passages, self._recipe.negatives, self._recipe.seed)
        return learned, held_out

    def _train(self, adaptation: Adaptation, examples: list[MinedExample], held_out: HeldOut) -> ModelCandidate:
        """The best candidate of all evaluations; the adaptation has its weights afterwards."""
        recipe, model = self._recipe, adaptation.model
        size = min(recipe.batch, len(examples))
        of_steps = examples_of_steps(examples, size, self._dice)
        schedule = Schedule(
            minutes=recipe.minutes,
            steps=max(1, math.ceil(recipe.epochs * len(examples) / size)),
            warm_up=_WARM_UP,
            decay="linear",
            losses=self._losses,
        )
        prompts = {"query": model.prompts["query"]}
        prompts |= dict.fromkeys(("answer", *(f"wrong_{n}" for n in range(1, 17))), model.prompts["document"])
        args = arguments(
            SentenceTransformerTrainingArguments,
            model.device,
            model.dtype,
            batch=size,
            rate=recipe.peak,
            seed=recipe.seed,
            prompts=prompts,
            learning_rate_mapping=dict.fromkeys(adaptation.rows, ROWS_RATE),
        )
        trainer = _Trainer(
            model=model.chain,
            args=args,
            loss=ContrastiveLoss(model.chain, recipe.temperature, recipe.taught if self._teacher else 0.0),
            train_dataset=drawn(size, lambda _: columns(next(of_steps), self._passages, recipe.negatives, self._dice)),
        )
        best: list[tuple[ModelCandidate, State]] = []
        evaluated = without_gain = 0

        def evaluate() -> bool:
            """Whether the run should end, as the last evaluations showed no gain."""
            nonlocal evaluated, without_gain
            if (due := int(min(1.0, schedule.progress) * recipe.looks)) > evaluated:
                evaluated = due
                candidate = self._evaluate(f"after {len(self._losses)} steps", held_out, model)
                without_gain += 1
                if not best or candidate.mean > best[-1][0].mean:
                    best[:], without_gain = [(candidate, adaptation.snapshot())], 0
            return without_gain >= recipe.patience

        trainer.begin(schedule, evaluate)
        ((candidate, weights),) = best
        adaptation.restore(weights)
        return candidate

    def _evaluate(self, name: str, held_out: HeldOut, model: TrainableModel) -> ModelCandidate:
        candidate = ModelCandidate(name, held_out.scores(model))
        self._candidates.append(candidate)
        recent = self._losses[-_RECENT_STEPS:]
        loss = f", loss {fmean(recent):.3f}" if recent else ""
        self._notify(f"{name}: nDCG@10 {candidate.mean:.4f}{loss}")
        return candidate
