"""Train a reranker's adapter on folders of judged documents: the steps of one training, from top to bottom.

Read the folders (`reranker_data`), mine hard negatives (`hard_negatives`), draw lists (`ranking_lists`), learn to rank
them (`cross_encoder_training`), write the adapter and its card (`model_card`).
"""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from service.confidence import fit
from service.core.errors import Misconfigured
from service.core.logistic import Logistic
from service.embedder.models import device as devices
from service.embedder.models import source
from service.embedder.models.pretrained import load_chain
from service.embedder.reranker.adapter import UNCALIBRATED
from service.embedder.training import model_card, ranking_lists, reranker_data
from service.embedder.training.cross_encoder_training import (
    CrossEncoderRecipe,
    CrossEncoderReport,
    CrossEncoderTraining,
)
from service.embedder.training.hard_negatives import CandidateIndex, Encode, RankedNegatives, mine_documents
from service.embedder.training.ranking_lists import Accuracy, RankingList

log = logging.getLogger(__name__)

HELD_OUT_LISTS = 50
"""Of each part: enough to see whether anything was learned, in less than a minute."""
HELD_OUT_SIZE = 12


def train(
    sources: Sequence[reranker_data.Source],
    out: Path,
    recipe: CrossEncoderRecipe,
    *,
    hold_out: float,
    command: str,
    notify: Callable[[str], None] = log.info,
) -> tuple[CrossEncoderReport, dict[str, Accuracy]]:
    """Train on `sources` and write adapter and card to `out`, every five minutes and at the end.

    Returns what the run did and how it ranks held-out lists. Misconfigured with the reason if the folders cannot be
    used; ModelUnavailable if the backbone cannot be loaded.
    """
    training = CrossEncoderTraining(recipe)  # first: it fails early if something is missing on this machine
    materials = [reranker_data.read(one, hold_out=hold_out, seed=recipe.seed) for one in sources]
    encode = backbone_encoder(recipe)
    learned: list[RankedNegatives] = []
    held_out: list[RankedNegatives] = []
    for material in materials:
        notify(f"{material.name}: {len(material.texts):,} documents, {len(material.queries):,} questions")
        passages = [material.passage(at, titled=True) for at in range(len(material.texts))]
        index = CandidateIndex(passages, encode(passages))
        learned += mine_documents(material.queries, material, index, encode, material.hidden | material.foreign)
        by_part = groupby(sorted(material.held_out, key=attrgetter("part")), attrgetter("part"))
        first = [query for _, of_part in by_part for query in islice(of_part, HELD_OUT_LISTS)]
        held_out += mine_documents(first, material, index, encode, material.foreign)
    if not any(one.wrong for one in learned):
        raise Misconfigured("there is nothing to tell apart: no question has a wrong answer beside its right ones")
    dice = random.Random(recipe.seed)  # noqa: S311 not a secret
    measured = list(_draw(held_out, HELD_OUT_SIZE, dice))
    notify(f"training on {training.device} for {recipe.minutes:g} minutes")
    report = training.run(_draw_endlessly(learned, recipe.list_size, dice), out)
    logits = training.logits(measured)
    training.save(out, calibrated(logits))
    accuracy = ranking_lists.accuracy(measured, logits)
    model_card.write_reranker_card(
        out, sources, materials, recipe, report, accuracy, hold_out=hold_out, command=command
    )
    return report, accuracy


def calibrated(logits: Sequence[Sequence[float]]) -> Logistic:
    """The calibration from logit to probability, by lists whose first passage is right; none without lists."""
    if not logits:
        return UNCALIBRATED
    flat = [logit for scores in logits for logit in scores]
    right = [at == 0 for scores in logits for at in range(len(scores))]
    return fit.fit_logistic(np.array(flat)[:, None], right, balanced=False)


def backbone_encoder(recipe: CrossEncoderRecipe) -> Encode:
    """Texts -> unit vectors of the backbone, as a dense leg would search with."""
    device = devices.choose(recipe.device)
    folder = source.folder(*source.split(recipe.backbone))
    model = load_chain(SentenceTransformer, folder, str(device), devices.precision(device, "auto"))
    return lambda texts: model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


def _draw_endlessly(queries: list[RankedNegatives], size: int, dice: random.Random) -> Iterator[RankingList]:
    """A list for each query in random order, then again, with other negatives each time."""
    while True:
        dice.shuffle(queries)
        yield from _draw(queries, size, dice)


def _draw(queries: Sequence[RankedNegatives], size: int, dice: random.Random) -> Iterator[RankingList]:
    return filter(None, (ranking_lists.draw(one, size, dice) for one in queries))
