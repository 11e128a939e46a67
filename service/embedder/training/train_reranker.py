"""Folders of judged documents in, a reranker's adapter out. The story of one training, from top to bottom.

Read the folders (`questions`), find wrong answers that look right (`negatives`), draw lists of both (`lists`), learn to
rank them (`crossencoder`), write the adapter and its card (`card`).
"""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from service.confidence import fit
from service.core.errors import Misconfigured
from service.core.logistic import Logistic
from service.core.vector_math import unit_rows
from service.embedder.models import batch_packing, source
from service.embedder.models import device as devices
from service.embedder.models.transformer import TransformerModel
from service.embedder.training import ranking_lists, reranker_card, reranker_data, reranker_negatives
from service.embedder.training.cross_encoder_training import (
    UNFITTED,
    CrossEncoderRecipe,
    CrossEncoderReport,
    CrossEncoderTraining,
)
from service.embedder.training.ranking_lists import Accuracy, RankingList
from service.embedder.training.reranker_data import Material, Question
from service.embedder.training.reranker_negatives import Candidates, Encode

log = logging.getLogger(__name__)

Asked = tuple[Material, Question, Candidates]

HELD_OUT_LISTS = 50
"""Of each part; so many are enough to see whether anything was learnt, and cost less than a minute."""
HELD_OUT_SIZE = 12
_SAVE_EACH_MINUTES = 5


def train(
    sources: Sequence[reranker_data.Source],
    out: Path,
    recipe: CrossEncoderRecipe,
    *,
    hold_out: float,
    command: str,
    tell: Callable[[str], None] = log.info,
) -> tuple[CrossEncoderReport, dict[str, Accuracy]]:
    """Train on what `sources` name and write adapter and card to `out`, every five minutes and at the end.

    What the run did, and how it ranks what it has not seen.

    Misconfigured with the reason where the folders do not serve; ModelUnavailable where the backbone cannot be loaded.
    """
    training = CrossEncoderTraining(
        recipe
    )  # first: what is missing on this machine should show before minutes of mining
    materials = [reranker_data.read(one, hold_out=hold_out, seed=recipe.seed) for one in sources]
    encode = encoder(recipe)
    learnt: list[Asked] = []
    held_out: list[Asked] = []
    for material in materials:
        tell(f"{material.name}: {len(material.texts):,} documents, {len(material.questions):,} questions")
        corpus = reranker_negatives.Corpus(material, encode)
        learnt += _asked(corpus, material, material.questions, material.hidden | material.foreign)
        held_out += _asked(corpus, material, _some(material.held_out), material.foreign)
    if not any(candidates.wrong for _, _, candidates in learnt):
        raise Misconfigured("there is nothing to tell apart: no question has a wrong answer beside its right ones")
    dice = random.Random(recipe.seed)  # noqa: S311 - what is drawn is no secret
    measured = list(_once(held_out, HELD_OUT_SIZE, dice))
    minutes = 0

    def each_minute(running: CrossEncoderTraining) -> None:
        nonlocal minutes
        minutes += 1
        if minutes % _SAVE_EACH_MINUTES == 0:
            running.save(out)

    tell(f"training on {training.device} for {recipe.minutes:g} minutes")
    report = training.run(endless(learnt, recipe.list_size, dice), each_minute)
    logits = training.read(measured)
    training.save(out, calibrated(logits))
    held = ranking_lists.accuracy(measured, logits)
    reranker_card.write(out, sources, materials, recipe, report, held, hold_out=hold_out, command=command)
    return report, held


def calibrated(logits: Sequence[Sequence[float]]) -> Logistic:
    """From logit to probability, by lists whose first passage is right; as it is where there are none."""
    if not logits:
        return UNFITTED
    flat = [logit for scores in logits for logit in scores]
    right = [at == 0 for scores in logits for at in range(len(scores))]
    return fit.fit_logistic(np.array(flat)[:, None], right, balanced=False)


def encoder(recipe: CrossEncoderRecipe) -> Encode:
    """Texts -> unit vectors of the backbone, as the dense leg would find with."""
    model = TransformerModel(
        source.folder(*source.split(recipe.backbone)), device=recipe.device, precision="auto", threads=0
    )

    def encode(texts: Sequence[str]) -> reranker_negatives.Vectors:
        vectors = np.zeros((len(texts), model.dimensions), dtype=np.float32)
        lengths = [min(length, model.max_tokens) for length in model.lengths(texts)]
        for batch in batch_packing.pack(lengths, devices.batch_tokens(model.device)):
            vectors[batch] = model.forward([texts[at] for at in batch], 0)
        return unit_rows(vectors)

    return encode


def endless(asked: list[Asked], size: int, dice: random.Random) -> Iterator[RankingList]:
    """All of them in random order, then again, with other wrong answers each time."""
    while True:
        dice.shuffle(asked)
        yield from _once(asked, size, dice)


def _once(asked: Sequence[Asked], size: int, dice: random.Random) -> Iterator[RankingList]:
    for material, question, candidates in asked:
        drawn = ranking_lists.draw(material, question, candidates, size, dice)
        if drawn is not None:
            yield drawn


def _asked(
    corpus: reranker_negatives.Corpus, material: Material, asked: Sequence[Question], barred: frozenset[int]
) -> list[Asked]:
    """Each question with its candidates. One that is taken several times is looked for once."""
    once = list({id(question): question for question in asked}.values())
    found = dict(zip(map(id, once), corpus.mine(once, barred), strict=True))
    return [(material, question, found[id(question)]) for question in asked]


def _some(held_out: Sequence[Question]) -> list[Question]:
    by_part = groupby(sorted(held_out, key=lambda question: question.part), key=lambda question: question.part)
    return [question for _, of_part in by_part for question in list(of_part)[:HELD_OUT_LISTS]]
