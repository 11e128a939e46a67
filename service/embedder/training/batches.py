"""The batch of one contrastive step: queries, passages, and which passage is a negative of which query."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.embedder.training.embedder_data import Passages
from service.embedder.training.hard_negatives import MinedExample


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """`texts`: first the answer of each query, then the mined negatives drawn for them.

    `negatives` [queries, texts]: true if a text is a wrong answer to a query, its own or that of another. `columns`
    [queries, k]: the answer and the drawn negatives of each query among the texts; `logits` [queries, k]: those of a
    teacher for them, NaN for queries without any.
    """

    queries: list[str]
    texts: list[str]
    negatives: npt.NDArray[np.bool_]
    columns: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]


def batches(
    examples: Sequence[MinedExample], passages: Passages, *, size: int, negatives: int, dice: random.Random
) -> Iterator[TrainingBatch]:
    """Endless; each example comes once before any comes again, except those that do not fill a batch."""
    size = min(size, len(examples))
    while True:
        order = dice.sample(examples, len(examples))
        for start in range(0, len(order) - size + 1, size):
            yield batch(order[start : start + size], passages, negatives, dice)


def batch(examples: Sequence[MinedExample], passages: Passages, negatives: int, dice: random.Random) -> TrainingBatch:
    """`negatives`: mined passages drawn for each query; those that a teacher labelled are taken as they are."""
    texts = [one.query.answer or passages.shown(titled=one.query.titled)[one.passage] for one in examples]
    documents = [passages.documents[one.passage] for one in examples]
    width = 1 + max(negatives, *(len(one.wrong) for one in examples if one.logits), 0)
    columns = np.tile(np.arange(len(examples))[:, None], width)
    logits = np.full((len(examples), width), np.nan, np.float32)
    doubtful: list[tuple[int, int]] = []
    for row, one in enumerate(examples):
        drawn = one.wrong if one.logits else dice.sample(one.wrong, min(negatives, len(one.wrong)))
        for column, at in enumerate(drawn, start=1):
            columns[row, column] = len(texts)
            if one.logits and one.logits[column] >= one.logits[0]:
                doubtful.append((row, len(texts)))
            texts.append(passages.shown(titled=one.query.titled)[at])
            documents.append(passages.documents[at])
        if one.logits and len(one.logits) == width:
            logits[row] = one.logits
    wrong = np.array([_negatives_of(one, documents, passages) for one in examples])
    for row, column in doubtful:
        wrong[row, column] = False
    return TrainingBatch([one.query.text for one in examples], texts, wrong, columns, logits)


def _negatives_of(example: MinedExample, documents: Sequence[int], passages: Passages) -> list[bool]:
    """Documents with the title of a right one may be answers too, so they are no negatives."""
    right = example.query.right
    same = {passages.titles[document] for document in right} - {""}
    return [document not in right and passages.titles[document] not in same for document in documents]
